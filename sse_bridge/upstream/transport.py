"""A fast HTTP/1.1 transport for many long streams, behind httpx's interface (`design.md` §10).

MIOSA sends one HTTP chunk per frame, and httpx's default transport spends 7 µs on each, and as much again on its chain
of generators. Here the bodies of chunks are appended to a list by the parser itself (`parsing`), and whoever reads gets
all of them joined: what a chunk costs is parsing, what a wake-up costs is shared by everything that came meanwhile.

It serves only what this package needs: asyncio, HTTP/1.1, TLS, one request per connection. `is_usable` says whether it
can stand in; where it cannot, httpx's own transport is used.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import Any, Final, cast

import anyio
import httpx

from .base import Room, Take
from .client import ARRIVING
from .parsing import ERRORS, MAX_HEAD, Parser, response_parser

__all__ = ["FastTransport", "is_usable"]

#: Bytes that may wait for the reader; then reading from the socket stops. One read of asyncio's (256 KiB) may overstep
#: it.
_MARK: Final = 64 * 1024
#: What would end a line of the request's head (RFC 9110 5.5).
_FORBIDDEN: Final = re.compile(rb"[\r\n\0]")
#: Seconds for closing a TLS connection properly; it is aborted then.
_TLS_SHUTDOWN: Final = 1.0
#: Seconds before the next address is tried beside the first (RFC 8305 8).
_HAPPY_EYEBALLS: Final = 0.25


class FastTransport(httpx.AsyncBaseTransport):
    """Opens a connection for each request, and closes it with the response.

    Args:
        ssl_context: for `https` URLs.
        socket_options: set on every connection, as `socket.setsockopt` takes them.
    """

    def __init__(self, ssl_context: ssl.SSLContext, socket_options: Sequence[tuple[int, int, int]] = ()) -> None:
        self._ssl = ssl_context
        self._socket_options = socket_options
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and returns when the head of its response is there.

        Raises:
            httpx.TransportError: of the kinds that httpx's own transport raises.
        """
        content = _head_of(request) + await request.aread()
        timeouts = request.extensions.get("timeout", {})
        connection = await self._connect(request, timeouts.get("connect"))
        try:
            connection.transport.write(content)
            async with _limit(timeouts.get("read"), httpx.ReadTimeout):
                await connection.head()
        except BaseException:
            connection.close()
            raise
        headers, connection.headers = connection.headers, []
        return httpx.Response(
            connection.status,
            headers=headers,
            stream=_Body(connection, timeouts.get("read")),
            extensions={
                "http_version": connection.http_version,
                "reason_phrase": connection.reason,
                ARRIVING: connection,
            },
        )

    async def _connect(self, request: httpx.Request, timeout: float | None) -> _Connection:
        url = request.url
        host = url.raw_host.decode("ascii")
        options: dict[str, Any] = {}
        if url.scheme == "https":
            name = request.extensions.get("sni_hostname") or host
            options = {"ssl": self._ssl, "server_hostname": name, "ssl_shutdown_timeout": _TLS_SHUTDOWN}
        elif url.scheme != "http":
            raise httpx.UnsupportedProtocol(f"There is no transport for {url.scheme!r}.")
        connection = _Connection(self._open, is_head=request.method == "HEAD")
        try:
            async with _limit(timeout, httpx.ConnectTimeout):
                connected = await _connected(host, url.port or (443 if options else 80))
                for option in self._socket_options:
                    connected.setsockopt(*option)
                await connection.loop.create_connection(lambda: connection, sock=connected, **options)
        except (OSError, UnicodeError) as error:  # `ssl.SSLError` is one of the first
            raise httpx.ConnectError(str(error)) from error
        return connection

    async def aclose(self) -> None:
        """Closes what is open."""
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)  # asyncio closes sockets in its next round


