"""`EventStream`: following any event stream by its URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..arguments import described, how_to_make_a_number, how_to_make_a_text, is_a, number, shown
from ..errors import ConfigurationError
from .base import Upstream, Work
from .checks import http_url, is_header_value, is_json, is_mapping, is_token
from .client import SSE_ACCEPT
from .following import SAFE_METHODS, Following, Returning

__all__ = ["EventStream"]


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
        reconnect: seconds until a stream that broke off, and stays broken, is given up. Until then it is opened again,
            behind the last event id, with growing waits between the attempts; without ids, viewers are told with a gap
            that events may be missing. Only for safe methods, such as `GET`. An upstream that gives ids may end its
            stream and be asked for more, as `EventSource` asks it: an answer of 204 or without an event is the end.
            `None` opens the stream once.
        key: requests whose event streams have the same key share one run, and so one connection to the upstream, while
            it goes on. With `identify`, only those of one identity do. `None`: each has its own.

    Raises:
        ConfigurationError: an argument is unfit for a request.
    """

    url: str
    method: str = field(default="GET", kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    json: Any = field(default=None, kw_only=True)
    reconnect: float | None = field(default=None, kw_only=True)
    key: str | None = field(default=None, kw_only=True)

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

        self._check_reconnect()
        if self.key is not None and not (is_a(self.key, str) and self.key):
            raise ConfigurationError(
                f"EventStream(key=...) takes a string that is not empty, or None, not {described(self.key)}."
                f"{how_to_make_a_text(self.key)}"
            )

    def _check_reconnect(self) -> None:
        if self.reconnect is None:
            return
        seconds = number(self.reconnect)
        if seconds is None or not seconds > 0:
            raise ConfigurationError(
                "EventStream(reconnect=...) takes the seconds after which a broken stream is given up, such as 60, or "
                f"None, not {shown(self.reconnect)}.{how_to_make_a_number(self.reconnect)}"
            )
        if self.method.upper() not in SAFE_METHODS:
            raise ConfigurationError(
                f"EventStream(reconnect=...) sends its request again, which is only safe with GET, not {self.method}: "
                "the upstream could do its work twice. Leave reconnect out."
            )

    @property
    def shared_as(self) -> str | None:
        """See `base.Shareable.shared_as`."""
        return self.key

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
        headers = httpx.Headers(dict(self.headers or {}))
        headers.setdefault("Accept", SSE_ACCEPT)
        if self.reconnect is None:
            return Following(upstream, self.method, self.url, headers, json=self.json, last_event_id=last_event_id)
        return Returning(
            upstream,
            self.method,
            self.url,
            headers,
            json=self.json,
            last_event_id=last_event_id,
            timeout=self.reconnect,
            trusts_ids=True,
            outlasts_streams=True,
        )
