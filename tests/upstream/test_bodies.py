"""Bodies of responses: chunks arrive whole, in order and unpacked, and a body that breaks off is an error."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from sse_bridge.errors import UpstreamLost, UpstreamMisbehaved
from sse_bridge.upstream import transport as transport_module
from tests.support.upstreams import Connection, Reader, chunks_of, serve_raw
from tests.upstream.helpers import EVENT, nothing_left_to_the_collector, opened, read

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["ours", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs each test with our own transport and with httpx's. On trio, both runs use httpx's."""
    if request.param == "httpx":
        monkeypatch.setattr(transport_module, "is_usable", lambda: False)


@pytest.mark.parametrize("ending", [b"", b"5\r\nda", b"zz\r\n"])
async def test_a_stream_that_breaks_off_is_lost_but_its_output_is_kept(anyio_backend: str, ending: bytes) -> None:
    """Everything that arrived before the break is handed over first."""

    def stops(connection: Connection) -> None:
        connection.stream()
        connection.chunk(EVENT)
        connection.send(ending)

    reader = Reader()
    with serve_raw(stops) as upstream:
        async with opened(upstream) as stream:
            with pytest.raises(UpstreamLost):
                await stream.push(reader.take, reader.room)
    assert b"".join(reader.chunks).startswith(EVENT)


async def test_a_body_shorter_than_announced_is_lost(anyio_backend: str) -> None:
    """The connection ended before the stream did."""

    def short(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_length="100")
        connection.send(EVENT)

    with serve_raw(short) as upstream, pytest.raises(UpstreamLost):
        await read(upstream)


