"""One downstream response: what is delivered to it and when, written by one task."""

from __future__ import annotations

from collections.abc import Awaitable
from enum import Enum, auto
from math import inf
from typing import Final

import anyio
from starlette.types import Message, Send

from ..flow.delivery import Delivery
from ..wire.events import comment
from .clock import Clock
from .options import ViewerOptions
from .progress import LOOKS, Progress
from .signal import Latch, Signal
from .standin import StandIn

__all__ = ["HEARTBEAT", "Gone", "Viewer"]

#: What is sent in silence: a comment line, without a blank line of its own. Some clients deliver an empty event for
#: each block without data.
HEARTBEAT: Final = comment("heartbeat")[:-1]
#: Seconds for the last, empty body of a viewer whose end had to wait for its run.
LAST_SEND: Final = 0.2
#: Seconds for the last `send` of a response once the client is said to have left. A server that closes the connection
#: itself, as HTTP/1.0 asks for, may say so in the midst of that `send`, and has to finish.
CLOSING_TIME: Final = 1.0
#: Seconds beyond `retry_ms` in which a client whose time was up may come back. Browsers reconnect within three.
RETURN_TIME: Final = 10.0


async def _nowhere(message: Message) -> None:
    raise RuntimeError("this viewer has no response yet")


class Gone(Enum):
    """Why a viewer is not written to any more."""

    #: Its client closed the connection.
    DISCONNECTED = auto()
    #: It took nothing for longer than `send_timeout`, or than its policy's `stall_timeout`.
    STALLED = auto()
    #: The server stopped before it had taken everything.
    STOPPED = auto()


