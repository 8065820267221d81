"""`FastTransport` says what httpx's own transport says, case by case."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import psutil
import pytest
import trustme

from sse_bridge.upstream import parsing, transport
from sse_bridge.upstream.client import ARRIVING
from sse_bridge.upstream.transport import FastTransport, is_usable

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture(params=["llhttp", "h11"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `sse_bridge[fast]` and without it."""
    if request.param == "h11":
        monkeypatch.setattr(parsing, "httptools", None)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context, and that of a client who trusts it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return context, trusting


@asynccontextmanager
async def server(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str]:
    """A server that reads a request's head and then does what the test says."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, EOFError):  # the client has left
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


def says(*pieces: bytes) -> Answer:
    """Writes the pieces one after the other, each in a segment of its own, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001 if len(pieces) < 50 else 0)

    return answer


async def outcome(of: httpx.AsyncBaseTransport, url: str, method: str = "GET", **options: Any) -> Any:
    """What a caller sees of one request: everything of the response, or the kind of error, and when it came."""
    async with httpx.AsyncClient(transport=of, trust_env=False, timeout=5) as client:
        body = b""
        try:
            async with client.stream(method, url, **options) as response:
                headers = sorted((name.lower(), value) for name, value in response.headers.raw)
                head = (response.status_code, response.reason_phrase, response.http_version, headers)
                try:
                    async for chunk in response.aiter_raw():
                        body += chunk
                except httpx.HTTPError as error:
                    return head, body, type(error)
                return head, body, None
        except httpx.HTTPError as error:
            return type(error)


def both() -> list[httpx.AsyncBaseTransport]:
    context = httpx.create_ssl_context()
    return [httpx.AsyncHTTPTransport(verify=context), FastTransport(context)]


HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE: Final = CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"

CASES: dict[str, tuple[bytes, ...]] = {
    "chunked": (WHOLE,),
    "chunked, byte by byte": tuple(WHOLE[index : index + 1] for index in range(len(WHOLE))),
    "content-length": (HEAD + b"Content-Length: 5\r\n\r\n", b"hel", b"lo"),
    "content-length 0": (HEAD + b"Content-Length: 0\r\n\r\n",),
    "until close": (HEAD + b"\r\n", b"hello", b" world"),
    "no body at all": (HEAD + b"\r\n",),
    "http/1.0": (b"HTTP/1.0 200 OK\r\n\r\n", b"hello"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n",),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",),
    "100, then 200": (b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n", HEAD + b"Content-Length: 2\r\n\r\nok"),
    "103 and 200 in one segment": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok",
    ),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",),
    "an error with a body": (b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy",),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",),
    "empty and repeated headers": (b"HTTP/1.1 200 OK\r\nX:\r\nX: 1\r\nx: 2\r\nContent-Length: 0\r\n\r\n",),
    "white space around values": (b"HTTP/1.1 200 OK\r\nX: \t 1 \t\r\nContent-Length: 0\r\n\r\n",),
    "bytes in values": (b"HTTP/1.1 200 OK\r\nX: caf\xe9\r\nContent-Length: 0\r\n\r\n",),
    "more after the end": (HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", b"and more"),
    "nothing": (b"",),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-",),
    "cut in a length": (HEAD + b"Content-Length: 10\r\n\r\n", b"hello"),
    "cut in a chunk": (CHUNKED + b"5\r\nhello\r\n6\r\n wo",),
    "cut between chunks": (CHUNKED + b"5\r\nhello\r\n",),
    "cut before the last line": (CHUNKED + b"5\r\nhello\r\n0\r\n",),
    "garbage": (b"\x16\x03\x01 this is no http\r\n\r\n",),
    "a bad chunk size": (CHUNKED + b"5\r\nhello\r\nxyz\r\n",),
    "a bad length": (HEAD + b"Content-Length: five\r\n\r\nhello",),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",),
    "a huge head": (HEAD + b"X: " + b"x" * 300_000,),
    "huge headers without an end": (HEAD, *[b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(200)]),
}


@pytest.mark.parametrize("name", CASES)
async def test_it_says_what_httpxs_own_transport_says(anyio_backend: str, name: str) -> None:
    """Status, reason, headers, body, and the kind of error."""
    async with server(says(*CASES[name])) as url:
        expected, actual = [await outcome(of, url) for of in both()]

    assert expected == actual


@pytest.mark.parametrize("at", range(1, len(WHOLE), 7))
async def test_a_cut_anywhere_changes_nothing(anyio_backend: str, at: int) -> None:
    """Heads, sizes and line ends may be cut in two."""
    async with server(says(WHOLE[:at], WHOLE[at:])) as url:
        _, body, error = await outcome(FastTransport(httpx.create_ssl_context()), url)

    assert (body, error) == (b"hello world", None)


async def test_a_head_request_has_no_body(anyio_backend: str) -> None:
    """Although its headers name a length."""
    async with server(says(HEAD + b"Content-Length: 1000\r\n\r\n")) as url:
        expected, actual = [await outcome(of, url, "HEAD") for of in both()]

    assert expected == actual


async def test_what_arrives_at_the_server_is_the_request(anyio_backend: str) -> None:
    """Method, target, headers, body: the same bytes but for the connection's own header."""
    requests = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len('{"a":"é"}'.encode()))
        requests.append((head.replace(b"keep-alive", b"close").lower().split(b"\r\n"), body))
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    async with server(answer) as url:
        for of in both():
            headers = {"Authorization": "Bearer x", "X-Odd": 'a; b="c"'}
            await outcome(of, url + "/a%20b?c=d%26e", "POST", json={"a": "é"}, headers=headers)

    (default, body), (ours, our_body) = requests
    assert sorted(default) == sorted(ours)
    assert default[0] == ours[0]
    assert body == our_body


