"""Telling the readers of a run that there is news, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from .clock import Clock
from .signal import Signal

__all__ = ["TURN", "Rounds"]

#: Readers that are told together. With 1,000 and 5,000 viewers, 8 to 64 measure alike.
TURN: Final = 16


class Reader(Protocol):
    """A reader that may wait for news."""

    def notify(self, now: float) -> None:
        """Tells it that there is some.

        Args:
            now: seconds, on the run's clock.
        """
        ...


class Rounds:
    """The readers of a run. On asyncio it tells many of them in turns, one in each round of the event loop.

    A viewer that is told sends what is new, or is woken for it. If all were woken at once, the event loop would hold a
    callback and a future for each of them before the first one runs. CPython's garbage collector takes these for
    objects that last. With 5,000 viewers of a line a second, it looked through everything every ten seconds, and the
    process stood still for 0.2 s. In turns, they are gone before it runs.

    Readers are told outside of any task, as a `StandIn` needs it. On trio, all are told at once.

    Args:
        clock: the run's. The readers use it, too.
        taken: is notified after each turn, since the readers may have taken something.
    """

    __slots__ = ("_at", "_clock", "_is_late", "_is_on", "_loop", "_round", "_taken", "readers")

    def __init__(self, clock: Clock, taken: Signal) -> None:
        self._clock = clock
        self._taken = taken
        #: All of them. The list may change at any time.
        self.readers: list[Reader] = []
        self._is_on = False  # a round goes on, or will soon begin
        self._round: Sequence[Reader] = ()  # those that it tells, once it has begun
        self._at = 0  # the first of them whose turn is still to come
        self._is_late = False  # there is more news, and some had their turn before it
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once: a system call before Python 3.12

    def tell(self) -> None:
        """Tells all readers: `TURN` of them at once if no task runs, the others in rounds of the event loop."""
        if self._is_on:
            self._is_late = self._at > 0
            return
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                self._tell(self.readers)
                return
        is_task = asyncio.current_task(self._loop) is not None
        if not is_task and len(self.readers) <= TURN:
            self._tell(self.readers)
            return
        self._is_on = True
        self._at = 0
        if is_task:
            self._loop.call_soon(self._turn, self._loop)
        else:
            self._turn(self._loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._at:
            self._round = tuple(self.readers)
        end = self._at + TURN
        turn, self._at = self._round[self._at : end], end
        if end < len(self._round):
            loop.call_soon(self._turn, loop)
        elif self._is_late:
            self._at = 0
            self._is_late = False
            loop.call_soon(self._turn, loop)
        else:
            self._is_on = False
            self._round = ()
        self._tell(turn)  # last, since a reader may bring news, or fail

    def _tell(self, readers: Iterable[Reader]) -> None:
        """Tells these readers. If one of them fails, the others have their news all the same."""
        now, failure = self._clock.now(), None
        for reader in readers:
            try:
                reader.notify(now)
            except BaseException as error:
                failure = error
        self._taken.notify()
        if failure is not None:
            raise failure