class _Connection(asyncio.Protocol):
    """One connection, one response. Everything here happens in callbacks; one task may wait."""

    __slots__ = (
        "__weakref__",
        "_all_open",
        "_body_size",
        "_error",
        "_has_framing",
        "_has_head",
        "_head_size",
        "_is_complete",
        "_is_head",
        "_is_paused",
        "_parser",
        "_parts",
        "_take",
        "_waiting",
        "headers",
        "http_version",
        "loop",
        "on_body",
        "reason",
        "status",
        "transport",
    )

    def __init__(self, all_open: set[_Connection], *, is_head: bool) -> None:
        self.transport: asyncio.Transport
        self.status = 0
        self.reason = b""
        self.http_version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._all_open = all_open
        self._is_head = is_head
        self.loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._waiting: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._has_head = False
        self._is_complete = False
        self._is_paused = False
        self._take: Take | None = None  # gets what arrives, where it arrives
        self._head_size = 0
        self._body_size = 0
        self.on_body = self._parts.append  # what the parser calls for every piece
        self._has_framing = False
        self._parser: Parser | None = response_parser(self, is_head=is_head)

    # -- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._all_open.add(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._is_complete or self._error is not None or parser is None:
            return
        try:
            parser.feed_data(data)
        except ERRORS as error:  # an upgrade is one, too
            if not self._is_complete:  # whatever follows the response is not looked at
                self._fail(httpx.RemoteProtocolError(str(error) or "The server wants another protocol."))
        if not self._has_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._fail(httpx.RemoteProtocolError("The head of the response is too large."))
            return
        take = self._take
        if take is not None:
            parts = self._parts
            try:
                if parts and not take(parts.pop() if len(parts) == 1 else self._arrived()):
                    self._take = None
                    self._pause()
            except Exception as error:
                self._take = None
                self._error = self._error or error  # a bug: whoever waits shall have it
                self.transport.abort()
            if self._take is not None and not self._is_complete:
                return
        self._body_size += len(data)
        if self._body_size >= _MARK:
            self._pause()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._all_open.discard(self)
        if error is not None:
            self._fail(httpx.ReadError(str(error)))
        elif not self._has_head:
            self._fail(httpx.RemoteProtocolError("Server disconnected without sending a response."))
        elif self._has_framing:
            self._fail(httpx.RemoteProtocolError("The connection was closed before the response was complete."))
        self._is_complete = True  # a body without framing ends with its connection (RFC 9112 6.3)
        self._parser = None  # which holds this
        self._wake()

    # -- the parser calls these

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes | None) -> None:
        if not self._has_head:  # else it is a trailer
            self.headers.append((name, (value or b"").strip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None, "it calls this"
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:  # what counts is still to come
            self.reason, self.headers = b"", []
            return
        self.http_version = b"HTTP/" + self._parser.get_http_version().encode()
        names = {name.lower() for name, _ in self.headers}
        self._has_framing = bool(names & {b"content-length", b"transfer-encoding"})
        self._has_head = True
        if self._is_head:
            self._is_complete = True

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_complete = True

    # -- whoever reads calls these

    async def head(self) -> None:
        """Returns when the head is there."""
        while not self._has_head:
            await self._wait()

    async def read(self) -> bytes:
        """What has arrived of the body; empty at its end."""
        while True:
            if self._is_paused and not self._is_complete:
                self._is_paused = False
                self.transport.resume_reading()
            if self._parts:
                self._body_size = 0
                return self._arrived()
            if self._is_complete and self._error is None:
                return b""
            await self._wait()

    async def push(self, take: Take, room: Room) -> None:
        """Hands over what arrives until the end: in the callback that brings it, as long as there is room."""
        while chunk := await self.read():
            if take(chunk) and not self._is_complete:
                self._take = take
                try:
                    await self._wait()
                finally:
                    self._take = None
            await room()

    def _arrived(self) -> bytes:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return data

    def _pause(self) -> None:
        if not self._is_paused and not self._is_complete:
            self._is_paused = True
            self.transport.pause_reading()

    def close(self) -> None:
        """At once: nobody waits for what has not been read."""
        self._is_complete = True
        self._parts.clear()
        self.transport.abort()

    async def aclose(self) -> None:
        """The same, and waits until it is done."""
        self.close()
        await asyncio.sleep(0)  # asyncio closes sockets in its next round

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiting = self.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._is_complete:
            self._error = error
            self.transport.abort()
            self._wake()


class _Body(httpx.AsyncByteStream):
    """The body of a response, as it arrives."""

    def __init__(self, connection: _Connection, timeout: float | None) -> None:
        self._connection = connection
        self._timeout = timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            async with _limit(self._timeout, httpx.ReadTimeout):
                chunk = await self._connection.read()
            if not chunk:
                return
            yield chunk

    async def aclose(self) -> None:
        await self._connection.aclose()


async def _connected(host: str, port: int) -> socket.socket:
    """A socket that is connected to one of the host's addresses, whichever answers first (RFC 8305).

    asyncio's own `happy_eyeballs_delay` loses the socket when it is cancelled at the wrong moment (3.11: found by the
    test that cancels at every step), and uvloop has none.

    Raises:
        OSError: none of them answers.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    opened: list[socket.socket] = []
    errors: list[OSError] = []
    winner: list[socket.socket] = []

    async def attempt(family: int, address: Any, failed: anyio.Event) -> None:
        try:
            opened.append(one := socket.socket(family, socket.SOCK_STREAM))
            one.setblocking(False)
            await loop.sock_connect(one, address)
        except OSError as error:
            errors.append(error)
            return failed.set()
        winner.append(one)
        return race.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as race:
            for family, _, _, _, address in _interleaved(found):
                failed = anyio.Event()
                race.start_soon(attempt, family, address, failed)
                with anyio.move_on_after(_HAPPY_EYEBALLS):
                    await failed.wait()
    except BaseException:
        winner.clear()
        raise
    finally:
        for one in opened:
            if one not in winner[:1]:
                one.close()
    if not winner:
        raise errors[0]
    return winner[0]


def _interleaved(found: list[Any]) -> list[Any]:
    """The families take turns, and the resolver's favourite begins (RFC 8305 4)."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    pairs = zip_longest(first, others)
    return [one for pair in pairs for one in pair if one is not None]


@asynccontextmanager
async def _limit(seconds: float | None, error: type[httpx.TimeoutException]) -> AsyncIterator[None]:
    if seconds is None:  # a scope costs more than a chunk
        yield
        return
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as timeout:
        raise error(f"It took longer than {seconds} s.") from timeout


def _head_of(request: httpx.Request) -> bytes:
    """RFC 9112 3. httpx has put in `Host` and what frames the body."""
    headers = [header for header in request.headers.raw if header[0].lower() != b"connection"]
    parts = [request.method.encode("ascii"), request.url.raw_path, *(part for header in headers for part in header)]
    if any(_FORBIDDEN.search(part) for part in parts):
        raise httpx.LocalProtocolError("A line of the request holds characters that end it.")
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def is_usable() -> bool:
    """Whether the event loop that runs is asyncio's, or one like it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