@pytest.mark.parametrize("header", [{"X": "a\r\nY: b"}, {"X\n": "a"}, {"X": "a\0"}])
async def test_nothing_can_be_smuggled_into_a_request(anyio_backend: str, header: dict[str, str]) -> None:
    """A line end in a header is refused before anything is sent."""
    async with server(says(HEAD + b"Content-Length: 0\r\n\r\n")) as url:
        outcomes = [await outcome(of, url, headers=header) for of in both()]

    assert outcomes == [httpx.LocalProtocolError] * 2


async def test_nobody_listens(anyio_backend: str) -> None:
    """Refused."""
    async with server(says()) as url:
        pass

    assert [await outcome(of, url) for of in both()] == [httpx.ConnectError] * 2


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/", "ftp://127.0.0.1/"])
async def test_there_is_no_such_host_or_no_such_scheme(anyio_backend: str, url: str) -> None:
    """The same kinds of error."""
    expected, actual = [await outcome(of, url) for of in both()]

    assert expected == actual


async def test_a_certificate_that_nobody_trusts_is_no_connection(anyio_backend: str, certificates: Any) -> None:
    """Neither for us: nothing is sent."""
    requests = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read())

    async with server(answer, certificates[0]) as url:
        assert [await outcome(of, url) for of in both()] == [httpx.ConnectError] * 2
    assert not any(requests)


async def test_over_tls_with_a_certificate_that_is_trusted(anyio_backend: str, certificates: Any) -> None:
    """The same stream."""
    async with server(says(WHOLE), certificates[0]) as url:
        _, body, error = await outcome(FastTransport(certificates[1]), url)

    assert (body, error) == (b"hello world", None)


