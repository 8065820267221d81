"""Hundreds of thousands of responses of a broken or hostile upstream: their HTTP, their bodies, their refusals."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import anyio
import httpx
import pytest

from sse_bridge.errors import UpstreamError, UpstreamLost
from sse_bridge.upstream import parsing
from sse_bridge.upstream.bodies import UnpackedBody
from sse_bridge.upstream.client import HTTPUpstream
from sse_bridge.upstream.receiving import Incoming
from sse_bridge.upstream.refusals import refusal
from tests.support.mutations import Mutator, cut, inputs
from tests.upstream.raw import says, server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SECRET: Final = "s3cret"
CHUNK: Final = b'event: stdout\ndata: {"line":"a"}\n\n'

RESPONSES = Mutator(
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)) * 3
        + b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(CHUNK), CHUNK),
        b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + CHUNK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b'HTTP/1.1 409 Conflict\r\nContent-Length: 31\r\nRetry-After: 1\r\n\r\n{"error":{"code":"NOT_RUNNING"}}',
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nxyz",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    ],
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"\x00",
            b"\xff",
            b";",
            b"0\r\n\r\n",
            b"\r\n\r\n",
            b"ffffffffffffffff",
        ),
        *(
            b"-1",
            b"1_0",
            b"+5",
            b"0x5",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/2.0 ",
            b"X: y\r\n",
            b" folded\r\n",
            b"a" * 3000,
        ),
        *(
            b"Content-Length: 5\r\n",
            b"Content-Length: 7, 7\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
        ),
        *(b"Transfer-Encoding: gzip, chunked\r\n", b"Upgrade: h2c\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
)


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The parser of the test."""
    if request.param == "h11":
        monkeypatch.setattr(parsing, "httptools", None)
    return str(request.param)


def test_every_response_is_read_or_refused_in_whatever_pieces_it_comes(parser: str) -> None:
    """The one exception is httpx's. Status, headers and body are the same for every cut, and a response that is
    complete stays as it is.
    """
    for rng in inputs(200_000, seconds=120):
        response = RESPONSES.make(rng)
        pieces = cut(rng, response)
        whole, apart = received([response]), received(pieces)
        assert apart.keys() == whole.keys(), (pieces, whole, apart)
        if "refused" not in whole:
            assert apart == whole, (pieces, whole, apart)
            assert "\r" not in repr(whole["headers"]) or parser == "h11"


def received(pieces: list[bytes]) -> dict[str, Any]:
    incoming, body = Incoming(is_head=False), b""
    try:
        for piece in pieces:
            was_complete = incoming.is_complete
            incoming.feed(piece)
            got = incoming.take()
            assert not (was_complete and got)
            body += got
        incoming.end()
    except httpx.RemoteProtocolError:
        return {"refused": True}
    return {
        "status": incoming.status,
        "reason": incoming.reason,
        "headers": incoming.headers,
        "body": body,
        "complete": incoming.is_complete,
    }


ENVELOPES = Mutator(
    [
        b'{"error":{"code":"SANDBOX_NOT_RUNNING","message":"s3cret","retryable":false,"request_id":"req_1"}}',
        b'{"ok":false,"error":{"code":"RATE","message":"s3cret","retry_after_ms":250}}',
        b'{"error":"rate_limited","retry_after":3}',
        b'{"code":429,"message":"s3cret"}',
        b"<html>s3cret</html>",
        b"",
    ],
    [
        b'"',
        b"{",
        b"}",
        b"[" * 500,
        b"NaN",
        b"1e999",
        b"-5",
        b"null",
        b"true",
        b'"request_id":"s3cret \xff"',
        b"\xff",
        b"\\ud800",
    ],
)
HEADERS: Final = [
    "0",
    "1",
    "3.5",
    "-1",
    "1e9",
    "inf",
    "nan",
    "Wed, 21 Oct 2099 07:28:00 GMT",
    "soon",
    "9" * 400,
    "\xb2",
]


def test_every_refusal_becomes_an_error_without_the_upstreams_words() -> None:
    """With a status that viewers may get, and a wait that is a number. The upstream's text stays out."""
    for rng in inputs(150_000, seconds=60):
        status, body = rng.choice([*range(100, 600), 999]), ENVELOPES.make(rng)
        headers = {"retry-after": rng.choice(HEADERS)} if rng.random() < 0.5 else {}
        error = refusal(status, headers, body)
        assert isinstance(error, UpstreamError)
        assert error.status in {204, 404, 409, 410, 422, 500, 502, 503, 504}, (status, body)
        assert error.retry_after is None or 0 <= error.retry_after < 10**12, (status, headers, body)
        assert SECRET not in error.message + error.code, (status, headers, body)
        assert re.fullmatch(r"[!-~]{0,128}", error.request_id or ""), (status, headers, body)


def packed(rng: random.Random) -> bytes:
    text = rng.choice([CHUNK * 5, b": c\n" * 20_000, b"", bytes(300_000)])
    packer = zlib.compressobj(wbits=rng.choice([31, 15, -15]))
    made = packer.compress(text) + packer.flush()
    return made * rng.choice([1, 1, 2])


PACKED = Mutator([packed(random.Random(number)) for number in range(8)], [b"\x00", b"\xff" * 9, b"\x1f\x8b", CHUNK])


class Pushed:
    """A body that is there from the start."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def push(self, take: Any, room: Any) -> None:
        for piece in self._pieces:
            if not take(piece):
                await room()

    async def aclose(self) -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_every_compressed_body_is_unpacked_or_lost(anyio_backend: str) -> None:
    """In parts of 64 KiB at most, whatever a chunk holds, and with one kind of error."""
    for rng in inputs(50_000, seconds=60):
        pieces = cut(rng, PACKED.make(rng))
        has_room = rng.choice([True, False])
        sizes: list[int] = []

        def take(part: bytes, sizes: list[int] = sizes, has_room: bool = has_room) -> bool:
            sizes.append(len(part))
            return has_room

        async def room() -> None: ...

        with suppress(UpstreamLost):
            await UnpackedBody(Pushed(pieces), is_deflate=rng.choice([True, False])).push(take, room)
        assert max(sizes, default=0) <= 64 * 1024


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # our transport's
async def test_every_response_on_a_real_connection_is_a_stream_or_an_error(anyio_backend: str, parser: str) -> None:
    """Our own transport reads all there is, and waits for no more."""
    made: Iterator[random.Random] = inputs(1500, seconds=30)
    answers: list[bytes] = []

    async def answer(reader: Any, writer: Any) -> None:
        await says(*answers)(reader, writer)

    async with server(answer) as url:
        upstream = HTTPUpstream()
        for rng in made:
            answers[:] = cut(rng, RESPONSES.make(rng))[:4]
            chunks: list[bytes] = []

            def take(chunk: bytes, chunks: list[bytes] = chunks) -> bool:
                chunks.append(chunk)
                return True

            async def room() -> None: ...

            with anyio.fail_after(10), suppress(UpstreamError):
                async with upstream.open("GET", url, headers={}) as stream:
                    await stream.push(take, room)
