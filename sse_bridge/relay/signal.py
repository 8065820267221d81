"""A wake-up that may be used again, and one that happens once.

An `anyio.Event` is for one occasion, and making one and waiting for it takes 3 µs on asyncio, of the fifty that a line
costs from socket to socket. Here nothing is made unless somebody really waits, and on asyncio that is a bare future.
It is smaller, too: an event holds 1 KB, of which a stream would have six.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import anyio

__all__ = ["Latch", "Signal"]


class Signal:
    """Wakes whoever waits right now; it remembers nothing.

    Look at the condition and await `wait` without awaiting in between, and look again after it.
    """

    __slots__ = ("_event", "_future", "_loop", "_others")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # found once: up to Python 3.11 that is a system call
        self._future: asyncio.Future[None] | None = None  # of the one who waits, as there is mostly one
        self._others: list[asyncio.Future[None]] | None = None
        self._event: anyio.Event | None = None  # elsewhere than on asyncio

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return self._event is not None or any(
            f is not None and not f.done() for f in (self._future, *(self._others or ()))
        )

    def notify(self) -> None:
        """Wakes all who wait."""
        future = self._future
        if future is not None:
            self._future = None
            if not future.done():
                future.set_result(None)
            if self._others is not None:
                for future in self._others:
                    if not future.done():
                        future.set_result(None)
                self._others = None
        elif self._event is not None:
            self._event.set()
            self._event = None

    def wait(self) -> Awaitable[None]:
        """To be awaited: it is over after the next `notify`.

        A future where it can be one, since a coroutine around it would have to be resumed, too.
        """
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                return self._wait_for_event()
        future = self._loop.create_future()  # one each: cancelling a task cancels what it waits for
        if self._future is None or self._future.done():
            self._future = future
        else:
            self._others = [*(other for other in self._others or () if not other.done()), future]
        return future

    async def _wait_for_event(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Latch:
    """Something that happens once; who waits for it afterwards does not wait."""

    __slots__ = ("_signal", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._signal = Signal()

    def set(self) -> None:
        """It has happened. May be called again."""
        self.is_set = True
        self._signal.notify()

    async def wait(self) -> None:
        """Returns once it has happened."""
        while not self.is_set:
            await self._signal.wait()
