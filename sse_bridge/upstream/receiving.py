"""A response on its way in: its head, and the pieces of its body that wait to be taken. Sans-IO.

It ends where HTTP says that it ends. What follows is never parsed: the request was the only one of its connection, so a
second response answers no request (RFC 9112 9.2), or tries to pass for the answer to ours (11.1).
"""

from __future__ import annotations

from typing import Final

import httpx

from .. import speedups
from .chunks import JoinedChunks
from .parsing import ERRORS, MAX_HEAD, Parser, response_parser

__all__ = ["Incoming"]

#: Bytes of chunk sizes, chunk extensions and trailers in a row, without a byte of the body. llhttp has no limit; h11
#: limits each line, and all trailers, to the same.
MAX_BARREN: Final = MAX_HEAD


class _Stop(Exception):
    """Stops the parser: the response is over, or its status is invalid."""


_STOPS: Final[tuple[type[Exception], ...]] = (_Stop, *ERRORS)


class Incoming:
    """One response, fed with the bytes of its connection. The `Listener` of its own parser.

    Args:
        is_head: whether it answers a `HEAD` request, and so ends with its head.
    """

    __slots__ = (
        "_barren",
        "_has_framing",
        "_head_size",
        "_is_head",
        "_parser",
        "has_head",
        "headers",
        "http_version",
        "is_complete",
        "on_body",
        "parts",
        "reason",
        "status",
    )

    def __init__(self, *, is_head: bool) -> None:
        self.status = 0
        self.reason = b""
        self.http_version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        #: The body ends here; whatever follows is ignored.
        self.is_complete = False
        #: Pieces of the body that wait to be taken.
        self.parts: list[bytes] = []
        self.on_body = self.parts.append  # the parser calls it for every piece
        self._is_head = is_head
        self._head_size = 0
        self._has_framing = False
        self._barren = 0  # bytes since the last piece of the body
        self._parser: Parser | None = response_parser(self, is_head=is_head)

    def feed(self, data: bytes) -> None:
        """Parses what arrived.

        Raises:
            httpx.RemoteProtocolError: the server speaks another protocol, or sends too much beside the body.
        """
        if not self.has_head:
            data = self._feed_head(data)
        if not data or self.is_complete:
            return
        parts, parser = self.parts, self._parser
        pieces = len(parts)
        # `_parse`, spelled out: saves a call for each line.
        assert parser is not None, "the connection is open"
        try:
            parser.feed_data(data)
        except _STOPS as error:
            self._stopped(error)
        if len(parts) > pieces:
            self._barren = 0
            return
        self._barren += len(data)
        if self._barren > MAX_BARREN and not self.is_complete:
            raise httpx.RemoteProtocolError("The response has too much between two pieces of its body.")

    def _feed_head(self, data: bytes) -> bytes:
        """Parses lines up to the end of the head, and returns what follows it.

        By the line, because every head ends with one: llhttp would go on and read a body for some informational
        responses, which have none.
        """
        at = 0
        while at < len(data) and not self.status:
            end = data.find(b"\n", at) + 1 or len(data)
            self._head_size += end - at
            if self._head_size > MAX_HEAD:
                raise httpx.RemoteProtocolError("The head of the response is too large.")
            self._parse(data[at:end])
            at = end
            if 100 <= self.status < 200:
                self._skip_informational()
        if self.status:
            self._begin()
        return data[at:]

    def _begin(self) -> None:
        """The head is complete. A transfer coding that would hide the end of the body is refused, as h11 does."""
        codings = [value.lower() for name, value in self.headers if name.lower() == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            raise httpx.RemoteProtocolError("The response has an unknown transfer coding.")
        self._has_framing = bool(codings) or any(name.lower() == b"content-length" for name, _ in self.headers)
        self.has_head = True
        self.is_complete = self.is_complete or self._is_head
        if codings and speedups.join_chunks is not None and self._parser is not None:
            self._parser = JoinedChunks(self._parser, speedups.join_chunks, self.on_body)

    def _skip_informational(self) -> None:
        if self.status == 101:
            raise httpx.RemoteProtocolError("The server wants another protocol.")
        self.status, self.reason, self.headers = 0, b"", []
        self._parser = response_parser(self, is_head=self._is_head)

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None, "the connection is open"
        try:
            self._parser.feed_data(data)
        except _STOPS as error:
            self._stopped(error)

    def _stopped(self, error: Exception) -> None:
        if not self.is_complete:
            raise httpx.RemoteProtocolError(str(error) or "The server wants another protocol.") from error

    def end(self) -> None:
        """The connection is closed. That completes a body without framing (RFC 9112 6.3).

        Raises:
            httpx.RemoteProtocolError: the response is incomplete.
        """
        self._parser = None  # it holds a reference to this
        is_complete, self.is_complete = self.is_complete, True
        if not self.has_head:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        if self._has_framing and not is_complete:
            raise httpx.RemoteProtocolError("The connection was closed before the response was complete.")

    def take(self) -> bytes:
        """Everything that has arrived of the body since the last call."""
        parts = self.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return data

    # -- the parser calls these

    def on_status(self, reason: bytes) -> None:
        """A part of the reason phrase."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """A header, or a trailer, which is ignored."""
        if not self.has_head:
            self.headers.append((name, (value or b"").strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The end of a head, perhaps of an informational one."""
        assert self._parser is not None, "it calls this"
        self.status = self._parser.get_status_code()
        if self.status < 100:
            raise _Stop
        self.http_version = b"HTTP/" + self._parser.get_http_version().encode()

    def on_message_complete(self) -> None:
        """The end of a response, perhaps of an informational one."""
        if self.status >= 200:
            self.is_complete = True
            raise _Stop
