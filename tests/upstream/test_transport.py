"""`FastTransport` behaves like httpx's own transport, case by case, and closes what it opened."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import httpx
import pytest

from sse_bridge.upstream import parsing, transport
from sse_bridge.upstream.bodies import ARRIVING
from sse_bridge.upstream.receiving import Incoming
from sse_bridge.upstream.transport import FastTransport, is_usable
from tests.upstream.raw import (
    ANOTHER,
    CASES,
    CHUNKED,
    HEAD,
    WHOLE,
    both,
    connected_to,
    never_stops,
    outcome,
    says,
    server,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.usefixtures("parser"),
]


@pytest.mark.parametrize("name", CASES)
async def test_it_behaves_like_httpxs_own_transport(anyio_backend: str, name: str) -> None:
    """Callers see the same status, reason, headers, body and kind of error."""
    async with server(says(*CASES[name])) as url:
        expected, actual = [await outcome(of, url) for of in both()]

    assert expected == actual


@pytest.mark.parametrize("at", range(1, len(WHOLE), 7))
async def test_a_cut_anywhere_changes_nothing(anyio_backend: str, at: int) -> None:
    """Heads, chunk sizes and line ends may arrive in two pieces."""
    async with server(says(WHOLE[:at], WHOLE[at:])) as url:
        _, body, error = await outcome(FastTransport(httpx.create_ssl_context()), url)

    assert (body, error) == (b"hello world", None)


@pytest.mark.parametrize("follows", [b"", b"body", ANOTHER, b"\x00garbage"])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n", b""])
async def test_a_head_request_has_no_body(anyio_backend: str, framing: bytes, follows: bytes) -> None:
    """Its headers may name a length all the same, and a server may send what it should not."""
    async with server(says(HEAD + framing + b"\r\n" + follows)) as url:
        expected, actual = [await outcome(of, url, "HEAD") for of in both()]

    assert expected == actual


@pytest.mark.parametrize(
    "end", [b"Content-Length: 2\r\n\r\nno", b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"]
)
async def test_what_follows_a_response_is_not_looked_at(anyio_backend: str, end: bytes) -> None:
    """The kind of fault: bytes behind a response were parsed as a part of it. A 401 with a 200 behind it was a 200.

    Wherever the segments are cut, the status, the reason and the body are those of the first response.
    """
    first = b"HTTP/1.1 401 No\r\n" + end
    both_responses = first + ANOTHER
    for at in range(len(first) - 4, len(both_responses)):
        async with server(says(both_responses[:at], both_responses[at:])) as url:
            head, body, error = await outcome(FastTransport(httpx.create_ssl_context()), url)
        assert (head[:2], body, error) == ((401, "No"), b"no", None)


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"Content-Length: 2, 2\r\n\r\nok",
        b"X: folded\r\n value\r\nContent-Length: 2\r\n\r\nok",
        b"Content-Length:\r\n 2\r\n\r\nok",
        b"X: 1\nContent-Length: 2\n\nok",
    ],
)
async def test_a_doubtful_framing_is_read_as_httpx_does_or_refused(anyio_backend: str, framing: bytes) -> None:
    """RFC 9112 leaves these to the recipient. h11 takes them, llhttp refuses: neither finds another body."""
    async with server(says(HEAD + framing)) as url:
        expected, actual = [await outcome(of, url) for of in both()]

    assert actual in (expected, httpx.RemoteProtocolError)


@pytest.mark.parametrize(
    "flood", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nX: y\r\n\r\n", b"\r\n", b"X", b"X: y\r\n"]
)
async def test_a_head_that_never_ends_is_refused(anyio_backend: str, flood: bytes) -> None:
    """All informational heads count as one. httpcore takes any number of them."""
    beginning = HEAD if flood == b"X: y\r\n" else b""
    async with server(never_stops(beginning, flood * 1000)) as url:
        assert await outcome(FastTransport(httpx.create_ssl_context()), url) is httpx.RemoteProtocolError


@pytest.mark.parametrize(
    ("beginning", "flood"),
    [
        (b"2;", b"x"),
        (b"2;", b";a=b"),
        (b"0", b"0"),
        (b"0\r\nX: ", b"x"),
        (b"0\r\nX", b"x"),
        (b"0\r\n", b"X: y\r\n"),
    ],
    ids=["extension", "extensions", "size", "trailer", "name of a trailer", "trailers"],
)
async def test_a_body_has_bounds_for_what_is_not_body(anyio_backend: str, beginning: bytes, flood: bytes) -> None:
    """The kind of fault: llhttp keeps, or reads without an end, what stands between the pieces of a body.

    The body that came before is kept, and the error is httpx's.
    """
    async with server(never_stops(CHUNKED + b"2\r\nok\r\n" + beginning, flood * 1000)) as url:
        expected, actual = [await outcome(of, url) for of in both()]

    assert actual[1:] == expected[1:] == (b"ok", httpx.RemoteProtocolError)


async def test_a_connection_is_not_read_behind_its_response(anyio_backend: str) -> None:
    """The server may go on sending for as long as the reader takes to close the connection."""
    of = FastTransport(httpx.create_ssl_context())
    async with server(never_stops(WHOLE, ANOTHER * 1000)) as url:
        response = await of.handle_async_request(httpx.Request("GET", url))
        connection = response.extensions[ARRIVING]
        assert await connection.read() == b"hello world"
        assert await connection.read() == b""
        assert not connection.transport.is_reading()
        await connection.aclose()


async def test_the_server_gets_the_request_that_httpx_would_send(anyio_backend: str) -> None:
    """Method, target, headers and body are the same bytes; only `Connection` differs."""
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
async def test_a_header_cannot_smuggle_in_another(anyio_backend: str, header: dict[str, str]) -> None:
    """A line end in a header fails before the request goes out."""
    async with server(says(HEAD + b"Content-Length: 0\r\n\r\n")) as url:
        outcomes = [await outcome(of, url, headers=header) for of in both()]

    assert outcomes == [httpx.LocalProtocolError] * 2


async def test_a_closed_port_is_a_connect_error(anyio_backend: str) -> None:
    """Both transports say so."""
    async with server(says()) as url:
        pass

    assert [await outcome(of, url) for of in both()] == [httpx.ConnectError] * 2


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/", "ftp://127.0.0.1/"])
async def test_unknown_hosts_and_schemes_are_the_same_errors(anyio_backend: str, url: str) -> None:
    """Both transports raise the same kinds."""
    expected, actual = [await outcome(of, url) for of in both()]

    assert expected == actual


async def test_an_untrusted_certificate_is_a_connect_error(anyio_backend: str, certificates: Any) -> None:
    """The request stays unsent."""
    requests = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read())

    async with server(answer, certificates[0]) as url:
        assert [await outcome(of, url) for of in both()] == [httpx.ConnectError] * 2
    assert not any(requests)


async def test_a_trusted_certificate_gives_the_same_stream(anyio_backend: str, certificates: Any) -> None:
    """TLS changes the connection only."""
    async with server(says(WHOLE), certificates[0]) as url:
        _, body, error = await outcome(FastTransport(certificates[1]), url)

    assert (body, error) == (b"hello world", None)


async def test_a_slow_connection_and_a_slow_answer_are_different_timeouts(anyio_backend: str, monkeypatch: Any) -> None:
    """The first has started nothing, so callers need to tell them apart."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    of = FastTransport(httpx.create_ssl_context())
    async with server(silent) as url:
        with pytest.raises(httpx.ReadTimeout):
            await httpx.AsyncClient(transport=of, timeout=httpx.Timeout(20, read=0.05)).get(url)

    async def never(*args: object, **options: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(transport, "connected", never)
    with pytest.raises(httpx.ConnectTimeout):
        await httpx.AsyncClient(transport=of, timeout=0.05).get("http://127.0.0.1:9/")


async def test_a_body_that_stops_is_a_read_timeout(anyio_backend: str) -> None:
    """This holds for requests with a read timeout. Event streams, which may be silent, go without one."""

    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    async with server(stops) as url, httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context())) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url, timeout=httpx.Timeout(20, read=0.05))


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("after", [*range(24), 30, 40, 60])
async def test_a_request_that_is_cancelled_leaves_nothing_behind(
    anyio_backend: str, after: int, times: int, tls: bool, certificates: Any
) -> None:
    """Wherever the cancellation strikes, once or twice, the socket is closed before the garbage collector runs."""

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
            for _ in range(1000):
                if not of.open_connections and not connected_to(url):
                    break
                await asyncio.sleep(0.01)
            assert of.open_connections == 0
            assert connected_to(url) == 0
    finally:
        gc.enable()


