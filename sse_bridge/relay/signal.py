"""A wake-up that may be used again, and one that happens once.

An `anyio.Event` is for one occasion, and making one and waiting for it takes 3 µs on asyncio, of the fifty that a line
costs from socket to socket. Here nothing is made unless somebody really waits, and on asyncio that is a bare future.
It is smaller, too: an event holds 1 KB, of which a stream would have six.
"""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["Latch", "Signal"]


class Signal:
    """Wakes whoever waits right now; it remembers nothing.

    Look at the condition and call `wait` without awaiting in between, and look again after it.
    """

    __slots__ = ("_event", "_futures", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # found once: up to Python 3.11 that is a system call
        self._futures: list[asyncio.Future[None]] = []
        self._event: anyio.Event | None = None  # elsewhere than on asyncio

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return bool(self._futures) or self._event is not None

    def notify(self) -> None:
        """Wakes all who wait."""
        if self._futures:
            for future in self._futures:
                if not future.done():
                    future.set_result(None)
            self._futures = []
        elif self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Returns after the next `notify`."""
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                return await self._wait_for_event()
        future = self._loop.create_future()  # one each: cancelling a task cancels what it waits for
        self._futures.append(future)
        try:
            await future
        except BaseException:
            if future in self._futures:
                self._futures.remove(future)
            raise
        return None

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
