"""Keeping time for a run: heartbeats, stalled sends, unfinished lines.

One task for a run, however many viewers it has, and none of its timers is touched while frames flow: whoever
could be due writes down when something last happened, and is asked again when that is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from .signal import Signal

__all__ = ["Clocked", "clock", "keep_time"]

#: Seconds that no clock here sleeps longer than: a bound for loops that sleep, not a time that matters.
_LONG: Final = 24 * 3600.0


class Clocked(Protocol):
    #: Notified when something is due earlier than was said.
    alarm: Signal

    def tick(self, now: float) -> float:
        """Does what is due, and says when to ask again. Never waits."""
        ...


def clock() -> Callable[[], float]:
    """The clock of the event loop that runs, for those who look at it often.

    `anyio.current_time` finds the loop anew each time, which takes longer than looking; up to Python 3.11 even finding
    asyncio's is a system call.
    """
    token = anyio.lowlevel.current_token()
    own: Callable[[], float] | None = getattr(token.native_token, "time", None)  # asyncio's loops have one
    return own or token.backend_class.current_time


async def keep_time(subject: Clocked) -> None:
    """Ticks until it is cancelled."""
    while True:
        due = subject.tick(anyio.current_time())
        with anyio.CancelScope(deadline=min(due, anyio.current_time() + _LONG)):
            await subject.alarm.wait()
