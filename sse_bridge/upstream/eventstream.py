"""Following any event stream: an exec that is nothing but a URL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..errors import ConfigurationError
from ..wire.shapes import EVENT_STREAM
from .base import Cancelled, Work
from .client import SSE_ACCEPT, HTTPUpstream, NotSent, http_url, is_header_value, is_json, is_token, json_bytes

__all__ = ["EventStream"]


@dataclass(frozen=True)
class EventStream:
    """Any event stream, by its URL.

    Ending it means closing the connection: nothing is known to run behind it. Redirects are not followed.

    Args:
        url: absolute, `http` or `https`. Of a user or a query in it, which may let somebody in, `repr` shows nothing.
        method: `GET`, or what the stream asks for.
        headers: sent along; `Accept` is set where it is missing. Their values are not shown by `repr`.
        json: a JSON body, or `None` for none.

    Raises:
        ConfigurationError: the URL is none that can be followed, or something else none that can be sent.
    """

    url: str
    method: str = field(default="GET", kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    json: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if http_url(self.url) is None:
            raise ConfigurationError("EventStream needs an absolute http or https URL.")
        if not is_token(self.method):
            raise ConfigurationError("EventStream(method=...) takes the name of an HTTP method.")
        for name, value in (self.headers or {}).items():
            if not is_token(name):
                raise ConfigurationError("EventStream(headers=...): a name is none that a header can have.")
            if not is_header_value(value):
                raise ConfigurationError(f"EventStream(headers=...): the value of {name!r} cannot be sent in a header.")
        if not is_json(self.json):
            raise ConfigurationError(
                "EventStream(json=...) takes what JSON can say: dicts, lists, strings without lone surrogates, finite "
                "numbers, True, False and None. Convert everything else first."
            )

    def __repr__(self) -> str:
        url = httpx.URL(self.url)
        shown = url.copy_with(username=None, password=None, query=None, fragment=None)
        return f"{type(self).__name__}({str(shown)!r}, method={self.method!r})"

    def work(self, upstream: HTTPUpstream, last_event_id: str | None) -> Work:
        """See `Exec.work`."""
        return _EventStreamWork(self, upstream, last_event_id)


class _EventStreamWork:
    may_run = False  # there is nothing to cancel but the connection
    shape = EVENT_STREAM

    def __init__(self, source: EventStream, upstream: HTTPUpstream, last_event_id: str | None) -> None:
        self._source = source
        self._upstream = upstream
        self._headers = httpx.Headers(dict(source.headers or {}))
        self._headers.setdefault("Accept", SSE_ACCEPT)
        self._headers.setdefault("Cache-Control", "no-store")
        if last_event_id:
            # Instead of where the caller would begin. Bytes, since an id is UTF-8 (WHATWG HTML 9.2.4) and httpx would
            # take it for ASCII.
            self._headers.pop("Last-Event-ID", None)
            self._headers = httpx.Headers([*self._headers.raw, (b"Last-Event-ID", last_event_id.encode())])

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        source = self._source
        body = None if source.json is None else json_bytes(source.json)
        try:
            async with self._upstream.open(source.method, source.url, headers=self._headers, body=body) as chunks:
                yield chunks
        except NotSent as unsent:
            raise unsent.error from unsent

    async def cancel(self, timeout: float) -> Cancelled:
        return Cancelled.CONFIRMED