class Viewer:
    """A reader of a run's log that writes what it takes to one response.

    Args:
        delivery: what it gets, and when.
        took: the signal to notify whenever it took something.
        options: the bridge's.
        clock: of the event loop it is written in.
    """

    __slots__ = (
        "_expires",
        "_farewell",
        "_heartbeat_due",
        "_hurry",
        "_is_ending",
        "_is_expired",
        "_options",
        "_plain",
        "_send",
        "_stand_in",
        "clock",
        "delivery",
        "gone",
        "news",
        "progress",
        "scope",
        "took",
        "took_at",
    )

    def __init__(self, delivery: Delivery, took: Signal, options: ViewerOptions, clock: Clock) -> None:
        self.delivery = delivery
        self.scope = anyio.CancelScope()
        #: `None` while the viewer is there.
        self.gone: Gone | None = None
        #: To be notified when the log has grown, or has ended.
        self.news = Signal()
        #: Notified whenever it took something.
        self.took = took
        #: When its last `send` began: when it last took something, or could have.
        self.took_at = clock.now()
        #: Of the event loop that it is written in.
        self.clock = clock
        self.progress = Progress()
        self._options = options
        self._hurry: Signal | None = None  # ends a wait for the pace, which news must not end
        self._heartbeat_due = False
        self._expires = self.took_at + options.max_viewer_time
        self._is_expired = False  # its time is up, and it is to come back
        self._is_ending = False  # its last `send` has begun
        self._farewell: tuple[bytes, Latch] | None = None  # last words, and what to wait for behind them
        self._stand_in: StandIn | None = None  # of the task that writes
        self._plain = delivery.plain
        self._send: Send = _nowhere

    @property
    def returns_within(self) -> float:
        """Seconds in which its client comes back. Zero, unless its response ended because its time was up."""
        return (self._options.retry_ms or 0) / 1000 + RETURN_TIME if self._is_expired else 0.0

    def end(self, reason: Gone) -> None:
        """Ends the writing wherever it is. If the client leaves, the last `send` may still finish (`CLOSING_TIME`).

        The first reason counts.
        """
        self.gone = self.gone or reason
        if reason is Gone.DISCONNECTED and self._is_ending:
            self.scope.deadline = min(self.scope.deadline, self.clock.deadline(CLOSING_TIME))
        else:
            self.scope.cancel()

    def stop(self, farewell: bytes, deadline: float, done: Latch, *, leaves: bool = False) -> None:
        """Ends the viewer because the server stops. Its run has been ended by then.

        What is pending may go out until `deadline`, in the event loop's time, at any pace, followed by `farewell`. At
        the deadline the scope is cancelled while `gone` is still `None`. The response itself stays open until the run
        is done: granian ends its process with its last response, and would leave the run's work behind.

        Args:
            leaves: whether the run goes on elsewhere. Then the response ends between two frames, and the client comes
                back with its place.
        """
        self._farewell = farewell, done
        self._is_expired = self._is_expired or leaves
        self.scope.deadline = deadline
        self.delivery.hurry()
        self._rouse()

    def send_away(self) -> None:
        """Ends the response between two frames, as if the viewer's time were up."""
        self._is_expired = True
        self._rouse()

    def notify(self, now: float) -> None:
        """The log has grown, or has ended. Sends what is new while the task waits for it, or wakes the task.

        The caller notifies `took` afterwards, once for all viewers that it tells.

        Args:
            now: seconds, on the viewer's clock.
        """
        stand_in = self._stand_in
        if stand_in is not None and stand_in.waits:
            newest = b"" if self._plain is None else self._plain.take_newest()
            if frames := newest or self.delivery.take(0.0):
                self.took_at = now
                message = {"type": "http.response.body", "body": frames, "more_body": True}
                if not stand_in.finishes(self._send, message):
                    self._wake()
                    return
            if newest or self.delivery.is_idle():
                return
        self._wake()

    async def write(self, send: Send, first: bytes, stand_in: StandIn | None = None) -> None:
        """Writes the log to its end, with heartbeats in silence. Returns after the end.

        Args:
            send: of the response. Its head is out.
            first: is sent at once, before the log has anything.
            stand_in: of the running task; `None` if that has to be woken for all news.

        Raises:
            OSError: whatever `send` raises.
        """
        self._send = send
        try:
            await self.timed(self._body(first))
            del first  # it may be silent from now on
            self._stand_in = stand_in
            delivery, now = self.delivery, self.clock.now
            while True:
                time = now() if delivery.is_paced else 0.0
                if self._is_expired and not delivery.is_within_frame:
                    await self._finish()
                    return
                if frames := delivery.take(time):
                    self.took.notify()
                    await self.timed(self._body(frames))
                elif delivery.finished:
                    await self._finish()
                    return
                elif self._heartbeat_due:
                    await self.timed(self._body(HEARTBEAT))
                elif (ready_at := delivery.ready_at(time)) < inf:
                    await self._wait(ready_at - time)
                elif stand_in is None or delivery.is_paced:
                    await self.news.wait()
                elif (rest := await stand_in.wait(self.news.wait())) is not None:
                    await self.timed(rest)
        finally:  # a run that is over keeps its last viewer, which keeps nothing of the request
            self._stand_in, self._send = None, _nowhere

    def _body(self, content: bytes, *, more: bool = True) -> Awaitable[None]:
        return self._send({"type": "http.response.body", "body": content, "more_body": more})

    async def _wait(self, seconds: float) -> None:
        """Waits until the pace lets frames go, or a heartbeat is due."""
        self._hurry = self._hurry or Signal()
        with anyio.CancelScope(deadline=self.clock.deadline(seconds)):
            await self._hurry.wait()

    def _wake(self) -> None:
        """Wakes the task. It sends everything itself until it waits again, so that no frame overtakes another."""
        if self._stand_in is not None:
            self._stand_in.waits = False
        self.news.notify()

    def _rouse(self) -> None:
        """Wakes the writing for something that is not in the log."""
        self._wake()
        if self._hurry is not None:
            self._hurry.notify()

    async def until_done(self) -> None:
        """Holds the end of a stopped viewer back until its run is done. Returns at once for all others."""
        if self._farewell is not None:
            deadline, self.scope.deadline = self.scope.deadline, inf
            await self._farewell[1].wait()
            self.scope.deadline = max(deadline, self.clock.deadline(LAST_SEND))

    async def _finish(self) -> None:
        if self._farewell is not None and self._farewell[0]:
            await self.timed(self._body(self._farewell[0]))
        await self.until_done()
        await self.last(self._body(b"", more=False))

    async def last(self, sending: Awaitable[None]) -> None:
        """Awaits the last `send` of the response. See `end`."""
        self._is_ending = True
        await self.timed(sending)

    async def timed(self, sending: Awaitable[None]) -> None:
        """Awaits a `send`, and notes when it began and when it went through."""
        self.took_at = self.progress.sending_since = self.clock.now()
        await sending
        self.progress.sending_since = None
        self._heartbeat_due = False

    def tick(self, now: float) -> float:
        """Lets a heartbeat go after the interval without a `send`, and ends a viewer whose `send` hangs.

        See `Clocked.tick`. At most one heartbeat is ever due, and it goes between frames: a viewer whose `send` hangs
        gets none. A viewer whose time is up leaves between frames, too.
        """
        heartbeat, send_timeout = self._options.heartbeat, self._options.send_timeout
        if now >= self._expires and not self._is_expired:
            self._is_expired = True
            self._rouse()
        expires = inf if self._is_expired else self._expires
        if self.progress.sending_since is not None:
            stalled_at, look_at = self.stalls_at(now, -inf, send_timeout)
            if now >= stalled_at:
                self.end(Gone.STALLED)
                return inf
            return min(stalled_at, look_at, now + heartbeat, expires)
        if now >= self.took_at + heartbeat and not self._heartbeat_due:
            self._heartbeat_due = True
            self._rouse()
        silent_until = inf if self._heartbeat_due else self.took_at + heartbeat
        return min(silent_until, now + heartbeat, now + send_timeout / LOOKS, expires)

    def stalls_at(self, now: float, held_since: float, timeout: float) -> tuple[float, float]:
        """When the viewer will have taken nothing for `timeout` seconds, and when to ask again at the latest.

        Args:
            held_since: when it began to matter.
        """
        since, interval = max(held_since, self.took_at), timeout / LOOKS
        if now < since + interval:
            return since + timeout, since + interval
        if self.progress.sending_since is None:
            return since + timeout, now + interval
        return max(since, self.progress.look(now)) + timeout, now + interval
