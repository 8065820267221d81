"""Keeping time: heartbeats, stalled sends and runs, unfinished lines.

All timeouts of one bridge in one event loop share one event-loop timer, which is never reset while frames flow. Each
subject records its last activity and is asked again once its interval has passed. A task for each, as every response of
sse-starlette has, would cost 3 KB and a hundred microseconds a heartbeat.

Time in which the process stands still (a paused container, a stopped process, code that blocks the event loop) is left
out: the clock stands still with the process.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel

from .signal import Signal

__all__ = ["Clock", "Clocked", "Timer"]

logger: Final = logging.getLogger("sse_bridge")

#: The least seconds between two rounds. Subjects that are due in between are asked together, in the next one.
ROUND_INTERVAL: Final = 0.05
#: Seconds after which the event loop's timer fires although no subject is due: if it is late, the process stood still.
BEAT: Final = 0.25
#: Seconds that it may be late. An event loop with thousands of streams may need some tenths for one of its rounds.
LATENESS: Final = 0.25
#: Entries of stopped timers that may stay in the heap, however few others there are; and their share of all entries.
_DEAD_ENTRIES: Final = 64
_DEAD_SHARE: Final = 0.25
#: Seconds that the event loop's timer may fire early: uvloop counts whole milliseconds.
_TIMER_RESOLUTION: Final = 0.001


class Clocked(Protocol):
    def tick(self, now: float) -> float:
        """Does what is due and returns when to ask again; infinity for never. Must return at once."""
        ...


class Timer:
    """When one subject is asked next. `Clock.start` makes them."""

    __slots__ = ("_clock", "due", "entries", "subject")

    def __init__(self, clock: Clock, subject: Clocked) -> None:
        self.due = inf
        self.subject: Clocked | None = subject
        #: When the clock looks at this timer, the earliest time last. Later times are left from before it was hastened.
        self.entries: list[float] = []
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
            self._clock.forget(self)


class Clock:
    """The time of the running event loop, less its standstills, and one of its timers for all subjects.

    It notices a standstill while it has subjects, and counts half a second of it at most. At the end of trio's loop it
    asks its subjects no more, and passes on the loop's time.
    """

    def __init__(self) -> None:
        token = anyio.lowlevel.current_token()
        # `anyio.current_time` looks up the loop at each call, which takes longer than reading the time. On asyncio
        # before Python 3.12 the lookup is a system call.
        own: Callable[[], float] | None = getattr(token.native_token, "time", None)  # on asyncio
        self._loop_time: Callable[[], float] = own or token.backend_class.current_time
        self._lost = 0.0
        self._timers = 0
        self._entries: list[tuple[float, int, Timer]] = []  # a heap
        self._dead = 0  # entries of stopped timers; a day's time limit would keep them for a day
        self._number = 0  # orders entries of the same time, since timers have no order
        self._not_before = -inf
        self._late_at = inf  # the event loop's time from which on its timer is late
        self._is_over = False
        self._bell = _LoopBell(token.native_token) if own else _TaskBell(self._end)

    def now(self) -> float:
        """Seconds since an arbitrary moment. It is not the event loop's time: see `deadline`."""
        time = self._loop_time()
        if time > self._late_at:
            self._lost += time - self._late_at
            self._late_at = time
        return time - self._lost

    @property
    def lost(self) -> float:
        """Seconds in which the process stood still."""
        self.now()
        return self._lost

    def deadline(self, seconds: float) -> float:
        """The event loop's time in so many seconds, for the deadline of a scope. A standstill does not move it."""
        return self._loop_time() + seconds

    @contextmanager
    def move_on_after(self, seconds: float) -> Iterator[anyio.CancelScope]:
        """`anyio.move_on_after` by this clock: a standstill does not use the time up.

        Without a shield: the clock may end before what is shielded from the end of the event loop.
        """
        with anyio.CancelScope() as scope:
            timer = self.start(_Limit(scope, self.now() + seconds))
            try:
                yield scope
            finally:
                timer.stop()

    def start(self, subject: Clocked) -> Timer:
        """Asks the subject now, and again whenever it says, until the timer is stopped."""
        timer = Timer(self, subject)
        self._timers += 1
        timer.hasten(subject.tick(self.now()))
        return timer

    def expect(self, timer: Timer) -> None:
        """Notes that a timer is due earlier than before."""
        if timer.entries and timer.entries[-1] <= timer.due:
            return
        timer.entries.append(timer.due)
        self._number += 1
        heapq.heappush(self._entries, (timer.due, self._number, timer))
        self._set()

    def forget(self, timer: Timer) -> None:
        """Notes that a timer was stopped. The last one takes the event loop's timer with it."""
        self._timers -= 1
        self._dead += len(timer.entries)
        if not self._timers:
            self._entries.clear()
            self._dead = 0
            self._late_at = inf
            self._bell.mute()
        elif self._dead > max(_DEAD_ENTRIES, len(self._entries) * _DEAD_SHARE):
            self._entries = [entry for entry in self._entries if entry[2].subject is not None]
            heapq.heapify(self._entries)
            self._dead = 0

    def _end(self) -> None:
        self._is_over = True
        self._late_at = inf

    def _set(self) -> None:
        """Sets the event loop's timer, unless it fires early enough already."""
        if self._entries and not self._is_over:
            now = self.now()
            at = min(max(self._entries[0][0], self._not_before), now + BEAT) + self._lost
            if at + LATENESS < self._late_at:
                self._late_at = at + LATENESS
                self._bell.set(at, self._ring)

    def _ring(self) -> None:
        """Asks every subject that is due."""
        now = self.now()
        self._late_at = inf
        if now + _TIMER_RESOLUTION >= self._not_before and self._is_due(now):
            self._not_before = now + ROUND_INTERVAL
            self._ask_all(now)
        self._set()

    def _is_due(self, now: float) -> bool:
        return bool(self._entries) and self._entries[0][0] <= now + _TIMER_RESOLUTION

    def _ask_all(self, now: float) -> None:
        while self._is_due(now):
            due, _, timer = heapq.heappop(self._entries)
            timer.entries.pop()
            if timer.subject is None:
                self._dead -= 1
            elif timer.due <= due:
                timer.due = inf
                self._ask(timer, timer.subject, max(due, now))
            elif timer.due < inf:
                self.expect(timer)

    def _ask(self, timer: Timer, subject: Clocked, now: float) -> None:
        try:
            due = subject.tick(now)
        except Exception:  # a bug in this subject must leave the others' time alone
            logger.exception("a bug in the bridge: one of its timeouts failed. Please report this traceback")
        else:
            timer.hasten(due)