async def test_who_does_not_answer_in_time(anyio_backend: str, monkeypatch: Any) -> None:
    """Reads and connects that take too long have errors of their own."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    of = FastTransport(httpx.create_ssl_context())
    async with server(silent) as url:
        with pytest.raises(httpx.ReadTimeout):
            await httpx.AsyncClient(transport=of, timeout=0.05).get(url)

    async def never(*args: object, **options: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(transport, "_connected", never)
    with pytest.raises(httpx.ConnectTimeout):
        await httpx.AsyncClient(transport=of, timeout=0.05).get("http://127.0.0.1:9/")


async def test_a_body_that_stops_is_a_read_timeout(anyio_backend: str) -> None:
    """Where a read timeout was asked for; streams that may be silent ask for none."""

    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    async with server(stops) as url, httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context())) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url, timeout=0.05)


def connected_to(url: str) -> int:
    """The sockets of ours that lead there."""
    port = httpx.URL(url).port
    return sum(bool(one.raddr) and one.raddr.port == port for one in psutil.Process().net_connections("tcp"))


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("after", [*range(24), 30, 40, 60])
async def test_a_request_that_is_cancelled_leaves_nothing_behind(
    anyio_backend: str, after: int, times: int, tls: bool, certificates: Any
) -> None:
    """At whatever it waits for, once or twice: the socket is closed without the garbage collector."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (CHUNKED[:30], CHUNKED[30:], b"5\r\nhello\r\n"):
            await asyncio.sleep(0)
            writer.write(piece)
        await reader.read()

    gc.disable()
    try:
        async with server(slow, certificates[0] if tls else None) as url:
            of = FastTransport(certificates[1])
            client = httpx.AsyncClient(transport=of, timeout=None)

            async def visit() -> None:
                async with client.stream("GET", url) as response:
                    async for _ in response.aiter_raw():
                        pass

            task = asyncio.create_task(visit())
            for _ in range(after):
                await asyncio.sleep(0)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(100):
                if not of._open and not connected_to(url):
                    break
                await asyncio.sleep(0.01)
            assert not of._open
            assert not connected_to(url)
    finally:
        gc.enable()


async def test_the_server_sees_at_once_that_nobody_reads_any_more(anyio_backend: str) -> None:
    """Also while reading is paused because nobody took what had come."""
    left = asyncio.Event()

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            left.set()

    async with server(floods) as url:
        client = httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context()), timeout=None)
        async with client.stream("GET", url) as response:
            body: Any = response.stream
            connection = body._stream._connection
            while not connection._is_paused:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0.01)
            assert connection._body_size < 2**20
        await asyncio.wait_for(left.wait(), 5)


async def test_what_arrives_while_nobody_reads_is_one_chunk(anyio_backend: str) -> None:
    """One wake-up for all of it, nothing is lost, and memory is bounded: 20 MB at a reader that stops and reads."""
    frame = b"".join(b"%x\r\n%b\r\n" % (100, b"y" * 100) for _ in range(1000))

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        for _ in range(200):
            writer.write(frame)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with server(floods) as url:
        client = httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context()), timeout=None)
        sizes = []
        async with client.stream("GET", url) as response:
            async for chunk in response.aiter_raw():
                sizes.append(len(chunk))
                if len(sizes) % 10 == 0:
                    await asyncio.sleep(0.005)

    assert sum(sizes) == 200 * 100_000
    assert max(sizes) <= transport._MARK + 256 * 1024
    assert len(sizes) < 2000


async def test_closing_the_transport_closes_what_is_open(anyio_backend: str) -> None:
    """Whoever still reads is told."""

    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        await reader.read()

    of = FastTransport(httpx.create_ssl_context())
    async with server(stops) as url:
        response = await of.handle_async_request(httpx.Request("GET", url))
        await of.aclose()
        assert not of._open
        assert b"".join([chunk async for chunk in response.stream]) == b""  # type: ignore[union-attr]


async def test_the_parser_is_the_one_that_is_installed(anyio_backend: str, request: pytest.FixtureRequest) -> None:
    """Or these tests would hold llhttp against httpx twice."""
    connection = transport._Connection(set(), is_head=False)

    assert isinstance(connection._parser, parsing.H11Parser) == ("h11" in request.node.callspec.id)


async def test_a_method_that_nobody_knows_is_sent_as_it_is(anyio_backend: str) -> None:
    """What the answer is read with has no say in that."""
    async with server(says(WHOLE)) as url:
        expected, actual = [await outcome(of, url, "X-FOLLOW") for of in both()]

    assert expected == actual


async def test_it_is_for_asyncio(anyio_backend: str) -> None:
    """And what is like it."""
    assert is_usable()


def test_without_an_event_loop_there_is_none(anyio_backend: str) -> None:
    """Nor on trio, where asyncio's is missing."""
    assert not is_usable()


@pytest.mark.parametrize("refuse", [0, 1, 2])
async def test_the_first_address_that_answers_is_taken(anyio_backend: str, refuse: int, monkeypatch: Any) -> None:
    """Addresses that refuse cost no time, those that are silent a quarter of a second; the others are let go."""
    async with server(says(WHOLE)) as url:
        port = httpx.URL(url).port
        here, nobody = ("127.0.0.1", port), ("127.0.0.1", 1)
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in [nobody] * refuse + [here, here]]

        async def found(*args: object, **options: object) -> Any:
            return addresses

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        _, body, error = await outcome(FastTransport(httpx.create_ssl_context()), "http://many.example/")
        assert (body, error) == (b"hello world", None)
        assert not connected_to(url)


