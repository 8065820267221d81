"""`EventStream`: following any event stream by its URL."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from ..arguments import described, how_to_make_a_text, is_a
from ..errors import ConfigurationError
from ..wire.shapes import EVENT_STREAM
from .base import Cancelled, Stream, Upstream, Work
from .checks import http_url, is_header_value, is_json, is_mapping, is_token, json_bytes
from .client import SSE_ACCEPT
from .refusals import Refusal
from .retrying import READY_BACKOFF, READY_TIMEOUT, retry

__all__ = ["EventStream"]

#: Methods that ask for nothing to be done, so that a request may be repeated whatever became of it (RFC 9110 9.2.1).
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class EventStream:
    """Any event stream, by its URL.

    Ending it only closes the connection. Redirects count as refusals. An upstream that is busy is asked again for half
    a minute: after a 429, and after a 503 or 529 that names a time to wait if the method is safe, such as `GET`.

    Args:
        url: absolute, `http` or `https`. `repr` leaves out user info and query: they may hold credentials.
        method: the HTTP method.
        headers: sent with the request; `Accept` is added if it is missing. `repr` leaves them out.
        json: a body to send as JSON; `None` for a request without one. `repr` leaves it out.

    Raises:
        ConfigurationError: an argument is unfit for a request.
    """

    url: str
    method: str = field(default="GET", kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    json: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not is_a(self.url, str):
            raise ConfigurationError(
                f"EventStream needs an absolute http or https URL as a string, not {described(self.url)}."
                f"{how_to_make_a_text(self.url)}"
            )
        if http_url(self.url) is None:
            raise ConfigurationError(
                "EventStream needs an absolute http or https URL, such as https://example.org/events."
            )
        if not is_token(self.method):
            raise ConfigurationError(
                "EventStream(method=...) takes the name of an HTTP method, such as 'GET' "
                f"(passed: {described(self.method)})."
            )
        self._check_headers()
        if not is_json(self.json):
            raise ConfigurationError(
                "EventStream(json=...) takes what JSON can say: dicts, lists, strings without lone surrogates, finite "
                f"numbers, True, False and None. Convert everything else first (passed: {described(self.json)})."
            )

    def _check_headers(self) -> None:
        if self.headers is None:
            return
        if not is_mapping(self.headers):
            raise ConfigurationError(
                f"EventStream(headers=...) takes a mapping, such as {{'X-Key': '...'}}, "
                f"not {described(self.headers)}. Write dict(...) around pairs."
            )
        for name, value in self.headers.items():
            if not is_token(name):
                raise ConfigurationError(
                    f"EventStream(headers=...) holds a name that HTTP does not allow ({described(name)}). Names are "
                    "strings of ASCII letters, digits and hyphens."
                )
            if not is_header_value(value):
                raise ConfigurationError(
                    f"EventStream(headers=...): the value of {name!r} cannot be sent ({described(value)}). Values are "
                    "strings of printable ASCII, without white space at either end."
                )

    def __repr__(self) -> str:
        url = httpx.URL(self.url)
        shown = url.copy_with(username=None, password=None, query=None, fragment=None)
        return f"{type(self).__name__}({str(shown)!r}, method={self.method!r})"

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        return _Following(self, upstream, last_event_id)


class _Following:
    shape = EVENT_STREAM
    may_run = False  # the connection is all there is to cancel

    def __init__(self, source: EventStream, upstream: Upstream, last_event_id: str | None) -> None:
        self._source = source
        self._upstream = upstream
        self._headers = httpx.Headers(dict(source.headers or {}))
        self._headers.setdefault("Accept", SSE_ACCEPT)
        self._headers.setdefault("Cache-Control", "no-store")
        if last_event_id:
            # Replaces the id at which the caller would begin. Given as bytes, because ids are UTF-8 (WHATWG HTML
            # 9.2.4) and httpx would encode text as ASCII.
            self._headers.pop("Last-Event-ID", None)
            self._headers = httpx.Headers([*self._headers.raw, (b"Last-Event-ID", last_event_id.encode())])

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        return _Asking(self)

    async def ask(self, seconds_left: float) -> tuple[AbstractAsyncContextManager[Stream], Stream]:
        """Makes one request. Returns the context to leave in the end, and the stream that it yielded."""
        source = self._source
        body = None if source.json is None else json_bytes(source.json)
        opening = self._upstream.open(source.method, source.url, headers=self._headers, body=body)
        return opening, await opening.__aenter__()

    def may_ask_again(self, refused: Refusal) -> bool:
        """Whether the same request may succeed in a moment, and does no harm."""
        return refused.is_temporary or (refused.is_busy and self._source.method.upper() in _SAFE)

    async def cancel(self, timeout: float) -> Cancelled:
        return Cancelled.CONFIRMED


class _Asking:
    """Opens a stream, and asks again while the upstream is busy. A class with slots: a generator takes more memory."""

    __slots__ = ("_opening", "_work")

    def __init__(self, work: _Following) -> None:
        self._work = work
        self._opening: AbstractAsyncContextManager[Stream]

    async def __aenter__(self) -> Stream:
        work = self._work
        self._opening, stream = await retry(work.ask, work.may_ask_again, backoff=READY_BACKOFF, timeout=READY_TIMEOUT)
        return stream

    async def __aexit__(self, *raised: Any) -> None:
        await self._opening.__aexit__(*raised)