async def test_closing_the_transport_closes_what_is_open(anyio_backend: str) -> None:
    """A reader sees the end of the body."""

    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        await reader.read()

    of = FastTransport(httpx.create_ssl_context())
    async with server(stops) as url:
        response = await of.handle_async_request(httpx.Request("GET", url))
        await of.aclose()
        assert of.open_connections == 0
        assert b"".join([chunk async for chunk in response.stream]) == b""  # type: ignore[union-attr]


async def test_the_parser_is_the_one_that_is_installed(anyio_backend: str, request: pytest.FixtureRequest) -> None:
    """Otherwise these tests would compare llhttp with httpx twice."""
    made = parsing.response_parser(Incoming(is_head=False), is_head=False)

    assert isinstance(made, parsing.H11Parser) == ("h11" in request.node.callspec.id)


async def test_an_unknown_method_is_sent_as_it_is(anyio_backend: str) -> None:
    """The parser of the answer is independent of it."""
    async with server(says(WHOLE)) as url:
        expected, actual = [await outcome(of, url, "X-FOLLOW") for of in both()]

    assert expected == actual


async def test_it_is_for_asyncio(anyio_backend: str) -> None:
    """asyncio's event loop can serve it."""
    assert is_usable()


def test_it_needs_an_event_loop_of_asyncios(anyio_backend: str) -> None:
    """On other loops, such as trio's, httpx's own transport is used."""
    assert not is_usable()
