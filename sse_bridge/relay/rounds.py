"""Waking the readers of a run with many viewers, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["TURN", "Rounds"]

#: Readers that are woken together. With 1,000 and 5,000 viewers, 8 to 64 measure alike.
TURN: Final = 16


class Reader(Protocol):
    """A reader that waits for news."""

    def notify(self) -> None:
        """Wakes it, if it waits."""
        ...


class Rounds:
    """The readers of a run. It wakes many of them in turns, one in each round of the event loop.

    If all were woken at once, the loop would hold a callback and a future for each of them before the first one runs.
    CPython's garbage collector takes these for objects that last. With 5,000 viewers of a line a second, it looked
    through everything every ten seconds, and the process stood still for 0.2 s. In turns, they are gone before it runs.

    On trio, which has no such callbacks, all are woken at once.
    """

    __slots__ = ("_at", "_is_late", "_round", "readers")

    def __init__(self) -> None:
        #: All of them. The list may change at any time.
        self.readers: list[Reader] = []
        self._round: Sequence[Reader] = ()  # those that the present round wakes; empty between rounds
        self._at = 0  # the first of them whose turn is still to come
        self._is_late = False  # there is more news, and some had their turn before it

    def wake(self) -> None:
        """Wakes all that wait now: up to `TURN` at once, the others in the rounds of the event loop that follow."""
        if len(self.readers) <= TURN:
            for reader in self.readers:
                reader.notify()
        elif self._round:
            self._is_late = True
        else:
            self._begin()

    def _begin(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for reader in self.readers:
                reader.notify()
            return
        self._round = tuple(self.readers)
        self._at = 0
        self._is_late = False
        self._turn(loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        end = self._at + TURN
        for reader in self._round[self._at : end]:
            reader.notify()
        self._at = end
        if end < len(self._round):
            loop.call_soon(self._turn, loop)
            return
        self._round = ()
        if self._is_late:
            self.wake()
