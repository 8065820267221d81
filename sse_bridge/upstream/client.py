"""The HTTP client that all runs of a bridge share: short calls, and event streams.

All runs share one client, because one for each request would cost 880 KB and 20 ms (measured). Most of that is the TLS
context, which outlives the client. The pool is unlimited. httpx's exceptions end here.
"""

from __future__ import annotations

import socket
import ssl
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx

from ..errors import UpstreamMisbehaved, UpstreamTimeout, UpstreamUnreachable
from . import transport
from .base import Stream
from .bodies import CLOSE_TIMEOUT, Body, beginning, body_of, is_readable
from .checks import check_client, json_bytes
from .refusals import refusal

__all__ = ["HTTPUpstream"]

#: MIOSA's routes behind Phoenix's `plug :accepts, ["json"]` answer a bare `text/event-stream` with 406, before they
#: look at the key. JSON at a lower weight passes, and other routes ignore it (`docs/miosa.md` §2).
SSE_ACCEPT: Final = "text/event-stream, application/json;q=0.9"
#: Seconds until the head of an answer. The SDK's own client waits as long (`docs/miosa.md` §1).
ANSWER_TIMEOUT: Final = 60.0
#: Seconds for a TCP and TLS handshake.
CONNECT_TIMEOUT: Final = 10.0

