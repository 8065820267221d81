"""Parsing HTTP/1.1 responses: llhttp (`httptools`) where the extra `fast` has brought it, h11 elsewhere.

Both call the same functions of whoever listens. What a chunk of a body costs is most of what a line costs in a burst:
0.04 µs with llhttp, 4.4 with h11 (`design.md` §10).
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

#: Bytes of a response's head, as httpcore has it.
MAX_HEAD: Final = 100 * 1024
#: What parsers raise when something is no HTTP/1.1, or wants to become another protocol.
ERRORS: Final[tuple[type[Exception], ...]] = (
    h11.RemoteProtocolError,
    *(() if httptools is None else (httptools.HttpParserError,)),
)


class Listener(Protocol):
    """Who is told of a response. The names are those of `httptools`."""

    @property
    def on_body(self) -> Callable[[bytes], object]:
        """Gets every piece of the body, as it arrives."""
        ...

    def on_status(self, reason: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes | None) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_message_complete(self) -> None: ...


class Parser(Protocol):
    """One response of one connection. What follows it is nobody's business."""

    def feed_data(self, data: bytes) -> None:
        """Takes what arrived. Raises one of `ERRORS`."""
        ...

    def get_status_code(self) -> int: ...
    def get_http_version(self) -> str: ...


def response_parser(listener: Listener, *, is_head: bool) -> Parser:
    """The fastest that is there.

    Args:
        listener: is told.
        is_head: whether a `HEAD` is answered. llhttp does not ask: whoever sent one has to know by itself that no body
            follows.
    """
    if httptools is None:
        return H11Parser(listener, is_head=is_head)
    parser: Parser = httptools.HttpResponseParser(listener)
    return parser


class H11Parser:
    """h11 with the interface of `httptools.HttpResponseParser`; informational responses are left out."""

    __slots__ = ("_http_version", "_listener", "_next_event", "_receive_data", "_status")

    def __init__(self, listener: Listener, *, is_head: bool) -> None:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        # What was really sent makes no difference to whoever reads the answer.
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
            elif type(event) is not h11.InformationalResponse:  # the end, or something behind it
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
        """Of the response whose headers are complete."""
        return self._status

    def get_http_version(self) -> str:
        """Of the response whose headers are complete, such as `1.1`."""
        return self._http_version
