"""One viewer's response: the connection it goes to, its head, and its first and last frames.

What lies between these frames is the viewer's own business (`relay.viewer`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from typing import Final

import anyio

from ..relay.mirror import Followed
from ..relay.options import RunOptions, ViewerOptions
from ..relay.signal import Latch
from ..relay.viewer import HEARTBEAT, Viewer
from ..wire.ids import FrameIds
from . import messages
from .messages import Message, Receive, Scope, Send
from .refusals import RETRY_AFTER_STOP, STREAM_HEADERS, Refusal, send_refusal
from .sockets import Sockets, with_own_addresses

__all__ = ["Downstream", "begin", "farewell", "first_frames", "naming_identity"]

#: Milliseconds over which viewers are spread when they come back after a stop. They were all told at the same moment.
_RECONNECT_SPREAD: Final = 5000


class Downstream:
    """A viewer's connection: its ASGI callables, its socket, and the news that its client has left.

    Args:
        sockets: where the socket is found.
        refuses_in_frames: whether a refusal goes out as a frame, since the client cannot see a status.
        resumes: whether the viewer has seen a part of the run.
    """

    __slots__ = (
        "_scope",
        "_sockets",
        "failure",
        "left",
        "receive",
        "refuses_in_frames",
        "resumes",
        "send",
        "shown",
        "watching",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        sockets: Sockets,
        *,
        refuses_in_frames: bool,
        resumes: bool,
    ) -> None:
        self._scope = scope
        self.receive = receive
        self._sockets = sockets
        self.send = send
        self.refuses_in_frames = refuses_in_frames
        self.resumes = resumes
        #: Set once the client has left.
        self.left = Latch()
        #: Set once the viewer's task has ended.
        self.shown = Latch()
        #: Cancelled by then, since the news is no longer needed.
        self.watching = anyio.CancelScope()
        #: An exception of `receive` or `send` other than those by which servers say that the client has left.
        self.failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Notes an exception of `receive` or `send`. The first one counts."""
        self.failure = self.failure or error

    def done(self) -> None:
        """Notes that the viewer's task has ended."""
        self.shown.set()
        self.watching.cancel()

    def acknowledged(self) -> int | None:
        """See `Sockets.acknowledged`."""
        return self._sockets.acknowledged(with_own_addresses(self._scope, self.receive))

    def unsent(self) -> int:
        """See `Sockets.unsent`."""
        return self._sockets.unsent(with_own_addresses(self._scope, self.receive))

    def cut(self) -> bool:
        """See `Sockets.cut`."""
        return self._sockets.cut(with_own_addresses(self._scope, self.receive))


def naming_identity(send: Send) -> Send:
    """A `send` that adds `Content-Encoding: identity` to event streams, and leaves other responses alone."""

    def sends(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start" and STREAM_HEADERS[0] in message["headers"]:
            message = {**message, "headers": [*message["headers"], (b"content-encoding", b"identity")]}
        return send(message)

    return sends


async def begin(run: Followed, viewer: Viewer, downstream: Downstream, commit_after: float) -> bool:
    """Sends the head of the stream once the upstream has answered, or a whole response if it has refused.

    A viewer that comes back was sent a head before the upstream refused. It gets the refusal as a frame of the stream.

    Returns:
        Whether frames follow.
    """
    if not run.answered.is_set:  # a stopped timer stays in the clock until it would have been due
        with viewer.clock.move_on_after(commit_after):
            await run.answered.wait()
    if run.refused is not None and not downstream.resumes:
        await viewer.until_done()
        dialect = run.audience.options.dialect if downstream.refuses_in_frames else None
        await viewer.last(send_refusal(downstream.send, Refusal.of_run(run.refused), run.token, dialect))
        return False
    head = messages.start(200, [*STREAM_HEADERS, (b"sse-bridge-run", run.token.encode())])
    await viewer.timed(downstream.send(head))
    downstream.send = messages.Outbox.behind(downstream.send)
    return True


def first_frames(run: Followed, of_viewer: ViewerOptions, *, resumes: bool) -> bytes:
    """What is sent at once, so that no proxy or server waits for a first byte.

    The `start` frame tells a page the run's name before the script has printed anything. Its id makes a browser that
    loses the connection before the first line come back with a `Last-Event-ID`. Without one it would look like a new
    visitor and start the command again.

    Args:
        resumes: whether the viewer has seen a part of the run; it knows the name then.
    """
    dialect = run.audience.options.dialect
    retry = b"" if of_viewer.retry_ms is None or not dialect.has_own_frames else b"retry: %d\n" % of_viewer.retry_ms
    if resumes or not dialect.has_own_frames:
        return retry or HEARTBEAT
    start = dialect.own_frame("start", {"run": run.token})
    return retry + FrameIds(run.token if run.audience.options.ids else None).at(0, start)


def farewell(of_run: RunOptions, of_viewer: ViewerOptions) -> bytes:
    """What a viewer is sent with its end when the server stops: when to come back."""
    if not of_run.dialect.has_own_frames:
        return b""
    retry = of_viewer.retry_ms or int(1000 * RETRY_AFTER_STOP)
    return b"retry: %d\n" % (retry + random.randrange(_RECONNECT_SPREAD))
