"""A fast HTTP/1.1 transport for many long streams, behind httpx's interface.

MIOSA sends one HTTP chunk per frame. httpx's default transport spends 7 µs on each, and its chain of generators as much
again. Here the parser appends the bodies of chunks to a list (`receiving`), and the reader gets all of them joined:
parsing is paid for each chunk, a wake-up only once for everything that arrived meanwhile.

It serves only what this package needs: asyncio, HTTP/1.1, TLS, one request per connection. On other event loops (see
`is_usable`), httpx's own transport takes its place.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import httpx

from .base import Room, Take
from .bodies import ARRIVING
from .connecting import connected
from .receiving import Incoming
from .tracing import CONNECTING, SENDING

__all__ = ["FastTransport", "is_usable"]

#: Bytes that may wait for the reader before the socket is left alone. One read of asyncio's (256 KiB) may exceed it.
HIGH_WATER: Final = 64 * 1024
#: Characters that would end a line of the request's head (RFC 9110 5.5).
_FORBIDDEN: Final = re.compile(rb"[\r\n\0]")
#: Seconds for an orderly end of a TLS connection; then it is aborted.
_TLS_SHUTDOWN: Final = 1.0


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

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and returns when the head of its response has arrived.

        Raises:
            httpx.TransportError: of the kinds that httpx's own transport raises.
        """
        content = _head_of(request) + await request.aread()
        timeouts = request.extensions.get("timeout", {})
        await _report(request, CONNECTING)
        connection = await self._connect(request, timeouts.get("connect"))
        try:
            await _report(request, SENDING)
            connection.transport.write(content)
            async with _limit(timeouts.get("read"), httpx.ReadTimeout):
                await connection.head()
        except BaseException:
            connection.close()
            raise
        response = connection.response
        headers, response.headers = response.headers, []  # an idle stream keeps none
        return httpx.Response(
            response.status,
            headers=headers,
            stream=_Chunks(connection, timeouts.get("read")),
            extensions={
                "http_version": response.http_version,
                "reason_phrase": response.reason,
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
                sock = await connected(host, url.port or (443 if options else 80))
                for option in self._socket_options:
                    sock.setsockopt(*option)
                await connection.loop.create_connection(lambda: connection, sock=sock, **options)
        except (OSError, UnicodeError) as error:  # `ssl.SSLError` is an `OSError`
            raise httpx.ConnectError(str(error)) from error
        return connection

    async def aclose(self) -> None:
        """Closes all connections."""
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)  # asyncio closes sockets in its next round


class _Connection(asyncio.Protocol):
    """One connection with one response. Everything happens in callbacks; one task may wait."""

    __slots__ = (
        "__weakref__",
        "_all_open",
        "_body_size",
        "_error",
        "_is_paused",
        "_take",
        "_waiting",
        "loop",
        "response",
        "transport",
    )

    def __init__(self, all_open: set[_Connection], *, is_head: bool) -> None:
        self.transport: asyncio.Transport
        self.loop = asyncio.get_running_loop()
        self.response = Incoming(is_head=is_head)
        self._all_open = all_open
        self._take: Take | None = None  # during a push: gets the chunks where they arrive
        self._waiting: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_paused = False
        self._body_size = 0  # bytes that arrived since the reader last took some

    # -- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._all_open.add(self)

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response.is_complete or self._error is not None:
            return
        try:
            response.feed(data)
        except httpx.RemoteProtocolError as error:
            self._fail(error)
        if not response.has_head:
            return
        if response.is_complete:
            self.transport.pause_reading()  # for good: what may follow is not for us
        take = self._take
        if take is not None:
            parts = response.parts
            try:
                if parts and not take(parts.pop() if len(parts) == 1 else response.take()):
                    self._take = None
                    self._pause()
            except Exception as error:
                self._take = None
                self._error = self._error or error  # a bug; the waiting task raises it
                self.transport.abort()
            if self._take is not None and not response.is_complete:
                return
        self._body_size += len(data)
        if self._body_size >= HIGH_WATER:
            self._pause()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._all_open.discard(self)
        if error is not None:
            self._fail(httpx.ReadError(str(error)))
        try:
            self.response.end()
        except httpx.RemoteProtocolError as cut_off:
            self._error = self._error or cut_off
        self._wake()

    # -- the reader calls these

    async def head(self) -> None:
        """Returns when the head has arrived."""
        while not self.response.has_head:
            await self._wait()

    async def read(self) -> bytes:
        """What has arrived of the body; empty at its end."""
        response = self.response
        while True:
            if self._is_paused and not response.is_complete:
                self._is_paused = False
                self.transport.resume_reading()
            if response.parts:
                self._body_size = 0
                return response.take()
            if response.is_complete and self._error is None:
                return b""
            await self._wait()

    async def push(self, take: Take, room: Room) -> None:
        """See `bodies.Arriving.push`. While there is room, `take` runs in the callback that brings the chunk."""
        while chunk := await self.read():
            has_room = take(chunk)
            del chunk  # the wait may be long
            if has_room and not self.response.is_complete:
                self._take = take
                try:
                    await self._wait()
                finally:
                    self._take = None
            await room()

    def _pause(self) -> None:
        if not self._is_paused and not self.response.is_complete:
            self._is_paused = True
            self.transport.pause_reading()

    def close(self) -> None:
        """Closes the connection at once, and drops what is unread."""
        self.response.is_complete = True
        self.response.parts.clear()
        self.transport.abort()

    async def aclose(self) -> None:
        """Closes the connection, and returns when the socket is closed."""
        self.close()
        await asyncio.sleep(0)  # asyncio closes sockets in its next round

    def _wait(self) -> asyncio.Future[None]:
        """Completes with the next `_wake`. A coroutine around it would take 200 bytes of an idle stream."""
        if self._error is not None:
            raise self._error
        self._waiting = self.loop.create_future()
        return self._waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self.response.is_complete:
            self._error = error
            self.transport.abort()
            self._wake()


class _Chunks(httpx.AsyncByteStream):
    """The body of a response, as httpx reads it."""

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


async def _report(request: httpx.Request, step: str) -> None:
    """Tells the `trace` of the request how far it has come, as httpcore does."""
    if trace := request.extensions.get("trace"):
        await trace(step, {"request": request})


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
    """The request line and headers (RFC 9112 3). httpx has added `Host` and the framing of the body."""
    headers = [header for header in request.headers.raw if header[0].lower() != b"connection"]
    parts = [request.method.encode("ascii"), request.url.raw_path, *(part for header in headers for part in header)]
    if any(_FORBIDDEN.search(part) for part in parts):
        raise httpx.LocalProtocolError("A line of the request holds characters that end it.")
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def is_usable() -> bool:
    """Whether the running event loop is asyncio's, or one like it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
