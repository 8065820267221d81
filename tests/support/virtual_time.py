"""Event loops in which time passes only while every task waits. A test of a second is instant and exact.

The time jumps to the next timer, and would do so during a wait for a thread, a process or a socket: keep those out of
tests in virtual time.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import trio
from trio.testing import MockClock

__all__ = ["stand_still", "virtual"]


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the time on instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:  # without a timer, only a signal or another thread can wake the loop
            return super().select(None)
        if not ready and timeout is not None:
            self.time += timeout
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, on the selector's time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.time

    def jump(self, seconds: float) -> None:
        """Moves the time on."""
        self._jumping.time += seconds


def virtual(backend: str) -> tuple[str, dict[str, Any]]:
    """A value for the fixture `anyio_backend`: the event loop `backend`, in virtual time."""
    if backend == "trio":
        return backend, {"clock": MockClock(autojump_threshold=0)}
    return backend, {"loop_factory": _JumpingLoop}


def stand_still(seconds: float) -> None:
    """Lets time pass while the process stands still, as in a paused container: no task and no timer runs meanwhile."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
    else:
        assert isinstance(loop, _JumpingLoop)
        loop.jump(seconds)
