"""The HTTP client that all runs of a bridge share, and the way they open event streams with it.

One client for all: one per request costs 880 KB and 20 ms (measured), most of which is the TLS context, so that is
kept. Its pool is never what limits the number of streams. What it raises stays in this module.
"""

from __future__ import annotations

import math
import re
import socket
import ssl
import urllib.request
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from json import dumps
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel
import httpx

from ..errors import UpstreamLost, UpstreamMisbehaved, UpstreamTimeout, UpstreamUnreachable
from .base import Room, Take
from .refusals import refusal

__all__ = ["HTTPUpstream"]

#: A bare `text/event-stream` is refused with 406 by every route of MIOSA's behind Phoenix's `plug :accepts, ["json"]`,
#: before the key is even looked at; JSON at a lower weight passes it and is ignored elsewhere (`miosa-wire.md` §1.2).
SSE_ACCEPT: Final = "text/event-stream, application/json;q=0.9"
#: The extension of a response under which its body can be had without httpx's chain of generators: see `Arriving`.
ARRIVING: Final = "sse_bridge.arriving"
#: Seconds. The SDK's own client waits as long for an answer (`miosa-wire.md` §1.1).
ANSWER_TIMEOUT: Final = 60.0
#: Seconds for a TCP and TLS handshake.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds for closing a connection that nobody needs any more.
CLOSE_TIMEOUT: Final = 2.0
#: Bytes of a short body that are looked at.
_MAX_SHORT_BODY: Final = 64 * 1024
#: Compressed streams are not asked for, but proxies send them: what is unpacked, and how many bytes of it at once.
_ZLIB_ENCODINGS: Final = ("gzip", "x-gzip", "deflate")
_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32
_MAX_UNPACKED: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# A stream may be silent for hours, so there is no read timeout. Keep-alive probes find out, within two minutes, that
# the other side is gone.
_KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
]


