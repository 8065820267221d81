"""What the relay asks of an upstream: the seam behind which platforms differ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from ..wire.shapes import Shape

if TYPE_CHECKING:
    from .client import HTTPUpstream

__all__ = ["Cancelled", "Exec", "Room", "Take", "Work", "push"]

#: Takes a chunk, and says whether there is room for more. Never waits; may be called where no task runs.
Take = Callable[[bytes], bool]
#: Waits until there is room again.
Room = Callable[[], Awaitable[None]]


class Cancelled(Enum):
    """How far a cancellation got. Only `CONFIRMED` is a success."""

    #: We asked. Nobody answered, or the answer was no.
    REQUESTED = "requested"
    #: The platform took the request; the work was not seen to be gone.
    ACKNOWLEDGED = "acknowledged"
    #: The work was seen to be gone.
    CONFIRMED = "confirmed"


async def push(chunks: AsyncIterator[bytes], take: Take, room: Room) -> None:
    """Hands over all chunks, in order, until they end.

    Chunks that have a method `push` of their own do it themselves: where they arrive, without a task that has to wake
    up for each.

    Raises:
        UpstreamError: what the iterator raises, and whatever `take` and `room` raise.
    """
    own: Callable[[Take, Room], Awaitable[None]] | None = getattr(chunks, "push", None)
    if own is not None:
        return await own(take, room)
    async for chunk in chunks:
        if not take(chunk):
            await room()
    return None


class Work(Protocol):
    """One exec on its way. Its stream is opened once, and nothing that may have started is ever started again."""

    #: Whether there may be something to cancel: set before the request that starts the exec goes out, cleared when
    #: the upstream's answer proves that nothing was started.
    may_run: bool
    #: How its stream reads.
    shape: Shape

    def stream(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Starts the exec, and yields its chunks once the upstream has said yes.

        Entering and leaving happen in the same task. Leaving closes the connection, also when it is cancelled.

        Raises:
            UpstreamError: on entering, if there is no stream; from the iterator (`UpstreamLost`), if it breaks.
        """
        ...

    async def cancel(self, timeout: float) -> Cancelled:
        """Ends the exec, wherever it runs. Takes at most `timeout` seconds and never raises `UpstreamError`."""
        ...


class Exec(Protocol):
    """What to run or follow: a plain value that `resolve` returns."""

    def work(self, upstream: HTTPUpstream, last_event_id: str | None) -> Work:
        """The exec as something to start. Nothing is sent yet.

        Args:
            upstream: what the bridge was made with.
            last_event_id: what the viewer's `EventSource` saw last, for upstreams that resume by themselves;
                `None` if the viewer has seen nothing, or if ids are the bridge's own.

        Raises:
            ConfigurationError: this exec needs another upstream.
        """
        ...
