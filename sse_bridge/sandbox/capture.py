"""What a command prints until it has ended: for the routes that answer once, rather than stream.

Independent of HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import anyio

from .output import boundary
from .processes import Command, Outcome

__all__ = ["MAX_OUTPUT", "Captured", "Head", "capturing"]

#: Bytes that are kept of stdout, and of stderr; the rest is read and dropped. MIOSA documents no limit.
MAX_OUTPUT: Final = 10 * 1024 * 1024


class Head:
    """The first bytes of an output, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.is_cut = False

    async def add(self, piece: bytes) -> None:
        """Keeps as much as still fits."""
        self._bytes += piece
        if len(self._bytes) > self._limit:
            self.is_cut = True
            del self._bytes[boundary(self._bytes, self._limit) :]

    def text(self) -> str:
        """The bytes kept, as text; invalid UTF-8 becomes U+FFFD."""
        return self._bytes.decode("utf-8", "replace")


class Captured(NamedTuple):
    """A command that has ended, and what it printed."""

    outcome: Outcome
    stdout: Head
    stderr: Head


@asynccontextmanager
async def capturing(command: Command) -> AsyncIterator[Captured]:
    """Waits until the command has ended.

    Leaving the context takes until the last process has ended that holds the pipes. A child in the background may hold
    them for long.
    """
    stdout, stderr = Head(MAX_OUTPUT), Head(MAX_OUTPUT)
    async with anyio.create_task_group() as pumps:
        pumps.start_soon(command.stdout.pump, stdout.add)
        pumps.start_soon(command.stderr.pump, stderr.add)
        yield Captured(await command.ended(), stdout, stderr)