async def test_a_silent_address_holds_nobody(anyio_backend: str, monkeypatch: Any) -> None:
    """The next one is tried beside it."""
    monkeypatch.setattr(transport, "_HAPPY_EYEBALLS", 0.01)
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(one: socket.socket, address: Any) -> None:
        if one.family == socket.AF_INET6:
            await asyncio.sleep(60)
        await connect(one, address)

    async with server(says(WHOLE)) as url:
        port = httpx.URL(url).port
        addresses = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

        async def found(*args: object, **options: object) -> Any:
            return addresses

        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        monkeypatch.setattr(loop, "getaddrinfo", found)
        _, body, error = await outcome(FastTransport(httpx.create_ssl_context()), "http://many.example/")
        assert (body, error) == (b"hello world", None)


async def pushed(url: str, room_for: int = 10**9) -> tuple[list[bytes], list[int]]:
    """What was handed over, and how many chunks there were each time that there was no room for more."""
    chunks: list[bytes] = []
    waits: list[int] = []

    def take(chunk: bytes) -> bool:
        chunks.append(chunk)
        return len(chunks) % room_for != 0

    async def room() -> None:
        before = len(chunks)
        if before % room_for == 0:
            await asyncio.sleep(0.002)
            assert len(chunks) == before
            waits.append(before)

    client = httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context()), timeout=None)
    async with client, client.stream("GET", url) as response:
        await response.extensions[ARRIVING].push(take, room)
    return chunks, waits


@pytest.mark.parametrize("room_for", [1, 2, 3, 10**9])
@pytest.mark.parametrize(
    "name", ["chunked", "chunked, byte by byte", "content-length", "content-length 0", "until close", "no body at all"]
)
async def test_what_is_pushed_is_what_would_be_read(anyio_backend: str, name: str, room_for: int) -> None:
    """In order, to the end; and nothing is handed over while there is no room."""
    async with server(says(*CASES[name])) as url:
        _, body, _ = await outcome(FastTransport(httpx.create_ssl_context()), url)
        chunks, waits = await pushed(url, room_for)

    assert b"".join(chunks) == body
    assert waits == [number for number in range(1, len(chunks) + 1) if number % room_for == 0]


async def test_what_is_pushed_comes_without_a_task_that_wakes_up(anyio_backend: str) -> None:
    """A chunk is taken in the callback that brings it."""
    here = asyncio.Event()
    takers: list[object] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        await here.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    def take(chunk: bytes) -> bool:
        takers.append(asyncio.current_task())
        here.set()
        return True

    async def room() -> None:
        pass

    client = httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context()))
    async with server(answer) as url, client, client.stream("GET", url) as response:
        await response.extensions[ARRIVING].push(take, room)

    assert takers == [asyncio.current_task(), None]


@pytest.mark.parametrize(
    "name", ["cut in a length", "cut in a chunk", "cut between chunks", "cut before the last line", "a bad chunk size"]
)
async def test_a_push_that_breaks_off_says_so(anyio_backend: str, name: str) -> None:
    """As reading does."""
    async with server(says(*CASES[name])) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            await pushed(url)


@pytest.mark.parametrize("at", [1, 2])
async def test_a_bug_in_who_takes_gets_out_to_who_pushes(anyio_backend: str, at: int) -> None:
    """Wherever it was called from; and the connection is closed."""
    calls = []

    def take(chunk: bytes) -> bool:
        calls.append(chunk)
        if len(calls) == at:
            raise ZeroDivisionError("a bug")
        return True

    async def room() -> None:
        pass

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        while True:
            writer.write(b"5\r\nhello\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    of = FastTransport(httpx.create_ssl_context())
    async with server(answer) as url, httpx.AsyncClient(transport=of) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.stream("GET", url) as response:
                await response.extensions[ARRIVING].push(take, room)
        assert len(calls) == at
        assert not of._open or not connected_to(url)
