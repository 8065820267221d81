"""`EventStream`: following any event stream by its URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..arguments import described, how_to_make_a_text, is_a
from ..errors import ConfigurationError
from .base import Upstream, Work
from .checks import http_url, is_header_value, is_json, is_mapping, is_token
from .client import SSE_ACCEPT
from .following import Following

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
        headers = httpx.Headers(dict(self.headers or {}))
        headers.setdefault("Accept", SSE_ACCEPT)
        return Following(upstream, self.method, self.url, headers, json=self.json, last_event_id=last_event_id)
