"""What the relay asks of an upstream: the seam behind which platforms differ."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from ..errors import UpstreamLost
from ..wire.shapes import Shape

__all__ = [
    "Cancelled",
    "EndAware",
    "Interruption",
    "Reopened",
    "Resumable",
    "Room",
    "Shareable",
    "Source",
    "Stream",
    "Take",
    "Ticketed",
    "Traceable",
    "Upstream",
    "Work",
]

#: Takes a chunk and says whether there is room for more. It returns at once and may run in a callback of the event
#: loop, outside every task. After a `False`, `Room` is awaited before the next chunk.
Take = Callable[[bytes], bool]
#: Waits until there is room for another chunk. May also be awaited while there is room, and then returns at once.
Room = Callable[[], Awaitable[None]]


class Cancelled(Enum):
    """How far a cancellation got. Only `CONFIRMED` is a success."""

    #: We asked; the platform gave no answer, or refused.
    REQUESTED = "requested"
    #: The platform took the request, but the work was not seen to end.
    ACKNOWLEDGED = "acknowledged"
    #: The work was seen to be gone.
    CONFIRMED = "confirmed"


class Stream(Protocol):
    """The chunks of an open event stream."""

    async def push(self, take: Take, room: Room) -> None:
        """Hands over all chunks, in order, and returns when the stream has ended. Called once.

        A stream may hand over chunks where they arrive, which saves waking a task for each.

        Raises:
            UpstreamLost: the stream broke off.
            Exception: whatever `take` and `room` raise.
        """
        ...


class Upstream(Protocol):
    """The HTTP client of a bridge, as sources see it."""

    def open(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Sends a request on entering, and yields the event stream that answers it. Leaving closes the connection.

        Raises:
            UpstreamError: on entering, if the answer is not an event stream.
        """
        ...


class Work(Protocol):
    """A source on its way to viewers. Its stream is opened once: work that may have started is never repeated."""

    #: Whether work may be running that has to be cancelled. Set before the request goes out, and cleared when the
    #: upstream's answer proves that it started nothing.
    may_run: bool
    #: How its stream reads.
    shape: Shape

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        """Starts the work on entering, and yields its stream once the upstream has said yes.

        The same task enters and leaves. Leaving closes the connection, even under cancellation.

        Raises:
            UpstreamError: on entering, if the stream fails to open.
        """
        ...

    async def cancel(self, timeout: float) -> Cancelled:
        """Ends the work, wherever it runs. Takes at most `timeout` seconds and never raises `UpstreamError`."""
        ...


@runtime_checkable
class Traceable(Protocol):
    """A `Work` that can tell an operator where to look for it, should it run on. Optional. The log gets all of this, so
    it holds no secret.
    """

    @property
    def mark(self) -> str:
        """How to recognise the work where it runs. In the log from the start, in case this process is killed."""
        ...

    def trace(self) -> str:
        """Where the work may run on, and how to look for it, once it was not seen to end."""
        ...


@runtime_checkable
class EndAware(Protocol):
    """A `Work` that draws a conclusion from the end of its stream. Optional."""

    def saw_end(self) -> None:
        """The upstream has ended the stream, behind a whole frame, and no frame told of an exit or a failure."""
        ...


class Interruption(NamedTuple):
    """How a stream ended that told of no end of the work."""

    #: The error with which it broke off; `None` if the upstream ended it.
    lost: UpstreamLost | None
    #: The last event id of the upstream's own; empty if it reset it, `None` if it gave none.
    last_event_id: str | None
    #: Seconds that the upstream asked for between two connections; `None` if it left that open.
    retry: float | None
    #: Whether the stream brought anything new. One that is opened again and again without that is to be given up.
    was_fruitful: bool
    #: Whether it ended behind a whole frame. A response without a length that breaks off looks like one that ends.
    is_whole: bool


class Reopened(NamedTuple):
    """A stream with which a run goes on."""

    stream: Stream
    #: Whether it goes on behind the last whole frame. Otherwise viewers are told that output may be missing.
    is_exact: bool


@runtime_checkable
class Resumable(Protocol):
    """A `Work` that can be followed further when its stream has broken off. Optional. The work is not started again."""

    #: Whether the upstream can go on behind an event id.
    has_event_ids: bool
    #: Whether a stream that is opened again may repeat frames. They are recognised and left out.
    may_repeat: bool

    def resume(self, interruption: Interruption) -> AbstractAsyncContextManager[Reopened] | None:
        """What to go on with; `None` for the end.

        The context is entered and left as that of `Work.stream`. It waits between attempts, and gives up in the end.

        Raises:
            UpstreamError: on entering. It ends the run.
        """
        ...


@runtime_checkable
class Ticketed(Protocol):
    """A `Work` that another process can end, should this one die. Optional."""

    @property
    def ticket(self) -> str:
        """What it takes to end the work (see `reaping`). It holds no secret, and may change once the work has
        started.
        """
        ...


class Source(Protocol):
    """What to run or follow: a plain value that `resolve` returns."""

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """The work to start. The request goes out later, with `Work.stream`.

        Args:
            upstream: the one that the bridge was made with.
            last_event_id: the last id that the viewer's `EventSource` saw, for upstreams that can resume; `None` for
                a new viewer, or if the bridge writes its own ids.

        Raises:
            ConfigurationError: this source needs another kind of upstream.
        """
        ...


@runtime_checkable
class Shareable(Protocol):
    """A `Source` that says which requests share its run. Optional."""

    @property
    def shared_as(self) -> str | None:
        """Requests of one identity whose sources have the same word here share one run while it goes on. `None`: each
        has its own.
        """
        ...