async def test_a_body_without_a_length_ends_with_its_connection(anyio_backend: str) -> None:
    """HTTP/1.0 servers end a stream that way."""

    def closes(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", connection="close")
        connection.send(EVENT)

    with serve_raw(closes) as upstream:
        assert await read(upstream) == EVENT


async def test_chunks_wait_while_there_is_no_room(anyio_backend: str) -> None:
    """After a `False` of `take`, the next chunk waits for `room`."""
    taken: list[bytes] = []
    waits = 0

    def take(chunk: bytes) -> bool:
        taken.append(chunk)
        return False

    async def room() -> None:
        nonlocal waits
        waits += 1
        before = len(taken)
        await anyio.wait_all_tasks_blocked()
        assert len(taken) == before

    def events(connection: Connection) -> None:
        connection.stream()
        for _ in range(5):
            connection.chunk(EVENT)
        connection.end()

    with serve_raw(events) as upstream:
        async with opened(upstream) as stream:
            await stream.push(take, room)
    assert b"".join(taken) == EVENT * 5
    assert waits == len(taken)


async def test_a_compressed_stream_is_not_held_back(anyio_backend: str) -> None:
    """An event arrives when the server flushes it, long before the stream ends."""

    def gzipped(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_encoding="gzip", transfer_encoding="chunked")
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb") as packer:
            packer.write(EVENT)
            packer.flush()
            connection.chunk(buffer.getvalue())
            connection.wait_until_left()

    reader = Reader()
    with serve_raw(gzipped) as upstream:
        async with opened(upstream) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(stream.push, reader.take, reader.room)
            with anyio.fail_after(5):
                await reader.began.wait()
            tasks.cancel_scope.cancel()
    assert reader.chunks == [EVENT]


async def test_bytes_that_cannot_be_unpacked_are_a_loss(anyio_backend: str) -> None:
    """We cannot know what the server meant."""

    def garbage(connection: Connection) -> None:
        connection.answer(200, b"no gzip at all", content_type="text/event-stream", content_encoding="gzip")

    with serve_raw(garbage) as upstream, nothing_left_to_the_collector(), pytest.raises(UpstreamLost):
        await read(upstream)


async def test_an_unknown_compression_is_not_an_event_stream(anyio_backend: str) -> None:
    """Its bytes would pass for frames."""

    def brotli(connection: Connection) -> None:
        connection.answer(200, b"\x8b\x03", content_type="text/event-stream", content_encoding="br")

    with serve_raw(brotli) as upstream, pytest.raises(UpstreamMisbehaved):
        await read(upstream)


def packed_16_mib(connection: Connection) -> None:
    """Sends 16 MiB in 16 KiB of gzip, and another gzip file behind it."""
    packed = gzip.compress(EVENT + b":" * 2**24) + gzip.compress(b"data: 2\n\n")
    connection.answer(200, packed, content_type="text/event-stream", content_encoding="gzip")


async def test_a_compressed_stream_is_unpacked_in_parts(anyio_backend: str) -> None:
    """Memory stays bounded, and gzip files may follow one another."""
    with serve_raw(packed_16_mib) as upstream:
        async with opened(upstream) as stream:
            parts = await chunks_of(stream)
    assert b"".join(parts) == EVENT + b":" * 2**24 + b"data: 2\n\n"
    assert max(map(len, parts)) == 65536


async def test_the_parts_of_a_compressed_chunk_wait_for_room_too(anyio_backend: str) -> None:
    """A small chunk that unpacks to megabytes stops at a full buffer."""
    most = total = unread = 0

    def take(part: bytes) -> bool:
        nonlocal most, total, unread
        unread += len(part)
        total += len(part)
        most = max(most, unread)
        return unread < 100_000

    async def room() -> None:
        nonlocal unread
        unread = 0

    with serve_raw(packed_16_mib) as upstream:
        async with opened(upstream) as stream:
            await stream.push(take, room)
    assert most < 100_000 + 65536
    assert total == 2**24 + 2 * len(EVENT)


def packed(encoding: str, body: bytes) -> bytes:
    return zlib.compress(body) if encoding == "deflate" else gzip.compress(body)


BOMBS = {
    "comments": packed("gzip", b":\n" * 2**22),
    "one comment": packed("gzip", b":" * 2**23),
    "zeros": packed("gzip", b"\0" * 2**23),
    "events": packed("gzip", EVENT * 2**20),
    "deflated comments": packed("deflate", b":\n" * 2**22),
    "two files": packed("gzip", b":\n" * 2**21) * 2,
    "many tiny files": packed("gzip", b":") * 5000,
    "many empty files": packed("gzip", b"") * 5000 + packed("gzip", EVENT),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_unpacking_leaves_turns_to_other_tasks(anyio_backend: str, bomb: str) -> None:
    """The kind of fault: a compressed chunk was unpacked in one go, while there was room for what came out.

    A run always has room for comments, and 29 KB of gzip hold 29 MB of them. They blocked the event loop for 8.7 s.
    """
    turn = 0
    steps: list[int] = []

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await anyio.lowlevel.checkpoint()

    def take(part: bytes) -> bool:
        steps.append(turn)
        assert len(part) <= 65536
        return True

    def sends(connection: Connection) -> None:
        encoding = "deflate" if "deflated" in bomb else "gzip"
        connection.answer(200, BOMBS[bomb], content_type="text/event-stream", content_encoding=encoding)

    with serve_raw(sends) as upstream:
        async with opened(upstream) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            before = turn
            await stream.push(take, Reader().room)
            tasks.cancel_scope.cancel()
    assert max(Counter(steps).values()) <= 2  # the transport's callback takes one, and the task another
    assert turn - before >= (4000 if "many" in bomb else len(steps) // 2)


async def test_a_deflated_stream_is_unpacked(anyio_backend: str) -> None:
    """We ask for `identity`, but some proxies compress anyway."""

    def deflated(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_encoding="deflate", connection="close")
        connection.send(zlib.compress(EVENT))

    with serve_raw(deflated) as upstream:
        assert await read(upstream) == EVENT


def raw_deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


GZIPPED = gzip.compress(EVENT)
#: The encoding, the body, and how often it holds the event.
WHOLE: dict[str, tuple[str, bytes, int]] = {
    "zeros behind it": ("gzip", GZIPPED + bytes(512), 1),
    "one zero behind it": ("gzip", GZIPPED + b"\0", 1),
    "half a magic number behind it": ("gzip", GZIPPED + b"\x1f", 1),
    "garbage behind it": ("gzip", GZIPPED + b"garbage" * 20_000, 1),
    "a line end behind it": ("x-gzip", GZIPPED + b"\r\n", 1),
    "two files and zeros": ("gzip", GZIPPED * 2 + bytes(9), 2),
    "a file behind zeros": ("gzip", GZIPPED + bytes(9) + GZIPPED, 1),
    "exactly a part": ("gzip", gzip.compress(EVENT * 8192) + bytes(9), 8192),
    "zlib": ("deflate", zlib.compress(EVENT), 1),
    "zlib, without compression": ("deflate", zlib.compress(EVENT, 0), 1),
    "zlib twice": ("deflate", zlib.compress(EVENT) * 2, 2),
    "zlib and zeros": ("deflate", zlib.compress(EVENT) + bytes(9), 1),
    "gzip under deflate": ("deflate", GZIPPED, 1),
    "raw deflate": ("deflate", raw_deflated(EVENT), 1),
    "much raw deflate": ("deflate", raw_deflated(EVENT * 50_000), 50_000),
    "raw deflate and zeros": ("deflate", raw_deflated(EVENT) + bytes(9), 1),
    "no bytes": ("gzip", b"", 0),
}
CUT: dict[str, tuple[str, bytes]] = {
    "gzip without its checksum": ("gzip", GZIPPED[:-8]),
    "gzip without its last byte": ("gzip", GZIPPED[:-1]),
    "gzip's header": ("gzip", GZIPPED[:10]),
    "gzip's first byte": ("gzip", GZIPPED[:1]),
    "a second file": ("gzip", GZIPPED + GZIPPED[:-1]),
    "zlib": ("deflate", zlib.compress(EVENT)[:-1]),
    "raw deflate": ("deflate", raw_deflated(EVENT)[:-1]),
    "a wrong checksum": ("gzip", GZIPPED[:-8] + bytes(8)),
}


def sent(encoding: str, body: bytes, *, in_bytes: bool) -> Callable[[Connection], None]:
    def send(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_encoding=encoding, transfer_encoding="chunked")
        for start in range(0, len(body), 1 if in_bytes else 60_000):
            connection.chunk(body[start : start + (1 if in_bytes else 60_000)])
        connection.end()

    return send


@pytest.mark.parametrize("in_bytes", [False, True])
@pytest.mark.parametrize("name", WHOLE)
async def test_a_compressed_stream_that_is_whole_is_no_loss(anyio_backend: str, name: str, in_bytes: bool) -> None:
    """The kind of fault: what browsers and curl unpack without a complaint was a stream that broke off."""
    encoding, body, events = WHOLE[name]
    with serve_raw(sent(encoding, body, in_bytes=in_bytes and len(body) < 1000)) as upstream:
        assert await read(upstream) == EVENT * events


@pytest.mark.parametrize("in_bytes", [False, True])
@pytest.mark.parametrize("name", CUT)
async def test_a_compressed_stream_that_is_cut_off_is_a_loss(anyio_backend: str, name: str, in_bytes: bool) -> None:
    """The kind of fault: output was missing, and the stream passed for one that had ended."""
    with serve_raw(sent(*CUT[name], in_bytes=in_bytes)) as upstream, pytest.raises(UpstreamLost):
        await read(upstream)
