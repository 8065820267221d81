"""Following a stream that goes on without us: opening it, asking again while the upstream is busy, leaving it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx

from ..errors import UpstreamError
from ..wire.shapes import EVENT_STREAM
from .base import Cancelled, Interruption, Reopened, Room, Stream, Take, Upstream
from .checks import json_bytes
from .refusals import Refusal
from .reopening import Reopening
from .retrying import READY_BACKOFF, READY_TIMEOUT, retry

__all__ = ["SAFE_METHODS", "Following", "Returning", "Said"]

#: Methods that ask for nothing to be done, so that a request may be repeated whatever became of it (RFC 9110 9.2.1).
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


class Following:
    """The work of a source that follows a stream. Ending it closes the connection, which is all there is to end.

    Args:
        upstream: what opens the stream.
        method: the HTTP method.
        url: where the stream is.
        headers: of the request, with its `Accept`.
        json: a body to send as JSON; `None` for a request without one.
        last_event_id: where to resume; `None` to begin where the upstream begins.
    """

    shape = EVENT_STREAM
    may_run = False  # the connection is all there is to cancel

    def __init__(
        self,
        upstream: Upstream,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        json: Any,
        last_event_id: str | None,
    ) -> None:
        self._upstream = upstream
        self._method = method
        self._url = url
        self._json = json
        self._headers = httpx.Headers(headers)
        self._headers.setdefault("Cache-Control", "no-store")
        if last_event_id:
            self._begin_behind(last_event_id)

    def _begin_behind(self, last_event_id: str) -> None:
        """Replaces the id at which the caller would begin; an empty one begins where the upstream begins.

        Given as bytes, because ids are UTF-8 (WHATWG HTML 9.2.4) and httpx would encode text as ASCII. White space at
        either end is left out, as by browsers (Fetch 2.2.2): it is no part of a header's value, and h11 refuses it.
        """
        self._headers.pop("Last-Event-ID", None)
        if value := last_event_id.strip(" \t").encode():
            self._headers = httpx.Headers([*self._headers.raw, (b"Last-Event-ID", value)])

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        """See `base.Work.stream`."""
        return _Asking(self)

    async def ask(self, seconds_left: float) -> tuple[AbstractAsyncContextManager[Stream], Stream]:
        """Makes one request. Returns the context to leave in the end, and the stream that it yielded."""
        body = None if self._json is None else json_bytes(self._json)
        opening = self._upstream.open(self._method, self._url, headers=self._headers, body=body)
        return opening, await opening.__aenter__()

    def may_ask_again(self, error: UpstreamError) -> bool:
        """Whether the same request may succeed in a moment, and does no harm."""
        return isinstance(error, Refusal) and (
            error.is_temporary or (error.is_busy and self._method.upper() in SAFE_METHODS)
        )

    async def cancel(self, timeout: float) -> Cancelled:
        """See `base.Work.cancel`."""
        return Cancelled.CONFIRMED


class Returning(Following):
    """Following that opens a broken stream again, behind the last event id, as a browser's `EventSource` does.

    Args:
        timeout: seconds until a stream that stays broken is given up.
        trusts_ids: whether the upstream is known to go on behind an event id. Otherwise viewers are told that events
            may be missing.
        outlasts_streams: whether a stream that the upstream ends is opened again, too, if it gave ids and brought
            events. The end is then an answer of 204 or a stream that brings none (WHATWG HTML 9.2.3).
    """

    has_event_ids = True
    may_repeat = False

    def __init__(
        self,
        upstream: Upstream,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        json: Any,
        last_event_id: str | None,
        timeout: float,
        trusts_ids: bool,
        outlasts_streams: bool,
    ) -> None:
        super().__init__(upstream, method, url, headers, json=json, last_event_id=last_event_id)
        self._reopening = Reopening(timeout)
        self._trusts_ids = trusts_ids
        self._outlasts_streams = outlasts_streams

    def resume(self, interruption: Interruption) -> AbstractAsyncContextManager[Reopened] | None:
        """See `base.Resumable.resume`."""
        has_more = self._outlasts_streams and interruption.last_event_id and interruption.was_fruitful
        return self._resumed(interruption) if interruption.lost or has_more else None

    @asynccontextmanager
    async def _resumed(self, interruption: Interruption) -> AsyncGenerator[Reopened]:
        if interruption.last_event_id is not None:
            self._begin_behind(interruption.last_event_id)
        async with AsyncExitStack() as stack:
            try:
                opening, stream = await self._reopening.open(interruption, self.ask)
            except UpstreamError as error:
                is_over = isinstance(error, Refusal) and error.upstream_status == httpx.codes.NO_CONTENT
                if interruption.lost is not None and not is_over:
                    raise interruption.lost from error
                yield Reopened(Said(), is_exact=True)
                return
            stack.push_async_exit(opening)
            yield Reopened(stream, is_exact=self._trusts_ids and "Last-Event-ID" in self._headers)


class _Asking:
    """Opens a stream, and asks again while the upstream is busy. A class with slots: a generator takes more memory."""

    __slots__ = ("_opening", "_work")

    def __init__(self, work: Following) -> None:
        self._work = work
        self._opening: AbstractAsyncContextManager[Stream]

    async def __aenter__(self) -> Stream:
        work = self._work
        self._opening, stream = await retry(work.ask, work.may_ask_again, backoff=READY_BACKOFF, timeout=READY_TIMEOUT)
        return stream

    async def __aexit__(self, *raised: Any) -> None:
        await self._opening.__aexit__(*raised)


class Said:
    """A stream of the bytes that are given, where the upstream has ended its own."""

    __slots__ = ("_frames",)

    def __init__(self, frames: bytes = b"") -> None:
        self._frames = frames

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""
        if self._frames and not take(self._frames):
            await room()
