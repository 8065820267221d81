"""The HTTP client that all runs of a bridge share, and the way they open event streams with it.

One client for all: one per request costs 880 KB and 20 ms (measured). Its pool is never what limits the number of
streams. What it raises stays in this module.
"""

from __future__ import annotations

import math
import socket
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Self

import anyio
import httpx

from ..errors import UpstreamLost, UpstreamMisbehaved, UpstreamTimeout, UpstreamUnreachable
from .refusals import refusal

__all__ = ["HTTPUpstream"]

#: Seconds. The SDK's own client waits as long for an answer (`miosa-wire.md` §1.1).
ANSWER_TIMEOUT: Final = 60.0
#: Seconds for a TCP and TLS handshake.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds for closing a connection that nobody needs any more.
CLOSE_TIMEOUT: Final = 2.0
#: Bytes of an error's body that are looked at.
_MAX_ERROR_BODY: Final = 64 * 1024

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
    """A shared `httpx.AsyncClient`, made at the first request and used from one event loop.

    Args:
        client: a client of your own, which stays yours to close. `None` makes one without a limit on connections
            and without a cookie jar; it honours proxies from the environment.
    """

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        self._client = client
        self._owned = client is None

    @property
    def client(self) -> httpx.AsyncClient:
        """The client that all requests go through."""
        if self._client is None:
            self._client = _make_client()
        return self._client

    async def aclose(self) -> None:
        """Closes idle connections. The next request makes a new client."""
        if self._owned and self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def call(
        self, method: str, url: str, *, headers: Mapping[str, str], json: Any, timeout: float
    ) -> tuple[int, bytes]:
        """One request whose answer is short: its status and its body.

        Raises:
            UpstreamError: no answer within `timeout` seconds, or none at all.
        """
        request = self._request(method, url, headers, json)
        async with self._answer(request, timeout) as response:
            return response.status_code, await _read_error(response)

    @asynccontextmanager
    async def open(
        self, method: str, url: str, *, headers: Mapping[str, str], json: Any = None
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Opens an event stream and yields its chunks as they arrive.

        Redirects are not followed: a key would go where nobody meant it to go.

        Raises:
            UpstreamRefused: the answer is no success; 204 is one, too (there is nothing to follow).
            UpstreamMisbehaved: the answer is no event stream.
            UpstreamUnreachable: no connection, or no whole answer.
            UpstreamTimeout: no answer in time.
        """
        request = self._request(method, url, {**headers, "Accept-Encoding": "identity"}, json)
        async with self._answer(request, ANSWER_TIMEOUT) as response:
            if response.status_code != httpx.codes.OK:
                raise refusal(response.status_code, response.headers, await _read_error(response))
            if not _is_event_stream(response):
                raise UpstreamMisbehaved(
                    "The upstream answered with something that is no event stream.", upstream_status=200
                )
            async with _chunks(response) as chunks:
                yield chunks

    def _request(self, method: str, url: str, headers: Mapping[str, str], json: Any) -> httpx.Request:
        timeout = httpx.Timeout(CONNECT_TIMEOUT, read=None, pool=None)
        request = self.client.build_request(method, url, headers=dict(headers), json=json, timeout=timeout)
        request.url = _DiscreetURL(request.url)
        return request

    @asynccontextmanager
    async def _answer(self, request: httpx.Request, timeout: float) -> AsyncGenerator[httpx.Response]:
        """The answer's head; its body is closed on leaving, also when the leaving is a cancellation."""
        response = None
        try:
            with anyio.move_on_after(timeout):
                response = await self.client.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(UpstreamTimeout("The upstream did not accept a connection in time.")) from error
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise NotSent(UpstreamUnreachable("The upstream cannot be reached.")) from error
        except httpx.HTTPError as error:
            raise UpstreamUnreachable("The connection to the upstream broke before it answered.") from error
        if response is None:
            raise UpstreamTimeout("The upstream did not answer in time.")
        try:
            yield response
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await response.aclose()


class _DiscreetURL(httpx.URL):
    """A URL that does not tell where it leads: httpx logs every request's, with whatever ticket is in it."""

    def __str__(self) -> str:
        return f"{self.scheme}://upstream/"


class NotSent(Exception):
    """The request did not reach the upstream, so that nothing was started. Carries the error to raise instead."""

    def __init__(self, error: UpstreamUnreachable | UpstreamTimeout) -> None:
        super().__init__(error)
        self.error = error


def _make_client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    # Runs of different people share the client: no cookie of one may reach another.
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    if urllib.request.getproxies():  # an explicit transport would switch them off
        return httpx.AsyncClient(limits=limits, cookies=cookies)
    transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=_KEEPALIVE)
    return httpx.AsyncClient(transport=transport, cookies=cookies)


def _is_event_stream(response: httpx.Response) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


async def _read_error(response: httpx.Response) -> bytes:
    """The beginning of a short body; what there is of it, if it stops or never ends."""
    body = b""
    try:
        with anyio.move_on_after(CLOSE_TIMEOUT):
            async with _chunks(response) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > _MAX_ERROR_BODY:
                        break
    except UpstreamLost:
        pass
    return body


@asynccontextmanager
async def _chunks(response: httpx.Response) -> AsyncGenerator[AsyncIterator[bytes]]:
    """The body's chunks as they arrive.

    httpx's body is a chain of async generators, and closing the outermost leaves the inner ones to the garbage
    collector. A cancellation that reaches the innermost one ends them all, so that is how it is left.
    """
    encoded = "content-encoding" in response.headers
    async with aclosing(_translated(response.aiter_bytes() if encoded else response.aiter_raw())) as chunks:
        try:
            yield chunks
        finally:
            with anyio.CancelScope(shield=True) as scope:
                scope.cancel()
                try:
                    async for _ in chunks:
                        pass
                except UpstreamLost:
                    pass


async def _translated(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise UpstreamLost("The connection to the upstream broke.") from error


def ceil_seconds(seconds: float) -> int:
    """Whole seconds, at least one: platforms count in these, and less would mean none (`miosa-wire.md` §4)."""
    return max(1, math.ceil(seconds))
