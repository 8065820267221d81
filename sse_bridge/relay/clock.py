"""Keeping time: heartbeats, stalled sends and runs, unfinished lines.

One timer of the event loop for everybody, and it is not touched while frames flow: whoever could be due writes down
when something last happened, and is asked again when that is over. A task each, as every response of sse-starlette
has, would cost 3 KB and a hundred microseconds a heartbeat.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel

from .signal import Signal

__all__ = ["Clock", "Clocked", "Timer"]

logger: Final = logging.getLogger("sse_bridge")

#: Seconds between two rounds, at least: those who are due within them are asked together.
_GRAIN: Final = 0.05
#: Seconds that a timer may be early: uvloop's count whole milliseconds.
_EARLY: Final = 0.001


class Clocked(Protocol):
    def tick(self, now: float) -> float:
        """Does what is due, and says when to ask again: infinity for never. Never waits."""
        ...


class Timer:
    """When one subject is asked next. Made by `Clock.start`."""

    __slots__ = ("_clock", "due", "subject")

    def __init__(self, clock: Clock, subject: Clocked) -> None:
        self.due = inf
        self.subject: Clocked | None = subject
        self._clock = clock

    def hasten(self, due: float) -> None:
        """The subject is to be asked at `due`, or earlier if that was said before."""
        if due < self.due and self.subject is not None:
            self.due = due
            self._clock.expect(self)

    def stop(self) -> None:
        """The subject is not asked any more. May be called again."""
        if self.subject is not None:
            self.subject = None
            self.due = inf
            self._clock.forget()


class Clock:
    """The time of the event loop that runs, and its one timer."""

    def __init__(self) -> None:
        token = anyio.lowlevel.current_token()
        # `anyio.current_time` finds the loop anew each time, which takes longer than looking; up to Python 3.11 even
        # finding asyncio's is a system call.
        own: Callable[[], float] | None = getattr(token.native_token, "time", None)  # asyncio's loops have one
        #: Seconds, from some point on.
        self.now: Callable[[], float] = own or token.backend_class.current_time
        self._timers = 0
        self._entries: list[tuple[float, int, Timer]] = []  # a heap; those whose time was changed have later ones
        self._number = 0  # so that timers are never compared
        self._not_before = -inf
        self._bell = _LoopBell(self.now, token.native_token) if own else _TaskBell()

    def start(self, subject: Clocked) -> Timer:
        """Asks the subject now, and whenever it wants to be, until the timer is stopped."""
        timer = Timer(self, subject)
        self._timers += 1
        timer.hasten(subject.tick(self.now()))
        return timer

    def expect(self, timer: Timer) -> None:
        """A timer is due earlier than it was."""
        self._number += 1
        heapq.heappush(self._entries, (timer.due, self._number, timer))
        self._set()

    def forget(self) -> None:
        """A timer was stopped."""
        self._timers -= 1
        if not self._timers:
            self._entries.clear()
            self._bell.mute()

    def _set(self) -> None:
        if self._entries:
            self._bell.set(max(self._entries[0][0], self._not_before), self._ring)

    def _ring(self) -> None:
        """Asks all who are due."""
        now = self.now()
        self._not_before = now + _GRAIN
        while self._entries and self._entries[0][0] <= now + _EARLY:
            due, _, timer = heapq.heappop(self._entries)
            if timer.due == due and timer.subject is not None:
                timer.due = inf
                self._ask(timer, timer.subject, max(due, now))
        self._set()

    def _ask(self, timer: Timer, subject: Clocked, now: float) -> None:
        try:
            due = subject.tick(now)
        except Exception:  # a bug, of which others who keep time here are to know nothing
            logger.exception("keeping time failed")
        else:
            timer.hasten(due)


class _LoopBell:
    """Rings in a callback of asyncio's."""

    def __init__(self, now: Callable[[], float], loop: Any) -> None:
        self._now = now
        self._loop = loop
        self._handle: Any = None
        self._at = inf

    def set(self, at: float, ring: Callable[[], None]) -> None:
        """Rings at `at`, or earlier if that was said before."""
        if at < self._at:
            self.mute()
            self._at = at
            self._handle = self._loop.call_later(max(0.0, at - self._now()), self._ring, ring)

    def mute(self) -> None:
        """Does not ring any more."""
        self._at = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self, ring: Callable[[], None]) -> None:
        self._at, self._handle = inf, None
        ring()


class _TaskBell:
    """Rings in a system task of trio's, which has no timers: it is there as long as somebody has something due."""

    def __init__(self) -> None:
        self._at = inf
        self._changed = Signal()
        self._scope: anyio.CancelScope | None = None

    def set(self, at: float, ring: Callable[[], None]) -> None:
        """See `_LoopBell.set`."""
        if at >= self._at:
            return
        self._at = at
        if self._scope is None:
            import trio

            self._scope = anyio.CancelScope()
            trio.lowlevel.spawn_system_task(self._run, self._scope, ring)
        self._changed.notify()

    def mute(self) -> None:
        """See `_LoopBell.mute`."""
        self._at = inf
        if self._scope is not None:
            self._scope.cancel()
            self._scope = None

    async def _run(self, scope: anyio.CancelScope, ring: Callable[[], None]) -> None:
        with scope:
            while True:
                with anyio.CancelScope(deadline=self._at) as until:
                    await self._changed.wait()
                if until.cancelled_caught:
                    self._at = inf
                    ring()
