"""Pushes of `FastTransport`: chunks are taken where they arrive, and reading stops when the room is full."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from sse_bridge.upstream import transport
from sse_bridge.upstream.bodies import ARRIVING
from sse_bridge.upstream.transport import FastTransport
from tests.upstream.raw import CASES, CHUNKED, HEAD, connected_to, outcome, says, server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.usefixtures("parser"),
]


async def pushed(url: str, room_for: int = 10**9) -> tuple[list[bytes], list[int]]:
    """The chunks of a push, and how many had been taken at each wait for room."""
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
async def test_a_push_hands_over_what_a_read_would_return(anyio_backend: str, name: str, room_for: int) -> None:
    """The chunks come in order and to the end, and wait until there is room."""
    async with server(says(*CASES[name])) as url:
        _, body, _ = await outcome(FastTransport(httpx.create_ssl_context()), url)
        chunks, waits = await pushed(url, room_for)

    assert b"".join(chunks) == body
    assert waits == [number for number in range(1, len(chunks) + 1) if number % room_for == 0]


async def test_a_push_takes_chunks_in_the_callback_that_brings_them(anyio_backend: str) -> None:
    """Only the first chunk, which came with the head, is taken in the task."""
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
async def test_a_push_raises_the_error_that_a_read_would(anyio_backend: str, name: str) -> None:
    """A body that breaks off is an error."""
    async with server(says(*CASES[name])) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            await pushed(url)


@pytest.mark.parametrize("at", [1, 2])
async def test_an_error_of_take_reaches_the_caller_of_push(anyio_backend: str, at: int) -> None:
    """The first chunk is taken in the task, the second in a callback, which closes the connection at once."""
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
        async with client.stream("GET", url) as response:
            with pytest.raises(ZeroDivisionError):
                await response.extensions[ARRIVING].push(take, room)
            await asyncio.sleep(0)  # asyncio tells the transport in its next round
            assert of.open_connections == (1 if at == 1 else 0)
        assert of.open_connections == 0
        assert connected_to(url) == 0
    assert len(calls) == at


async def test_leaving_a_paused_connection_closes_it_at_once(anyio_backend: str) -> None:
    """While the reader is busy, the socket is left alone and the server has to wait. Leaving ends that wait."""
    is_stuck, left = asyncio.Event(), asyncio.Event()
    written = 0

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"\r\n")
        try:
            while not is_stuck.is_set():
                writer.write(b"x" * 65536)
                written += 65536
                try:
                    await asyncio.wait_for(writer.drain(), 0.3)
                except TimeoutError:
                    is_stuck.set()
            await writer.drain()
        except ConnectionError:
            left.set()

    async with server(floods) as url:
        client = httpx.AsyncClient(transport=FastTransport(httpx.create_ssl_context()), timeout=None)
        async with client.stream("GET", url):
            await asyncio.wait_for(is_stuck.wait(), 10)
            assert written < 2**25  # what the kernel's buffers hold, and a little more
        await asyncio.wait_for(left.wait(), 5)


async def test_everything_that_arrived_since_the_last_read_is_one_chunk(anyio_backend: str) -> None:
    """20 MB reach a reader that pauses now and then: every byte arrives, in few wake-ups and bounded memory."""
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
    assert max(sizes) <= transport.HIGH_WATER + 256 * 1024
    assert len(sizes) < 2000
