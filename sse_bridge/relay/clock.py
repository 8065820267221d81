"""Keeping time: heartbeats, stalled sends and runs, unfinished lines.

All timeouts of one bridge in one event loop share one event-loop timer, which is never reset while frames flow. Each
subject records its last activity and is asked again once its interval has passed. A task for each, as every response of
sse-starlette has, would cost 3 KB and a hundred microseconds a heartbeat.
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

#: The least seconds between two rounds. Subjects that are due in between are asked together, in the next one.
ROUND_INTERVAL: Final = 0.05
#: Seconds that the event loop's timer may fire early: uvloop counts whole milliseconds.
_TIMER_RESOLUTION: Final = 0.001


class Clocked(Protocol):
    def tick(self, now: float) -> float:
        """Does what is due and returns when to ask again; infinity for never. Must return at once."""
        ...


class Timer:
    """When one subject is asked next. `Clock.start` makes them."""

    __slots__ = ("_clock", "due", "subject")

    def __init__(self, clock: Clock, subject: Clocked) -> None:
        self.due = inf
        self.subject: Clocked | None = subject
        self._clock = clock

    def hasten(self, due: float) -> None:
        """Asks the subject at `due`, unless it is asked earlier anyway."""
        if due < self.due and self.subject is not None:
            self.due = due
            self._clock.expect(self)

    def stop(self) -> None:
        """Stops asking the subject. May be called again."""
        if self.subject is not None:
            self.subject = None
            self._clock.forget()


class Clock:
    """The time of the running event loop, and one timer of it for all subjects."""

    def __init__(self) -> None:
        token = anyio.lowlevel.current_token()
        # `anyio.current_time` looks up the loop at each call, which takes longer than reading the time. On asyncio
        # before Python 3.12 the lookup is a system call.
        own: Callable[[], float] | None = getattr(token.native_token, "time", None)  # on asyncio
        #: Seconds since an arbitrary moment.
        self.now: Callable[[], float] = own or token.backend_class.current_time
        self._timers = 0
        self._entries: list[tuple[float, int, Timer]] = []  # a heap; a hastened timer has an entry for each time
        self._number = 0  # orders entries of the same time, since timers have no order
        self._not_before = -inf
        self._bell = _LoopBell(self.now, token.native_token) if own else _TaskBell()

    def start(self, subject: Clocked) -> Timer:
        """Asks the subject now, and again whenever it says, until the timer is stopped."""
        timer = Timer(self, subject)
        self._timers += 1
        timer.hasten(subject.tick(self.now()))
        return timer

    def expect(self, timer: Timer) -> None:
        """Notes that a timer is due earlier than before."""
        self._number += 1
        heapq.heappush(self._entries, (timer.due, self._number, timer))
        self._set()

    def forget(self) -> None:
        """Notes that a timer was stopped. The last one takes the event loop's timer with it."""
        self._timers -= 1
        if not self._timers:
            self._entries.clear()
            self._bell.mute()

    def _set(self) -> None:
        if self._entries:
            self._bell.set(max(self._entries[0][0], self._not_before), self._ring)

    def _ring(self) -> None:
        """Asks every subject that is due."""
        now = self.now()
        self._not_before = now + ROUND_INTERVAL
        while self._entries and self._entries[0][0] <= now + _TIMER_RESOLUTION:
            due, _, timer = heapq.heappop(self._entries)
            if timer.due == due and timer.subject is not None:
                timer.due = inf
                self._ask(timer, timer.subject, max(due, now))
        self._set()

    def _ask(self, timer: Timer, subject: Clocked, now: float) -> None:
        try:
            due = subject.tick(now)
        except Exception:  # a bug in this subject must leave the others' time alone
            logger.exception("keeping time failed")
        else:
            timer.hasten(due)


class _LoopBell:
    """Rings in a callback of asyncio's event loop."""

    def __init__(self, now: Callable[[], float], loop: Any) -> None:
        self._now = now
        self._loop = loop
        self._handle: Any = None
        self._at = inf

    def set(self, at: float, ring: Callable[[], None]) -> None:
        """Rings at `at`, unless an earlier time is set."""
        if at < self._at:
            self.mute()
            self._at = at
            self._handle = self._loop.call_later(max(0.0, at - self._now()), self._ring, ring)

    def mute(self) -> None:
        """Cancels the time that is set."""
        self._at = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self, ring: Callable[[], None]) -> None:
        self._at, self._handle = inf, None
        ring()


class _TaskBell:
    """Rings in a system task of trio, which has no timers. The task runs from the first `set` to `mute`."""

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
