"""Following a stream that goes on without us: opening it, asking again while the upstream is busy, leaving it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import httpx

from ..errors import UpstreamError
from ..wire.shapes import EVENT_STREAM
from .base import Cancelled, Stream, Upstream
from .checks import json_bytes
from .refusals import Refusal
from .retrying import READY_BACKOFF, READY_TIMEOUT, retry

__all__ = ["Following"]

#: Methods that ask for nothing to be done, so that a request may be repeated whatever became of it (RFC 9110 9.2.1).
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


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
            # Replaces the id at which the caller would begin. Given as bytes, because ids are UTF-8 (WHATWG HTML
            # 9.2.4) and httpx would encode text as ASCII.
            self._headers.pop("Last-Event-ID", None)
            self._headers = httpx.Headers([*self._headers.raw, (b"Last-Event-ID", last_event_id.encode())])

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
        return isinstance(error, Refusal) and (error.is_temporary or (error.is_busy and self._method.upper() in _SAFE))

    async def cancel(self, timeout: float) -> Cancelled:
        """See `base.Work.cancel`."""
        return Cancelled.CONFIRMED


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
