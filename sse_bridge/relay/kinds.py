"""How runs end, in words of a bounded set: what metrics may count by.

An upstream chooses the codes of its own errors, and each new one would be a new time series.
"""

from __future__ import annotations

from typing import Final

__all__ = ["KINDS", "kind_of"]

_FOREIGN: Final = "upstream_error"
#: Codes of `error` frames that the bridge words itself: its own endings, what upstreams refuse, and what breaks.
_OWN: Final = (
    "abandoned",
    "bridge_failed",
    "busy",
    "cancelled",
    "not_found",
    "not_ready",
    "not_running",
    "owner_lost",
    "server_stopped",
    "source_failed",
    "time_limit",
    "upstream_credits",
    "upstream_ended",
    "upstream_failed",
    "upstream_finished",
    "upstream_lost",
    "upstream_misconfigured",
    "upstream_not_event_stream",
    "upstream_refused",
    "upstream_rejected",
    "upstream_timeout",
    "upstream_unauthorized",
    "upstream_unreachable",
)
#: Every kind of ending.
KINDS: Final = ("exit_zero", "exit_nonzero", "timed_out", "ended", *_OWN, _FOREIGN)


def kind_of(error: str | None, exit_code: int | None, *, timed_out: bool) -> str:
    """One of `KINDS`."""
    if error is not None:
        return error if error in _OWN else _FOREIGN
    if timed_out:
        return "timed_out"
    if exit_code is None:
        return "ended"
    return "exit_nonzero" if exit_code else "exit_zero"
