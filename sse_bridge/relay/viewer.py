"""One downstream response: a cursor, and the only task that calls `send` for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

import anyio

from ..flow.log import Cursor
from ..flow.policy import Block
from ..wire.events import comment
from .signal import Signal

__all__ = ["HEARTBEAT", "Viewer"]

#: What is said in silence.
HEARTBEAT: Final = comment("heartbeat")
#: Bytes handed to `send` at once: where asyncio's transports and uvicorn begin to push back.
BATCH: Final = 64 * 1024
#: Seconds for the last, empty body of a viewer that has waited for it.
LAST_SEND: Final = 0.2

SendBody = Callable[[bytes, bool], Awaitable[None]]


class Viewer:
    """A reader of a run's log who writes what it takes to one response.

    Args:
        cursor: where it reads.
        policy: what happens when it falls behind.
        took: notified whenever the viewer took something.
        heartbeat: seconds of silence after which a comment goes out; `None` for never.
        send_timeout: seconds that one `send` may hang; `None` for ever.
    """

    def __init__(
        self, cursor: Cursor, policy: Block, took: Signal, *, heartbeat: float | None, send_timeout: float | None
    ) -> None:
        self.cursor = cursor
        self.policy = policy
        self.scope = anyio.CancelScope()
        #: Why there is nobody to write to any more; `None` as long as there is somebody.
        self.gone: str | None = None
        #: See `Clocked`.
        self.alarm = Signal()
        self._took = took
        self._heartbeat = inf if heartbeat is None else heartbeat
        self._send_timeout = inf if send_timeout is None else send_timeout
        self._wake = Signal()
        self._sending_since: float | None = None
        self._sent_at = anyio.current_time()
        self._heartbeat_due = False
        self._last_words = b""
        self._done: anyio.Event | None = None

    def notify(self) -> None:
        """There is something new in the log, or its end."""
        self._wake.notify()

    def leave(self, reason: str) -> None:
        """Ends the writing wherever it is, for good."""
        self.gone = self.gone or reason
        self.scope.cancel()

    def stop(self, farewell: bytes, deadline: float, done: anyio.Event) -> None:
        """The server stops, and the run was ended for it.

        What is pending may go out until `deadline`, and `farewell` after it; then the scope is cancelled while `gone`
        is still `None`. The end itself waits until the run is done: there are servers (granian) that end with their
        last response, and would leave the run's work behind.
        """
        self._last_words, self._done = farewell, done
        self.scope.deadline = deadline

    def holds(self, held: bool) -> bool:
        """Whether the run has to wait for this viewer."""
        return self.policy.holds(self.cursor.pending, held)

    async def write(self, send_body: SendBody, first: bytes) -> None:
        """Writes the log to its end, and heartbeats in between. Returns after the end.

        Args:
            send_body: sends a body, and says whether more follows.
            first: what goes out at once, before anything is in the log.

        Raises:
            OSError: whatever `send_body` raises.
        """
        await self._send(send_body, first)
        while True:
            if frames := self.cursor.take(BATCH):
                self._took.notify()
                await self._send(send_body, frames)
            elif self.cursor.finished:
                await self._end(send_body)
                return
            elif self._heartbeat_due:
                await self._send(send_body, HEARTBEAT)
            else:
                await self._wake.wait()

    async def until_done(self) -> None:
        """What a viewer that was stopped waits for before its end; others wait for nothing."""
        if self._done is not None:
            deadline, self.scope.deadline = self.scope.deadline, inf
            await self._done.wait()
            self.scope.deadline = max(deadline, anyio.current_time() + LAST_SEND)

    async def _end(self, send_body: SendBody) -> None:
        if self._last_words:
            await self._send(send_body, self._last_words)
        await self.until_done()
        await self._send(send_body, b"", more=False)

    async def _send(self, send_body: SendBody, body: bytes, more: bool = True) -> None:
        self._sending_since = anyio.current_time()
        await send_body(body, more)
        self._sent_at = anyio.current_time()
        self._sending_since = None
        self._heartbeat_due = False

    def tick(self, now: float) -> float:
        """A heartbeat when nothing was sent for the interval; the end when a `send` hangs. See `Clocked.tick`.

        A viewer whose `send` hangs gets no heartbeat: at most one is ever due, and it goes between frames.
        """
        if self._sending_since is not None:
            if now >= self._sending_since + self._send_timeout:
                self.leave("stalled")
                return inf
            return min(self._sending_since + self._send_timeout, now + self._heartbeat)
        if now >= self._sent_at + self._heartbeat and not self._heartbeat_due:
            self._heartbeat_due = True
            self._wake.notify()
        silent_until = inf if self._heartbeat_due else self._sent_at + self._heartbeat
        return min(silent_until, now + self._heartbeat, now + self._send_timeout)
