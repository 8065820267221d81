"""Writes an event stream to a client: headers, frames and heartbeats, and a command's output as it appears.

Used by every route that streams. It is written against ASGI itself, because the one who writes may outlive the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup
from starlette.types import Message, Receive, Send

from .framings import Encoder
from .output import HEARTBEAT

__all__ = ["Outlet", "ShownOutput"]

#: Seconds that the beginning of a line waits for its end. A person at a prompt does not notice them, and a program that
#: writes a line in several parts (Python's `print` under `-u` writes the newline apart) is done by then.
_UNFINISHED: Final = 0.1


class Outlet:
    """The response of one stream. stdout, stderr and the heartbeat take turns in writing it.

    While the client does not read, `send` waits, and the writer with it. Once the client has left, output is accepted
    and dropped.

    Args:
        send: the server's.
        interval: seconds of silence after which a comment is sent.
        comment: the frame of the comment.
    """

    def __init__(self, send: Send, interval: float, comment: bytes = HEARTBEAT) -> None:
        self._send = send
        self._interval = interval
        self._comment = comment
        self._turn = anyio.Lock(fast_acquire=True)
        self._sending = anyio.CancelScope()
        #: The client has left, or has received the whole response.
        self.is_over = False
        self._last = anyio.current_time()

    async def begin(self, frames: bytes = b"") -> None:
        """Sends the headers, before there is any output, and perhaps frames."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await self._put({"type": "http.response.start", "status": 200, "headers": headers})
        await self.write(frames)  # some servers hold the headers back until the first part of the body

    async def write(self, frames: bytes) -> None:
        """Sends frames, in the order of the calls."""
        await self._put({"type": "http.response.body", "body": frames, "more_body": True})

    async def end(self, frames: bytes) -> None:
        """Sends the last frames, and ends the response."""
        await self._put({"type": "http.response.body", "body": frames, "more_body": False})

    @asynccontextmanager
    async def served(self, receive: Receive) -> AsyncIterator[TaskGroup]:
        """Sends comments in silence, and cancels the block when the client leaves. The block may start more tasks.

        It is for streams that end with their client. All tasks are cancelled with the end of the block.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.beat)
            tasks.start_soon(self._watch_over, tasks.cancel_scope, receive)
            yield tasks
            tasks.cancel_scope.cancel()

    async def beat(self) -> None:
        """Sends a comment after each interval of silence."""
        while True:
            await anyio.sleep_until(self._last + self._interval)
            if anyio.current_time() >= self._last + self._interval:
                await self.write(self._comment)

    async def watch(self, receive: Receive) -> None:
        """Waits for the client to leave, then stops sending and releases a `send` that waits."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stop()

    async def _watch_over(self, block: anyio.CancelScope, receive: Receive) -> None:
        await self.watch(receive)
        block.cancel()

    async def _put(self, message: Message) -> None:
        async with self._turn:
            if not self.is_over:
                with anyio.CancelScope() as self._sending:
                    await self._try(message)
            if message.get("more_body") is False:
                self._stop()  # drops a heartbeat that waits for its turn
            self._last = anyio.current_time()

    async def _try(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # the client has left (ASGI HTTP, 2.4)
            self._stop()

    def _stop(self) -> None:
        self.is_over = True
        self._sending.cancel()


class ShownOutput:
    """stdout or stderr of a stream, as frames."""

    def __init__(self, outlet: Outlet, encoder: Encoder) -> None:
        self._outlet = outlet
        self._encoder = encoder
        self._waits_since: float | None = None  # when text of an unfinished line arrived that is still to be sent
        self._waits = anyio.Event()

    async def add(self, piece: bytes) -> None:
        """Sends the lines that a piece of output completes."""
        if self._outlet.is_over:
            return
        if frames := self._encoder.feed(piece):
            self._waits_since = None  # a new line, whose time runs once those before it are sent
            await self._outlet.write(frames)
        if self._encoder.is_waiting and self._waits_since is None:
            self._waits_since = anyio.current_time()
            self._waits.set()

    async def show_unfinished(self) -> None:
        """Sends what there is of a line that stays unfinished, as a prompt or a progress bar does."""
        while True:
            await self._waits.wait()
            self._waits = anyio.Event()
            while self._waits_since is not None:
                left = self._waits_since + _UNFINISHED - anyio.current_time()
                if left > 0:
                    await anyio.sleep(left)
                    continue
                self._waits_since = None
                if frames := self._encoder.flush():
                    await self._outlet.write(frames)

    def finish(self) -> bytes:
        """The frames of an unfinished last line."""
        return self._encoder.finish()
