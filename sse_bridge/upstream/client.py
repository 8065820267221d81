"""The HTTP client that all runs of a bridge share: short calls, and event streams.

All runs share one client, because one for each request would cost 880 KB and 20 ms (measured). Most of that is the TLS
context, which outlives the client. httpx's exceptions end here, and each of ours says whether the request went out.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Container, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx

from ..errors import ConfigurationError, UpstreamError, UpstreamMisbehaved, UpstreamTimeout, UpstreamUnreachable
from . import environment, transport
from .base import Stream
from .bodies import CLOSE_TIMEOUT, Body, beginning, body_of, is_readable
from .checks import check_client, json_bytes
from .refusals import Refusal, json_words, refusal, words
from .tracing import KEEPALIVE, Trace
from .wording import for_the_log

__all__ = ["HTTPUpstream"]

#: MIOSA's routes behind Phoenix's `plug :accepts, ["json"]` answer a bare `text/event-stream` with 406, before they
#: look at the key. JSON at a lower weight passes, and other routes ignore it (`docs/miosa.md` §2).
SSE_ACCEPT: Final = "text/event-stream, application/json;q=0.9"
#: Seconds until the head of an answer. The SDK's own client waits as long (`docs/miosa.md` §1).
ANSWER_TIMEOUT: Final = 60.0
#: Seconds for a TCP and TLS handshake.
CONNECT_TIMEOUT: Final = 10.0

logger: Final = logging.getLogger("sse_bridge")

#: What httpx raises before a request goes out. Transports of other makes report nothing to a `Trace`.
_BEFORE_SENDING: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


#: Method, URL, headers and body of a request.
_Request = tuple[str, str, Mapping[str, str], bytes | None]


class HTTPUpstream:
    """An `httpx.AsyncClient` that all runs share.

    The first request makes the client, and the last one to end closes it. So even an application that ends without
    notice leaves all connections closed, and the next event loop gets its own client.

    Args:
        client: a client of your own, which stays yours to close. `None` makes one that drops cookies and uses each of
            any number of connections once. It goes by the environment as httpx does (`HTTPS_PROXY`, `NO_PROXY`,
            `SSL_CERT_FILE` and so on). On asyncio, URLs without a proxy go through the package's own transport
            (`transport.FastTransport`).

    Raises:
        ConfigurationError: `client` is something else.
    """

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        check_client(client)
        self._client = client
        self._shared: _SharedClient | None = None
        self._ssl: ssl.SSLContext | None = None  # kept, since it is what makes a client expensive
        self._reported: set[str] = set()  # faults of the configuration that the log has

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

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any,
        timeout: float,
        statuses: Container[int] = (httpx.codes.OK,),
    ) -> bytes:
        """Makes a request with a short answer, and returns the body if the status is one of `statuses`.

        Raises:
            UpstreamRefused: the status is another one.
            UpstreamError: the head of the answer took longer than `timeout` seconds, or the connection failed.
        """
        response, body = await self._exchange(method, url, headers, json, timeout)
        if response.status_code not in statuses:
            raise _refused(response, body)
        return body

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], json: Any, timeout: float
    ) -> tuple[httpx.Response, bytes]:
        content = None if json is None else json_bytes(json)
        async with self.lease() as client:
            give_up = anyio.current_time() + timeout
            response = await self._answer(client, (method, url, headers, content), timeout)
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
            UpstreamUnreachable: the connection failed, or broke before the head of the answer was complete. Its cause
                is a `ConfigurationError` if a setting of the server is at fault.
            UpstreamTimeout: the answer took too long.
        """
        wanted = httpx.Headers(headers)
        wanted["Accept-Encoding"] = "identity"
        return _Opening(self, (method, url, wanted, body))

    def lease(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Yields the client, and keeps it open until the context ends.

        Raises:
            UpstreamUnreachable: on entering, if there can be no client.
        """
        return _Lease(self)

    async def _answer(self, client: httpx.AsyncClient, request: _Request, timeout: float) -> httpx.Response:
        """Sends a request, and returns the head of the answer. The caller closes its body."""
        trace = Trace()
        response = None
        try:
            with anyio.move_on_after(timeout):
                response = await client.send(_built(client, request, trace), stream=True, follow_redirects=False)
        except ConfigurationError as error:
            raise self._misconfigured(error) from error
        except httpx.HTTPError as error:
            sent_nothing = trace.sent_nothing or isinstance(error, _BEFORE_SENDING)
            raise _failure(request, sent_nothing, in_time=not isinstance(error, httpx.TimeoutException)) from error
        if response is None:
            raise _failure(request, trace.sent_nothing, in_time=False)
        return response

    def _misconfigured(self, error: ConfigurationError) -> UpstreamUnreachable:
        """Logs what to fix, once. The error that it returns tells viewers only that the server is misconfigured."""
        if str(error) not in self._reported:
            self._reported.add(str(error))
            logger.error("no request can reach the upstream until this is fixed (logged once): %s", error)
        return UpstreamUnreachable(
            "The server is misconfigured and cannot reach the upstream.",
            code="upstream_misconfigured",
            started_nothing=True,
        )

    def _acquire(self) -> _SharedClient:
        loop = anyio.lowlevel.current_token()
        if self._shared is None or self._shared.loop != loop:
            try:
                self._ssl = self._ssl or environment.tls_context()
                self._shared = _SharedClient(loop, _make_client(self._ssl))
            except ConfigurationError as error:
                raise self._misconfigured(error) from error
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
        own = self._upstream._client
        if own is not None:
            if own.is_closed:
                error = ConfigurationError(
                    f"The client of {type(self._upstream).__name__}(client=...) is closed. Close it after the last run."
                )
                raise self._upstream._misconfigured(error) from error
            return own
        self._shared = self._upstream._acquire()
        return self._shared.client

    async def __aexit__(self, *raised: object) -> None:
        if self._shared is not None:
            await self._upstream._release(self._shared)


class _Opening:
    """See `HTTPUpstream.open`. Most of an idle stream is this object, hence a class with slots instead of a generator.

    Once the stream is open, it drops everything that only the request and the head of the response needed: 4 KB.
    """

    __slots__ = ("_body", "_lease", "_request", "_upstream")

    def __init__(self, upstream: HTTPUpstream, request: _Request) -> None:
        self._upstream = upstream
        self._lease = upstream.lease()
        self._request: _Request | None = request
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
        response = await self._upstream._answer(client, request, ANSWER_TIMEOUT)
        body = body_of(response)
        try:
            if response.status_code != httpx.codes.OK:
                raise _refused(response, await beginning(body, CLOSE_TIMEOUT))
            if not _is_event_stream(response):
                is_json = _is_json(response)
                raise _misbehaved(response, await beginning(body, CLOSE_TIMEOUT) if is_json else b"")
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


def _built(client: httpx.AsyncClient, request: _Request, trace: Trace) -> httpx.Request:
    method, url, headers, body = request
    timeout = httpx.Timeout(CONNECT_TIMEOUT, read=None, pool=None)
    wanted = httpx.Headers(headers)
    if body is not None:
        wanted.setdefault("Content-Type", "application/json")
    built = client.build_request(
        method, url, headers=wanted, content=body, timeout=timeout, extensions={"trace": trace}
    )
    built.url = _DiscreetURL(built.url)
    return built


def _failure(request: _Request, sent_nothing: bool, *, in_time: bool) -> UpstreamError:
    """The error for a request that gets no answer."""
    host = httpx.URL(request[1]).netloc.decode("ascii")
    if in_time:
        message = "cannot be reached." if sent_nothing else "broke the connection before it answered."
        return UpstreamUnreachable(f"The upstream {message}", upstream_host=host, started_nothing=sent_nothing)
    message = "accept a connection" if sent_nothing else "answer"
    return UpstreamTimeout(f"The upstream did not {message} in time.", upstream_host=host, started_nothing=sent_nothing)


def _refused(response: httpx.Response, body: bytes) -> Refusal:
    """The error for a refused request. Logs what the operator needs to fix it."""
    refused = refusal(response.status_code, response.headers, body)
    said = for_the_log(words(body), response.request)
    refused.upstream_message = said or None
    if refused.status == 502:  # the server's fault, or the platform's
        logger.warning("the upstream answered %d (request %s): %s", response.status_code, refused.request_id, said)
    return refused


def _misbehaved(response: httpx.Response, body: bytes) -> UpstreamMisbehaved:
    """The error for a 200 without a stream. Some platforms say in JSON what went wrong, which is logged."""
    said = for_the_log(json_words(body), response.request) if body else ""
    if said:
        logger.warning("the upstream answered 200 with JSON in place of an event stream: %s", said)
    return UpstreamMisbehaved(
        "The upstream answered with something other than an event stream.",
        upstream_status=200,
        upstream_message=said or None,
    )


class _DiscreetURL(httpx.URL):
    """A URL that prints neither host nor path nor query: httpx logs every URL, and a query may hold a ticket."""

    def __str__(self) -> str:
        return f"{self.scheme}://upstream/"


def _make_client(ssl_context: ssl.SSLContext) -> httpx.AsyncClient:
    # Each connection is used once. httpcore takes what follows a response for the answer to the next request. And a
    # server may close a connection just as a request goes out, which then may or may not have had an effect.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)

    def httpxs_own(proxy: httpx.Proxy | None = None) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=ssl_context, limits=limits, proxy=proxy)

    return httpx.AsyncClient(
        transport=transport.FastTransport(ssl_context, KEEPALIVE) if transport.is_usable() else httpxs_own(),
        mounts=environment.mounts(httpxs_own),
        # Different people's runs share the client, and must not share cookies.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


def _is_event_stream(response: httpx.Response) -> bool:
    return is_readable(response) and _media_type(response) == "text/event-stream"


def _is_json(response: httpx.Response) -> bool:
    return is_readable(response) and _media_type(response).endswith(("/json", "+json"))


def _media_type(response: httpx.Response) -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()
