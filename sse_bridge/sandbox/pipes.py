"""What a process prints: the pipe that is its stdout or stderr, and the reading of it.

Independent of processes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

__all__ = ["Pipe"]

#: Bytes. A pipe's default capacity on Linux, so one read empties it.
_READ_SIZE: Final = 64 * 1024


def _ignore(piece: bytes) -> None:
    pass


class Pipe:
    """A process's stdout or stderr: our reading end and, until the process has its copy, the writing end.

    A pipe is read only as fast as `pump` can deliver, so the kernel holds the process back for a slow client.
    """

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        self._open = [self._reader, self.writer]
        os.set_blocking(self._reader, False)
        self._left: int | None = None  # bytes still to deliver, once `stop` has fixed their number
        self._waiting = anyio.CancelScope()
        #: Called with each piece before it is delivered.
        self.tap: Callable[[bytes], None] = _ignore
        #: Set once all output is delivered.
        self.delivered = anyio.Event()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._open:
            os.close(end)

    def close_writer(self) -> None:
        """Leaves the writing end to the process. `pump` ends when the last process has closed it."""
        self._open.remove(self.writer)
        os.close(self.writer)

    async def pump(self, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        """Delivers the output piece by piece, until the last process that could print has ended.

        After `stop` it reads on and drops the output: a child in the background must neither block on a full pipe nor
        be killed by a closed one.
        """
        while piece := await self._next():
            self.tap(piece)
            await deliver(piece)
            await checkpoint()  # in a burst, read and delivery return at once and would starve other tasks
        self.delivered.set()
        await self._discard()

    def stop(self) -> None:
        """Ends the delivery with the bytes that are in the pipe now."""
        unread = fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4))
        (self._left,) = struct.unpack("i", unread)
        self._waiting.cancel()

    async def _next(self) -> bytes:
        while self._left != 0:
            piece = self._read(_READ_SIZE if self._left is None else min(self._left, _READ_SIZE))
            if piece is None:
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self._reader)
                continue
            if self._left is not None:
                self._left -= len(piece)
            return piece
        return b""

    async def _discard(self) -> None:
        while (piece := self._read(_READ_SIZE)) != b"":
            await (anyio.wait_readable(self._reader) if piece is None else checkpoint())

    def _read(self, size: int) -> bytes | None:
        """The bytes available: `b""` at the end, `None` if the pipe is empty for now."""
        try:
            return os.read(self._reader, size)
        except BlockingIOError:
            return None
