"""A wake-up that can be used again, and one that happens once.

An `anyio.Event` serves for one occasion, and making one and waiting for it takes 3 µs on asyncio, of the fifty that a
line costs from socket to socket. A `Signal` makes an object only while a task waits, and on asyncio that is a bare
future. It saves memory, too: an event holds 1 KB, and a stream would have six.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import anyio

__all__ = ["Latch", "Signal"]


class Signal:
    """Wakes the tasks that wait at this moment, and forgets about it.

    Check the condition, await `wait` with no other await in between, and check the condition again.
    """

    __slots__ = ("_event", "_future", "_loop", "_others")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once: a system call before Python 3.12
        self._future: asyncio.Future[None] | None = None  # of the first waiting task; mostly it is the only one
        self._others: list[asyncio.Future[None]] | None = None
        self._event: anyio.Event | None = None  # on trio

    def notify(self) -> None:
        """Wakes every waiting task."""
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
        """Returns an awaitable that completes with the next `notify`.

        On asyncio it is a future: a coroutine around that would cost a second resumption.
        """
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                return self._wait_for_event()
        future = self._loop.create_future()  # one a task, since cancelling a task cancels its future
        if self._future is None or self._future.done():
            self._future = future
        else:
            self._others = [*(other for other in self._others or () if not other.done()), future]
        return future

    async def _wait_for_event(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Latch(Signal):
    """Something that happens once. Tasks that wait for it afterwards continue at once."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        super().__init__()
        self.is_set = False

    def set(self) -> None:
        """Says that it has happened. May be called again."""
        self.is_set = True
        self.notify()

    async def wait(self) -> None:
        """Returns once it has happened."""
        while not self.is_set:
            await super().wait()
