"""Parsing HTTP/1.1 responses with llhttp (`httptools`), if the extra `fast` is installed, or else with h11.

Both parsers call the same methods of a `Listener`. In a burst, parsing is most of what a line costs: llhttp takes
0.04 µs for a chunk of a body, h11 4.4 µs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import h11

try:
    import httptools
except ModuleNotFoundError:
    httptools = None  # type: ignore[assignment]

__all__ = ["ERRORS", "MAX_HEAD", "H11Parser", "Listener", "Parser", "response_parser"]

#: Bytes of the heads of a response, informational ones included: httpcore's limit for one.
MAX_HEAD: Final = 100 * 1024
#: Raised by parsers for bytes that are not HTTP/1.1, and for an upgrade to another protocol.
ERRORS: Final[tuple[type[Exception], ...]] = (
    h11.RemoteProtocolError,
    *(() if httptools is None else (httptools.HttpParserError, httptools.HttpParserUpgrade)),
)


class Listener(Protocol):
    """Hears of the parts of a response. The method names are those of `httptools`."""

    @property
    def on_body(self) -> Callable[[bytes], object]:
        """Called with every piece of the body, as it arrives."""
        ...

    def on_status(self, reason: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes | None) -> None: ...
    def on_headers_complete(self) -> None: ...

    def on_message_complete(self) -> None:
        """May raise to stop the parser, which would go on with what follows the response."""
        ...


class Parser(Protocol):
    """Parses the responses of one connection, until its listener stops it."""

    def feed_data(self, data: bytes) -> None:
        """Parses what arrived. Raises one of `ERRORS`, or what the listener raised."""
        ...

    def get_status_code(self) -> int: ...
    def get_http_version(self) -> str: ...


def response_parser(listener: Listener, *, is_head: bool) -> Parser:
    """The fastest parser that is installed.

    Args:
        listener: hears of the response.
        is_head: whether it answers a `HEAD`. llhttp has no such option, so the listener has to know that
            such a response has an empty body.
    """
    if httptools is None:
        return H11Parser(listener, is_head=is_head)
    parser: Parser = httptools.HttpResponseParser(listener)
    return parser


class H11Parser:
    """h11 behind the interface of `httptools.HttpResponseParser`. It skips informational responses."""

    __slots__ = ("_http_version", "_listener", "_next_event", "_receive_data", "_status")

    def __init__(self, listener: Listener, *, is_head: bool) -> None:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        # Only `HEAD` changes how the answer is read; all other methods may pass for `GET`.
        method = "HEAD" if is_head else "GET"
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "upstream")]))
        connection.send(h11.EndOfMessage())
        self._receive_data = connection.receive_data
        self._next_event: Callable[[], Any] = connection.next_event
        self._listener = listener
        self._status = 0
        self._http_version = ""

    def feed_data(self, data: bytes) -> None:
        """See `Parser.feed_data`."""
        self._receive_data(data)
        next_event, on_body = self._next_event, self._listener.on_body
        while (event := next_event()) is not h11.NEED_DATA:
            if type(event) is h11.Data:
                on_body(bytes(event.data))
            elif type(event) is h11.Response:
                self._begin(event)
            elif type(event) is not h11.InformationalResponse:  # the end
                return self._listener.on_message_complete()
        return None

    def _begin(self, response: h11.Response) -> None:
        self._status = response.status_code
        self._http_version = response.http_version.decode()
        listener = self._listener
        listener.on_status(response.reason)
        for name, value in response.headers.raw_items():
            listener.on_header(name, value)
        listener.on_headers_complete()

    def get_status_code(self) -> int:
        """The status, once the headers are complete."""
        return self._status

    def get_http_version(self) -> str:
        """The version, such as `1.1`, once the headers are complete."""
        return self._http_version
