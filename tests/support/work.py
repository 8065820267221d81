"""An exec without a platform: chunks come from the test, and what becomes of it is written down."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from sse_bridge.relay.signal import Signal
from sse_bridge.upstream.base import Cancelled, Work
from sse_bridge.upstream.client import HTTPUpstream
from sse_bridge.wire.shapes import EXEC


class ScriptedWork:
    """A `Work` whose stream the test writes with `feed` and ends with `finish` or `fail`."""

    shape = EXEC

    def __init__(self, *, refusal: Exception | None = None, answers: bool = True, outcome: object = None) -> None:
        self.may_run = False
        self.started = anyio.Event()
        self.closed = anyio.Event()
        self.cancels = 0
        self.last_event_id: str | None = None
        self._refusal = refusal
        self._answer = anyio.Event()
        if answers:
            self._answer.set()
        self._outcome = outcome or Cancelled.CONFIRMED
        self._items: deque[bytes | Exception | None] = deque()
        self._more = Signal()

    # what a test says

    def answer(self) -> None:
        self._answer.set()

    def feed(self, *chunks: bytes | str) -> None:
        for chunk in chunks:
            self._put(chunk.encode() if isinstance(chunk, str) else chunk)

    def finish(self) -> None:
        self._put(None)

    def fail(self, error: Exception) -> None:
        self._put(error)

    def _put(self, item: bytes | Exception | None) -> None:
        self._items.append(item)
        self._more.notify()

    @property
    def unread(self) -> int:
        """Chunks that the reader has not asked for."""
        return len(self._items)

    # what the relay sees

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        self.started.set()
        self.may_run = True
        try:
            await self._answer.wait()
            if self._refusal is not None:
                self.may_run = False
                raise self._refusal
            yield self
        finally:
            self.closed.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._items:
            await self._more.wait()
        item = self._items.popleft()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    async def cancel(self, timeout: float) -> Cancelled:
        self.cancels += 1
        await anyio.lowlevel.checkpoint()
        if isinstance(self._outcome, Cancelled):
            return self._outcome
        await anyio.sleep_forever()
        raise AssertionError

    # as what `resolve` returns

    def work(self, upstream: HTTPUpstream, last_event_id: str | None) -> Work:
        self.last_event_id = last_event_id
        return self


def stdout(*lines: str) -> bytes:
    """Frames as the platform sends them."""
    return "".join(f'event: stdout\ndata: {{"line":"{line}"}}\n\n' for line in lines).encode()


def exit_frame(code: int = 0) -> bytes:
    return f'event: exit\ndata: {{"exit_code":{code}}}\n\n'.encode()
