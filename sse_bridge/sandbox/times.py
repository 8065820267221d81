"""How this server writes a moment for clients."""

from __future__ import annotations

from datetime import datetime

__all__ = ["iso"]


def iso(moment: datetime) -> str:
    """A moment in UTC, as ISO 8601 with milliseconds and `Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
