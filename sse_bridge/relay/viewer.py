"""One downstream response: what is delivered to it, and the only task that calls `send` for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

import anyio

from ..flow.delivery import Delivery
from ..wire.events import comment
from .clock import Clock
from .signal import Latch, Signal

__all__ = ["HEARTBEAT", "Viewer"]

#: What is said in silence.
HEARTBEAT: Final = comment("heartbeat")
#: Seconds for the last, empty body of a viewer that has waited for it.
LAST_SEND: Final = 0.2

SendBody = Callable[[bytes, bool], Awaitable[None]]


class Viewer:
    """A reader of a run's log who writes what it takes to one response.

    Args:
        delivery: what it gets, and when.
        took: notified whenever the viewer took something.
        clock: of the event loop it is written in.
        heartbeat: seconds of silence after which a comment goes out; `None` for never.
        send_timeout: seconds that one `send` may hang; `None` for ever.
    """

    __slots__ = (
        "_done",
        "_heartbeat",
        "_heartbeat_due",
        "_hurry",
        "_last_words",
        "_now",
        "_send_timeout",
        "_sending_since",
        "_sent_at",
        "_took",
        "delivery",
        "gone",
        "news",
        "scope",
    )

    def __init__(
        self, delivery: Delivery, took: Signal, clock: Clock, *, heartbeat: float | None, send_timeout: float | None
    ) -> None:
        self.delivery = delivery
        self.scope = anyio.CancelScope()
        #: Why there is nobody to write to any more; `None` as long as there is somebody.
        self.gone: str | None = None
        self._took = took
        self._heartbeat = inf if heartbeat is None else heartbeat
        self._send_timeout = inf if send_timeout is None else send_timeout
        #: To be notified when there is something new in the log, or its end.
        self.news = Signal()
        self._hurry = Signal()  # what ends a wait for the pace, where news changes nothing
        self._now = clock.now
        self._sending_since: float | None = None
        self._sent_at = self._now()  # when the last `send` began
        self._heartbeat_due = False
        self._last_words = b""
        self._done: Latch | None = None

    @property
    def took_at(self) -> float:
        """When it last took something, or could."""
        return self._sent_at

    def leave(self, reason: str) -> None:
        """Ends the writing wherever it is, for good."""
        self.gone = self.gone or reason
        self.scope.cancel()

    def stop(self, farewell: bytes, deadline: float, done: Latch) -> None:
        """The server stops, and the run was ended for it.

        What is pending may go out until `deadline`, whatever the pace, and `farewell` after it; then the scope is
        cancelled while `gone` is still `None`. The end itself waits until the run is done: there are servers (granian)
        that end with their last response, and would leave the run's work behind.
        """
        self._last_words, self._done = farewell, done
        self.scope.deadline = deadline
        self.delivery.hurry()
        self._rouse()

    async def write(self, send_body: SendBody, first: bytes) -> None:
        """Writes the log to its end, and heartbeats in between. Returns after the end.

        Args:
            send_body: sends a body, and says whether more follows.
            first: what goes out at once, before anything is in the log.

        Raises:
            OSError: whatever `send_body` raises.
        """
        await self.timed(send_body(first, True))
        delivery, now = self.delivery, self._now
        while True:
            time = now() if delivery.is_paced else 0.0
            if frames := delivery.take(time):
                self._took.notify()
                self._sent_at = self._sending_since = now()  # as in `timed`: a line costs one coroutine less
                await send_body(frames, True)
                self._sending_since = None
                self._heartbeat_due = False
            elif delivery.finished:
                await self._end(send_body)
                return
            elif self._heartbeat_due:
                await self.timed(send_body(HEARTBEAT, True))
            elif (ready_at := delivery.ready_at(time)) == inf:
                await self.news.wait()
            else:
                await self._wait(ready_at)

    async def _wait(self, ready_at: float) -> None:
        """Until the pace lets frames go. Heartbeats end it, too."""
        with anyio.CancelScope(deadline=ready_at):
            await self._hurry.wait()

    def _rouse(self) -> None:
        """There is something to do that is not in the log."""
        self.news.notify()
        self._hurry.notify()

    async def until_done(self) -> None:
        """What a viewer that was stopped waits for before its end; others wait for nothing."""
        if self._done is not None:
            deadline, self.scope.deadline = self.scope.deadline, inf
            await self._done.wait()
            self.scope.deadline = max(deadline, anyio.current_time() + LAST_SEND)

    async def _end(self, send_body: SendBody) -> None:
        if self._last_words:
            await self.timed(send_body(self._last_words, True))
        await self.until_done()
        await self.timed(send_body(b"", False))

    async def timed(self, sending: Awaitable[None]) -> None:
        """Awaits a `send`: how long it hangs is known then, and when the last one went through."""
        self._sent_at = self._sending_since = self._now()
        await sending
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
            self._rouse()
        silent_until = inf if self._heartbeat_due else self._sent_at + self._heartbeat
        return min(silent_until, now + self._heartbeat, now + self._send_timeout)