# A stream may be silent for hours, so it has no read timeout. Keep-alive probes find a dead peer within two minutes.
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

    The first request makes the client, and the last one to end closes it. So even an application that ends without
    notice leaves all connections closed, and the next event loop gets its own client.

    Args:
        client: a client of your own, which stays yours to close. `None` makes one with unlimited connections that drops
            cookies and honours proxies from the environment. On asyncio, unless there is a proxy, it uses the package's
            own transport (`transport.FastTransport`).

    Raises:
        ConfigurationError: `client` is something else.
    """

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        check_client(client)
        self._client = client
        self._shared: _SharedClient | None = None
        self._ssl: ssl.SSLContext | None = None  # kept, since it is what makes a client expensive

    @property
    def leases(self) -> int:
        """How many requests and streams hold the shared client open. Zero with a client of your own."""
        return self._shared.leases if self._shared is not None else 0

    async def call(
        self, method: str, url: str, *, headers: Mapping[str, str], json: Any, timeout: float
    ) -> tuple[int, bytes]:
        """Makes a request with a short answer, and returns the status and body.

        Raises:
            UpstreamError: the head of the answer took longer than `timeout` seconds, or the connection failed.
        """
        response, body = await self._exchange(method, url, headers, json, timeout)
        return response.status_code, body

    async def ask(self, method: str, url: str, *, headers: Mapping[str, str], json: Any, timeout: float) -> bytes:
        """Makes a request with a short answer, and returns the body if the status is 200.

        Raises:
            UpstreamRefused: the status is another one.
            UpstreamError: the head of the answer took longer than `timeout` seconds, or the connection failed.
        """
        response, body = await self._exchange(method, url, headers, json, timeout)
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, response.headers, body)
        return body

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], json: Any, timeout: float
    ) -> tuple[httpx.Response, bytes]:
        content = None if json is None else json_bytes(json)
        async with self.lease() as client:
            give_up = anyio.current_time() + timeout
            response = await _answer(client, _request(client, method, url, headers, content), timeout)
            body = body_of(response)
            try:
                # A server may send the head at once, and the body when the work is done.
                return response, await beginning(body, give_up - anyio.current_time())
            finally:
                await body.aclose()

    def open(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Sends a request on entering, and yields the event stream that answers it.

        Redirects count as refusals, because following one would hand the key on.

        Args:
            body: JSON from `json_bytes`, so that a bad value fails before the request goes out; `None` for a request
                without one.

        Raises:
            UpstreamRefused: the status is anything but 200; a 204 says that the stream is over.
            UpstreamMisbehaved: the answer is a success of another kind than an event stream.
            UpstreamUnreachable: the connection failed, or broke before the head of the answer was complete.
            UpstreamTimeout: the answer took too long.
        """
        wanted = httpx.Headers(headers)
        wanted["Accept-Encoding"] = "identity"
        return _Opening(self.lease(), (method, url, wanted, body))

    def lease(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Yields the client, and keeps it open until the context ends."""
        return _Lease(self)

    def _acquire(self) -> _SharedClient:
        loop = anyio.lowlevel.current_token()
        if self._shared is None or self._shared.loop != loop:
            self._ssl = self._ssl or httpx.create_ssl_context()
            self._shared = _SharedClient(loop, _make_client(self._ssl))
        self._shared.leases += 1
        return self._shared

    async def _release(self, shared: _SharedClient) -> None:
        shared.leases -= 1
        if not shared.leases:
            if self._shared is shared:
                self._shared = None
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await shared.client.aclose()


@dataclass
class _SharedClient:
    """A client, the event loop it belongs to, and the number of requests that need it."""

    loop: object
    client: httpx.AsyncClient
    leases: int = 0


class _Lease:
    """See `HTTPUpstream.lease`. A class, since the generator of a context manager would take more memory."""

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


class _Opening:
    """See `HTTPUpstream.open`. Most of an idle stream is this object, hence a class with slots instead of a generator.

    Once the stream is open, it drops everything that only the request and the head of the response needed: 4 KB.
    """

    __slots__ = ("_body", "_lease", "_request")

    def __init__(
        self,
        lease: AbstractAsyncContextManager[httpx.AsyncClient],
        request: tuple[str, str, httpx.Headers, bytes | None],
    ) -> None:
        self._lease = lease
        self._request: tuple[str, str, httpx.Headers, bytes | None] | None = request
        self._body: Body | None = None

    async def __aenter__(self) -> Stream:
        client = await self._lease.__aenter__()
        try:
            self._body = await self._open(client)
        except BaseException:
            await self._lease.__aexit__(None, None, None)
            raise
        return self._body

    async def _open(self, client: httpx.AsyncClient) -> Body:
        assert self._request is not None, "a stream is opened once"
        request, self._request = self._request, None
        response = await _answer(client, _request(client, *request), ANSWER_TIMEOUT)
        body = body_of(response)
        try:
            if response.status_code != httpx.codes.OK:
                raise refusal(response.status_code, response.headers, await beginning(body, CLOSE_TIMEOUT))
            if not _is_event_stream(response):
                raise UpstreamMisbehaved(
                    "The upstream answered with something other than an event stream.", upstream_status=200
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
            await self._lease.__aexit__(None, None, None)


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
    """Sends a request, and returns the head of the answer. The caller closes its body."""
    response = None
    try:
        with anyio.move_on_after(timeout):
            response = await client.send(request, stream=True, follow_redirects=False)
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise UpstreamTimeout("The upstream did not accept a connection in time.", started_nothing=True) from error
    except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
        raise UpstreamUnreachable("The upstream cannot be reached.", started_nothing=True) from error
    except httpx.HTTPError as error:
        raise UpstreamUnreachable("The connection to the upstream broke before it answered.") from error
    if response is None:
        raise UpstreamTimeout("The upstream did not answer in time.")
    return response


class _Handshake:
    """Closes the connection if the TLS handshake is cancelled; httpcore 1.0.9 does so for exceptions only."""

    _stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            self._stream = info["return_value"]
        elif event.endswith("start_tls.failed") and self._stream is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()


class _DiscreetURL(httpx.URL):
    """A URL that prints neither host nor path nor query: httpx logs every URL, and a query may hold a ticket."""

    def __str__(self) -> str:
        return f"{self.scheme}://upstream/"


def _make_client(ssl_context: ssl.SSLContext) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    # Different people's runs share the client, and must not share cookies.
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    if urllib.request.getproxies():  # an explicit transport would switch them off
        return httpx.AsyncClient(verify=ssl_context, limits=limits, cookies=cookies)
    if transport.is_usable():
        return httpx.AsyncClient(transport=transport.FastTransport(ssl_context, _KEEPALIVE), cookies=cookies)
    httpxs_own = httpx.AsyncHTTPTransport(verify=ssl_context, limits=limits, socket_options=_KEEPALIVE)
    return httpx.AsyncClient(transport=httpxs_own, cookies=cookies)


def _is_event_stream(response: httpx.Response) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return is_readable(response) and content_type.partition(";")[0].strip().lower() == "text/event-stream"