class HTTPUpstream:
    """An `httpx.AsyncClient` that all runs share.

    There is one as long as any request needs it, and none in between: nothing is left open that somebody would have
    to close, also where an application never hears of its end, and the next event loop gets a client of its own.

    Args:
        client: a client of your own, which stays yours to close. `None` makes one without a limit on connections
            and without a cookie jar; it honours proxies from the environment. On asyncio and without a proxy it has
            a transport of its own (`transport.FastTransport`).
    """

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        self._client = client
        self._shared: _SharedClient | None = None
        self._ssl: ssl.SSLContext | None = None  # what makes a client expensive

    async def call(
        self, method: str, url: str, *, headers: Mapping[str, str], json: Any, timeout: float
    ) -> tuple[int, bytes]:
        """One request whose answer is short: its status and its body.

        Raises:
            UpstreamError: no answer within `timeout` seconds, or none at all.
        """
        response, body = await self._exchange(method, url, headers, json, timeout)
        return response.status_code, body

    async def ask(self, method: str, url: str, *, headers: Mapping[str, str], json: Any, timeout: float) -> bytes:
        """One request whose answer is short, and of which only 200 will do: its body.

        Raises:
            UpstreamRefused: the answer is another one.
            UpstreamError: no answer within `timeout` seconds, or none at all.
        """
        response, body = await self._exchange(method, url, headers, json, timeout)
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, response.headers, body)
        return body

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], json: Any, timeout: float
    ) -> tuple[httpx.Response, bytes]:
        content = None if json is None else json_bytes(json)
        async with self._lease() as client:
            give_up = anyio.current_time() + timeout
            try:
                response = await _answer(client, _request(client, method, url, headers, content), timeout)
            except NotSent as unsent:
                raise unsent.error from unsent
            body = _body_of(response)
            try:
                # A server may send the head at once, and the body when the work is done.
                return response, await _beginning(body, give_up - anyio.current_time())
            finally:
                await body.aclose()

    def open(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Opens an event stream, on entering, and gives its chunks as they arrive.

        Redirects are not followed: a key would go where nobody meant it to go.

        Args:
            body: JSON, as `json_bytes` makes it, so that what cannot be sent is found before anything is; `None` for
                none.

        Raises:
            UpstreamRefused: the answer is no success; 204 is one, too (there is nothing to follow).
            UpstreamMisbehaved: the answer is no event stream.
            UpstreamUnreachable: no connection, or no whole answer.
            UpstreamTimeout: no answer in time.
            NotSent: it did not reach the upstream.
        """
        wanted = httpx.Headers(headers)
        wanted["Accept-Encoding"] = "identity"
        return _EventStream(self._lease(), (method, url, wanted, body))

    def _lease(self) -> _Lease:
        return _Lease(self)

    def _acquire(self) -> _SharedClient:
        loop = anyio.lowlevel.current_token()
        if self._shared is None or self._shared.loop != loop:
            self._ssl = self._ssl or httpx.create_ssl_context()
            self._shared = _SharedClient(loop, _make_client(self._ssl))
        self._shared.users += 1
        return self._shared

    async def _release(self, shared: _SharedClient) -> None:
        shared.users -= 1
        if not shared.users:
            if self._shared is shared:
                self._shared = None
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await shared.client.aclose()


@dataclass
class _SharedClient:
    """A client, the event loop it belongs to, and how many requests need it."""

    loop: object
    client: httpx.AsyncClient
    users: int = 0


class _Lease:
    """The shared client, from entering to leaving; whoever is the last to need it closes it."""

    __slots__ = ("_shared", "_upstream")

    def __init__(self, upstream: HTTPUpstream) -> None:
        self._upstream = upstream
        self._shared: _SharedClient | None = None

    async def __aenter__(self) -> httpx.AsyncClient:
        if self._upstream._client is not None:
            return self._upstream._client
        self._shared = self._upstream._acquire()
        return self._shared.client

    async def __aexit__(self, *raised: object) -> None:
        if self._shared is not None:
            await self._upstream._release(self._shared)


class _EventStream:
    """What `HTTPUpstream.open` gives. An idle stream is little else, so this is no generator with generators in it.

    Once the stream is open, nothing is kept that only the request and the head of the response needed: 4 KB.
    """

    __slots__ = ("_body", "_lease", "_request")

    def __init__(self, lease: _Lease, request: tuple[str, str, httpx.Headers, bytes | None]) -> None:
        self._lease = lease
        self._request: tuple[str, str, httpx.Headers, bytes | None] | None = request
        self._body: _Body | None = None

    async def __aenter__(self) -> AsyncIterator[bytes]:
        client = await self._lease.__aenter__()
        try:
            self._body = await self._open(client)
        except BaseException:
            await self._lease.__aexit__()
            raise
        return self._body

    async def _open(self, client: httpx.AsyncClient) -> _Body:
        assert self._request is not None, "a stream is opened once"
        request, self._request = self._request, None
        response = await _answer(client, _request(client, *request), ANSWER_TIMEOUT)
        body = _body_of(response)
        try:
            if response.status_code != httpx.codes.OK:
                raise refusal(response.status_code, response.headers, await _beginning(body, CLOSE_TIMEOUT))
            if not _is_event_stream(response):
                raise UpstreamMisbehaved(
                    "The upstream answered with something that is no event stream.", upstream_status=200
                )
        except BaseException:
            await body.aclose()
            raise
        return body

    async def __aexit__(self, *raised: object) -> None:
        assert self._body is not None
        try:
            await self._body.aclose()
        finally:
            await self._lease.__aexit__()


def _request(
    client: httpx.AsyncClient, method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> httpx.Request:
    timeout = httpx.Timeout(CONNECT_TIMEOUT, read=None, pool=None)
    wanted = httpx.Headers(headers)
    if body is not None:
        wanted.setdefault("Content-Type", "application/json")
    request = client.build_request(
        method, url, headers=wanted, content=body, timeout=timeout, extensions={"trace": _Handshake()}
    )
    request.url = _DiscreetURL(request.url)
    return request


async def _answer(client: httpx.AsyncClient, request: httpx.Request, timeout: float) -> httpx.Response:
    """The answer's head. Its body has to be closed."""
    response = None
    try:
        with anyio.move_on_after(timeout):
            response = await client.send(request, stream=True, follow_redirects=False)
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise NotSent(UpstreamTimeout("The upstream did not accept a connection in time.")) from error
    except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
        raise NotSent(UpstreamUnreachable("The upstream cannot be reached.")) from error
    except httpx.HTTPError as error:
        raise UpstreamUnreachable("The connection to the upstream broke before it answered.") from error
    if response is None:
        raise UpstreamTimeout("The upstream did not answer in time.")
    return response


class _Handshake:
    """Closes a connection whose TLS handshake was cancelled, which httpcore 1.0.9 does for exceptions only."""

    _stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            self._stream = info["return_value"]
        elif event.endswith("start_tls.failed") and self._stream is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()


class _DiscreetURL(httpx.URL):
    """A URL that does not tell where it leads: httpx logs every request's, with whatever ticket is in it."""

    def __str__(self) -> str:
        return f"{self.scheme}://upstream/"


class NotSent(Exception):
    """The request did not reach the upstream, so that nothing was started. Carries the error to raise instead."""

    def __init__(self, error: UpstreamUnreachable | UpstreamTimeout) -> None:
        super().__init__(error)
        self.error = error


def _make_client(ssl_context: ssl.SSLContext) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    # Runs of different people share the client: no cookie of one may reach another.
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    if urllib.request.getproxies():  # an explicit transport would switch them off
        return httpx.AsyncClient(verify=ssl_context, limits=limits, cookies=cookies)
    transport = _fast_transport(ssl_context) or httpx.AsyncHTTPTransport(
        verify=ssl_context, limits=limits, socket_options=_KEEPALIVE
    )
    return httpx.AsyncClient(transport=transport, cookies=cookies)


def _fast_transport(ssl_context: ssl.SSLContext) -> httpx.AsyncBaseTransport | None:
    """Our own, if it can serve the event loop that runs."""
    from .transport import FastTransport, is_usable

    return FastTransport(ssl_context, _KEEPALIVE) if is_usable() else None


def _is_event_stream(response: httpx.Response) -> bool:
    content_type: str = response.headers.get("content-type", "")
    encoding: str = response.headers.get("content-encoding", "").strip().lower()
    is_readable = encoding in ("", "identity", *_ZLIB_ENCODINGS)
    return is_readable and content_type.partition(";")[0].strip().lower() == "text/event-stream"


async def _beginning(body: _Body, timeout: float) -> bytes:
    """The beginning of a short body; what there is of it after `timeout` seconds, or when it stops."""
    read = b""
    try:
        with anyio.move_on_after(timeout):
            async for chunk in body:
                read += chunk
                if len(read) > _MAX_SHORT_BODY:
                    break
    except UpstreamLost:
        pass
    return read


class _Body(Protocol):
    """A response's body: its chunks as they arrive, and the way to leave it, and its response, wherever it is."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None: ...


def _body_of(response: httpx.Response) -> _Body:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    arriving = response.extensions.get(ARRIVING)
    if arriving is not None and encoding not in _ZLIB_ENCODINGS:
        return _ArrivingChunks(arriving)
    return _GeneratedChunks(response, encoding)


class _GeneratedChunks:
    """The chunks of a body that is httpx's chain of async generators.

    Closing the outermost leaves the inner ones to the garbage collector. A cancellation that reaches the innermost
    one ends them all, so that is how it is left.
    """

    def __init__(self, response: httpx.Response, encoding: str) -> None:
        self._response = response
        self._raw = response.aiter_raw()
        self._chunks = _translated(self._raw, encoding)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Closes the response, also while the task is being cancelled."""
        try:
            with anyio.CancelScope(shield=True) as scope:
                scope.cancel()
                try:
                    async for _ in self._raw:
                        pass
                except (httpx.HTTPError, httpx.StreamError):
                    pass
            await self._chunks.aclose()
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._response.aclose()


async def _translated(raw: AsyncIterator[bytes], encoding: str) -> AsyncGenerator[bytes]:
    packing = _Packing() if encoding in _ZLIB_ENCODINGS else None
    try:
        async for chunk in raw:
            if packing is None:
                yield chunk
                continue
            for part in packing.unpacked(chunk):
                yield part
    except (httpx.HTTPError, httpx.StreamError, zlib.error) as error:
        raise UpstreamLost("The connection to the upstream broke.") from error


class Arriving(Protocol):
    """A body as it arrives. It knows no read timeout, and raises `httpx.TransportError`."""

    async def read(self) -> bytes:
        """What has arrived; nothing at the end."""
        ...

    async def push(self, take: Take, room: Room) -> None:
        """See `base.push`."""
        ...

    async def aclose(self) -> None:
        """Closes its connection."""
        ...


class _ArrivingChunks:
    """The chunks of such a body: each costs two awaits instead of four generators, or none if it is pushed."""

    __slots__ = ("_body",)

    def __init__(self, body: Arriving) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _lost():
            chunk = await self._body.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def push(self, take: Take, room: Room) -> None:
        """See `base.push`."""
        with _lost():
            await self._body.push(take, room)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._body.aclose()


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise UpstreamLost("The connection to the upstream broke.") from error


class _Packing:
    """A compressed body. httpx unpacks a chunk in one piece, which makes 64 MB of 64 KiB; here it comes in parts."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_ZLIB_OR_GZIP)

    def unpacked(self, chunk: bytes) -> Iterator[bytes]:
        part = b""
        while chunk or len(part) == _MAX_UNPACKED:
            if self._zlib.eof:  # gzip files may follow one another
                self._zlib = zlib.decompressobj(_ZLIB_OR_GZIP)
            part = self._zlib.decompress(chunk, _MAX_UNPACKED)
            chunk = self._zlib.unconsumed_tail or self._zlib.unused_data
            if part:
                yield part


def http_url(text: str) -> httpx.URL | None:
    """The URL, if a request can be sent there. What is none may raise anything but httpx's errors when it is used."""
    try:
        url = httpx.URL(text)
        url.raw_host.decode("ascii").encode("idna")  # as resolvers do: labels of 1 to 63 bytes
        is_usable = url.scheme in ("http", "https") and url.host and (url.port or 0) < 2**16
    except (httpx.InvalidURL, TypeError, UnicodeError):
        return None
    return url if is_usable else None


def is_header_value(value: object) -> bool:
    """Whether a header may hold it (RFC 9110 5.5), of which only ASCII is sure to be understood."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()


def is_token(value: object) -> bool:
    """Whether it can be a method or a header's name (RFC 9110 5.6.2)."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def json_bytes(value: Any) -> bytes:
    """A request's body.

    Raises:
        TypeError, ValueError, RecursionError: what `is_json` says no to.
    """
    return dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def is_json(value: Any) -> bool:
    """Whether it can be sent as JSON: no `NaN` or infinity (RFC 8259 6), no lone surrogates (8.1, UTF-8)."""
    try:
        json_bytes(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def is_text(value: object) -> bool:
    """Whether it is a string that can be sent: UTF-8 has no halves of surrogate pairs."""
    return isinstance(value, str) and is_json(value)


def ceil_seconds(seconds: float) -> int:
    """Whole seconds, at least one: platforms count in these, and less would mean none (`miosa-wire.md` §4)."""
    return max(1, math.ceil(seconds))