class _Limit:
    """Cancels a scope at a time of the clock."""

    def __init__(self, scope: anyio.CancelScope, until: float) -> None:
        self._scope = scope
        self._until = until

    def tick(self, now: float) -> float:
        """See `Clocked.tick`."""
        if now < self._until:
            return self._until
        self._scope.cancel()
        return inf


class _LoopBell:
    """Rings in a callback of asyncio's event loop."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._handle: Any = None

    def set(self, at: float, ring: Callable[[], None]) -> None:
        """Rings at `at`, in the event loop's time, instead of at the time that was set before."""
        self.mute()
        self._handle = self._loop.call_later(max(0.0, at - self._loop.time()), ring)

    def mute(self) -> None:
        """Cancels the time that is set."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _TaskBell:
    """Rings in a system task of trio, which has no timers. The task runs from the first `set` to `mute`.

    Args:
        over: is called when trio ends the task.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._at = inf
        self._changed = Signal()
        self._scope: anyio.CancelScope | None = None

    def set(self, at: float, ring: Callable[[], None]) -> None:
        """See `_LoopBell.set`."""
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
            try:
                while True:
                    with anyio.CancelScope(deadline=self._at) as until:
                        await self._changed.wait()
                    if until.cancelled_caught:
                        self._at = inf
                        ring()
            finally:
                if self._scope is scope:
                    self._over()
