"""Servers that write exact bytes, the cases of HTTP/1.1 to write, and what a client makes of them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import httpx

from sse_bridge.upstream.transport import FastTransport

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str]:
    """A server that leaves each connection to `answer`."""

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
    """Reads the head of a request, writes the pieces, each in its own segment, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001 if len(pieces) < 50 else 0)

    return answer


def never_stops(beginning: bytes, piece: bytes) -> Answer:
    """Reads the head of a request, and writes until the client leaves."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(beginning)
        while True:
            writer.write(piece)
            await writer.drain()

    return answer


async def outcome(of: httpx.AsyncBaseTransport, url: str, method: str = "GET", **options: Any) -> Any:
    """What a caller sees of one request: head and body of the response, and the kind of error."""
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
    """httpx's transport, and ours."""
    context = httpx.create_ssl_context()
    return [httpx.AsyncHTTPTransport(verify=context), FastTransport(context)]


HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE: Final = CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"

REFUSAL: Final = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
ANOTHER: Final = b"HTTP/1.1 200 Another\r\nContent-Length: 4\r\n\r\nmore"

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
    "a refusal and another response in one segment": (REFUSAL + ANOTHER,),
    "a refusal, then another response": (REFUSAL, ANOTHER),
    "a refusal and half of another response": (REFUSAL + ANOTHER[:20],),
    "a refusal and garbage": (REFUSAL + b"\x00\xff garbage\r\n\r\n",),
    "a chunked response and another in one segment": (WHOLE + ANOTHER,),
    "many responses in one segment": (WHOLE + ANOTHER * 100,),
    "204 and another response": (b"HTTP/1.1 204 No Content\r\n\r\n" + ANOTHER,),
    "204 with a length and a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nmore",),
    "204 with chunks": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmore\r\n0\r\n\r\n",),
    "304 and another response": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n" + ANOTHER,),
    "content-length 0 and another response": (HEAD + b"Content-Length: 0\r\n\r\n" + ANOTHER,),
    "103, a refusal and another response": (b"HTTP/1.1 103 Early Hints\r\n\r\n" + REFUSAL + ANOTHER,),
    "100 with a length": (b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\n" + REFUSAL,),
    "an unknown 1xx": (b"HTTP/1.1 110 X\r\n\r\n" + REFUSAL,),
    "an unknown 1xx with a length": (b"HTTP/1.1 199 X\r\nContent-Length: 4\r\n\r\n" + REFUSAL,),
    "an unknown 1xx with chunks": (b"HTTP/1.1 150 X\r\nTransfer-Encoding: chunked\r\n\r\n" + REFUSAL,),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + ANOTHER,),
    "101 without a protocol": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + ANOTHER,),
    "an upgrade that is no 101": (HEAD + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",),
    "a transfer coding that is not chunked": (HEAD + b"Transfer-Encoding: gzip\r\n\r\nhello",),
    "a transfer coding before chunked": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),
    "a transfer coding after chunked": (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",),
    "identity as a transfer coding": (HEAD + b"Transfer-Encoding: identity\r\n\r\nhello",),
    "chunked twice": (HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n2\r\nok\r\n0\r\n\r\n",),
    "a status below 100": (b"HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok",),
    "a status of 0, and another response": (b"HTTP/1.1 000 X\r\n\r\n" + ANOTHER,),
    "a bare CR in a value": (HEAD + b"X: a\rContent-Length: 2\r\n\r\nok",),
    "NUL in a value": (HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok",),
    "white space before a colon": (HEAD + b"Content-Length : 2\r\n\r\nok",),
    "a signed length": (HEAD + b"Content-Length: +2\r\n\r\nok",),
    "a huge head in one segment": (HEAD + b"X: " + b"x" * 150_000 + b"\r\nContent-Length: 2\r\n\r\nok",),
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


def connections_to(url: str) -> list[int]:
    """The sockets of this process that are connected to the URL's port. The system's list of all connections has them,
    too, but takes long to read after thousands of tests.
    """
    return [fd for fd in map(int, os.listdir("/dev/fd")) if _port_of_peer(fd) == httpx.URL(url).port]


def _port_of_peer(fd: int) -> int | None:
    with suppress(OSError):  # closed since, or not connected
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with socket.socket(fileno=os.dup(fd)) as same:
                if same.family in {socket.AF_INET, socket.AF_INET6}:
                    return int(same.getpeername()[1])
    return None


def connected_to(url: str) -> int:
    """How many sockets of this process are connected to the URL's port."""
    return len(connections_to(url))
