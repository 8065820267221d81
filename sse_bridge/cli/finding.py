"""What each look of the doctor comes to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """The result of one look."""

    what: str
    #: `None`: neither good nor bad.
    is_good: bool | None
    found: str
    #: What to do; empty if there is nothing to do.
    remedy: str = ""
