"""A scripted source: its chunks come from the test, and the test sees how the relay treats it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from sse_bridge.relay.signal import Signal
from sse_bridge.upstream.base import Cancelled, Room, Stream, Take, Upstream, Work
from sse_bridge.wire.shapes import EVENT_STREAM, EXEC


class ScriptedWork:
    """A `Source`, its `Work` and its `Stream` in one. The test writes with `feed`, and ends with `finish` or `fail`.

    Args:
        refusal: raised instead of opening the stream.
        answers: whether the upstream answers at once; otherwise the test calls `answer`.
        outcome: what `cancel` returns; a value other than a `Cancelled` makes it hang.
        command: works with the same one are equal, as sources are compared by value.
    """

    shape = EXEC

    def __init__(
        self, *, refusal: Exception | None = None, answers: bool = True, outcome: object = None, command: str = "ls"
    ) -> None:
        self.command = command
        self.may_run = False
        self.started = anyio.Event()
        self.closed = anyio.Event()
        self.cancels = 0
        #: How often the relay was asked to wait for room.
        self.waits = 0
        #: Whether the stream was read to its end.
        self.was_read_to_its_end = False
        self.last_event_id: str | None = None
        self._refusal = refusal
        self._answer = anyio.Event()
        if answers:
            self._answer.set()
        self._outcome = outcome or Cancelled.CONFIRMED
        self._items: deque[bytes | Exception | None] = deque()
        self._more = Signal()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScriptedWork) and self.command == other.command

    __hash__ = None  # type: ignore[assignment]

    # the script

    def answer(self) -> None:
        """The upstream answers."""
        self._answer.set()

    def feed(self, *chunks: bytes | str) -> None:
        """Chunks arrive."""
        for chunk in chunks:
            self._put(chunk.encode() if isinstance(chunk, str) else chunk)

    def finish(self) -> None:
        """The stream ends."""
        self._put(None)

    def fail(self, error: Exception) -> None:
        """The stream raises an error."""
        self._put(error)

    def _put(self, item: bytes | Exception | None) -> None:
        self._items.append(item)
        self._more.notify()

    @property
    def unread(self) -> int:
        """How many chunks wait for the relay."""
        return len(self._items)

    # as a `Work`

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Stream]:
        """See `base.Work.stream`."""
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

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""
        while (chunk := await self._next()) is not None:
            if not take(chunk):
                self.waits += 1
                await room()
        self.was_read_to_its_end = True

    async def _next(self) -> bytes | None:
        await anyio.lowlevel.checkpoint()
        while not self._items:
            await self._more.wait()
        item = self._items.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    async def cancel(self, timeout: float) -> Cancelled:
        """See `base.Work.cancel`."""
        self.cancels += 1
        await anyio.lowlevel.checkpoint()
        if isinstance(self._outcome, Cancelled):
            return self._outcome
        await anyio.sleep_forever()
        raise AssertionError

    # as a `Source`

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        self.last_event_id = last_event_id
        return self


class SlowToEnd(ScriptedWork):
    """Work that ends only once the test allows it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.let_end = anyio.Event()

    async def cancel(self, timeout: float) -> Cancelled:
        await self.let_end.wait()
        return await super().cancel(timeout)


class FollowedStream(ScriptedWork):
    """A stream that is no command's, which leaves no work running."""

    shape = EVENT_STREAM

    @property
    def may_run(self) -> bool:
        return False

    @may_run.setter
    def may_run(self, value: bool) -> None:
        pass


def stdout(*lines: str) -> bytes:
    """Frames of output, as the platform sends them."""
    return "".join(f'event: stdout\ndata: {{"line":"{line}"}}\n\n' for line in lines).encode()


def exit_frame(code: int = 0) -> bytes:
    """The frame that ends an exec."""
    return f'event: exit\ndata: {{"exit_code":{code}}}\n\n'.encode()


def finished(*texts: str, **options: Any) -> ScriptedWork:
    """A work whose whole stream is there from the start: these lines, then exit code 0."""
    work = ScriptedWork(**options)
    work.feed(stdout(*texts), exit_frame())
    work.finish()
    return work
