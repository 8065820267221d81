"""A response on its way in: its head, and the pieces of its body that wait to be taken. Sans-IO."""

from __future__ import annotations

import httpx

from .parsing import ERRORS, MAX_HEAD, Parser, response_parser

__all__ = ["Incoming"]


class Incoming:
    """One response, fed with the bytes of its connection. The `Listener` of its own parser.

    Args:
        is_head: whether it answers a `HEAD` request, and so ends with its head.
    """

    __slots__ = (
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
        self._parser: Parser | None = response_parser(self, is_head=is_head)

    def feed(self, data: bytes) -> None:
        """Parses what arrived.

        Raises:
            httpx.RemoteProtocolError: the server speaks another protocol, or the head is too large.
        """
        assert self._parser is not None, "the connection is open"
        try:
            self._parser.feed_data(data)
        except ERRORS as error:
            if not self.is_complete:
                raise httpx.RemoteProtocolError(str(error) or "The server wants another protocol.") from error
        if not self.has_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                raise httpx.RemoteProtocolError("The head of the response is too large.")

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
        if 100 <= self.status < 200:  # informational: the real head is still to come
            self.reason, self.headers = b"", []
            return
        self.http_version = b"HTTP/" + self._parser.get_http_version().encode()
        names = {name.lower() for name, _ in self.headers}
        self._has_framing = bool(names & {b"content-length", b"transfer-encoding"})
        self.has_head = True
        if self._is_head:
            self.is_complete = True

    def on_message_complete(self) -> None:
        """The end of a response, perhaps of an informational one."""
        if self.has_head:
            self.is_complete = True
