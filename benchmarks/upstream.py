"""An upstream that is never the bottleneck: it sends prepared streams in MIOSA's form.

    python -m benchmarks.upstream --fd N --lines N

It answers `POST /api/v1/sandboxes/{shape}/exec/stream`, for the SDK and `SandboxExec`, and `GET /{shape}`, for other
peers. It answers `exec`, with which the bridge ends a command, at once. Shapes:

* `burst`: one HTTP chunk per frame; `chunks`: 64 KiB each; `crlf`: as `burst`, with CRLF line ends
* `burst-mixed`, `chunks-mixed`: the same with every tenth line on stderr
* `length-N`: as `burst`, but with lines of N characters, and fewer if they are long
* `blocks-N`: the lines of `chunks` N times over
* `paced`: a line every 50 ms that says when it was sent, in nanoseconds of the clock that all processes share; `slow`:
  one every second
* `idle`: one line, then silence

`GET /closings` returns when the latest paced streams were closed, by the same clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

__all__ = ["EXIT", "PACED", "SLOW", "Rhythm", "line"]

EXIT: Final = b'event: exit\ndata: {"exit_code":0}\n\n'

#: It closes every connection, and says so: a client that kept it would send its next request in vain now and then.
_OK: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
_HEAD: Final = _OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST: Final = b"0\r\n\r\n"
_CHUNK: Final = 64 * 1024
#: Lines of a block.
BLOCK: Final = 100_000
#: Characters of a stream of `length-N`, roughly.
_LENGTH_TOTAL: Final = 20_000_000


class Rhythm(NamedTuple):
    """How often the streams of a shape get a line."""

    shape: str
    #: Seconds between two lines of a stream.
    interval: float
    #: Groups of streams. They take turns within the interval, and lines are numbered across them.
    groups: int


PACED: Final = Rhythm("paced", 0.05, 10)
SLOW: Final = Rhythm("slow", 1.0, 1)
#: By shape.
_RHYTHMS: Final = {rhythm.shape: rhythm for rhythm in (PACED, SLOW)}


def line(number: int) -> str:
    """A line as a script prints it: 68 characters, with a number by which clients check order and completeness."""
    return f"{number:07d} epoch 3 step {number % 1000:03d} loss=0.482 lr=3e-4 throughput=812/s ok {number % 7}"


def lines_of(shape: str, lines: int) -> list[str]:
    """The lines of a stream of a shape; a burst has `lines` of them."""
    if not shape.startswith("length-"):
        return [line(number) for number in range(lines)]
    length = int(shape.removeprefix("length-"))
    return [f"{number:07d} ".ljust(length, "x") for number in range(min(lines, max(20, _LENGTH_TOTAL // length)))]


def frame(text: str, stream: bytes = b"stdout") -> bytes:
    """One line as the platform sends it (`docs/miosa.md`, section 3)."""
    return b'event: %b\ndata: {"line":"%b"}\n\n' % (stream, text.encode())


def chunked(data: bytes) -> bytes:
    """One HTTP chunk (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream:
    """Prepared responses, and the connections of paced streams."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._bodies: dict[str, bytes] = {}
        self._closings: deque[int] = deque(maxlen=1000)
        self._groups: dict[str, list[set[asyncio.StreamWriter]]] = {
            shape: [set() for _ in range(rhythm.groups)] for shape, rhythm in _RHYTHMS.items()
        }

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)  # closing with unread data would send a reset
            path = head.split(b" ", 2)[1].decode()
            shape = path.removesuffix("/exec/stream").rpartition("/")[2]
            if path.endswith("/exec"):
                writer.write(_json({"data": {"stdout": "sse-bridge:gone", "stderr": "", "exit_code": 0}}))
            elif path.startswith("/api/") and not path.endswith("/stream"):  # the SDK's first request
                writer.write(_json({"data": {"id": shape, "name": shape, "state": "running"}}))
            elif shape == "closings":
                writer.write(_json({"data": list(self._closings)}))
            elif shape in self._groups:
                await self._pace(reader, writer, min(self._groups[shape], key=len))
            elif shape == "idle":
                writer.write(_HEAD + chunked(frame(line(0))))
                await reader.read()
            elif shape.startswith("blocks-"):
                await self._write_blocks(writer, int(shape.removeprefix("blocks-")))
            else:
                await self._write(writer, self._body(shape))
            await writer.drain()
        writer.close()

    def _body(self, shape: str) -> bytes:
        """A whole response's body, prepared once."""
        if shape not in self._bodies:
            lines = BLOCK if shape == "block" else self._lines
            every = 10 if shape.endswith("-mixed") else lines + 1
            frames = [
                frame(text, b"stderr" if number % every == 0 else b"stdout")
                for number, text in enumerate(lines_of(shape, lines), start=1)
            ]
            if shape != "block":
                frames.append(EXIT)
            if shape == "crlf":
                frames = [one.replace(b"\n", b"\r\n") for one in frames]
            if shape in ("chunks", "chunks-mixed", "block"):
                stream = b"".join(frames)
                frames = [stream[start : start + _CHUNK] for start in range(0, len(stream), _CHUNK)]
            self._bodies[shape] = b"".join(map(chunked, frames))
        return self._bodies[shape]

    async def _write_blocks(self, writer: asyncio.StreamWriter, count: int) -> None:
        writer.write(_HEAD)
        block = self._body("block")
        for _ in range(count):
            for start in range(0, len(block), _CHUNK):
                writer.write(block[start : start + _CHUNK])
                await writer.drain()
        writer.write(chunked(EXIT) + _LAST)

    async def _write(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        writer.write(_HEAD)
        for start in range(0, len(body), _CHUNK):
            writer.write(body[start : start + _CHUNK])
            await writer.drain()
        writer.write(_LAST)

    async def _pace(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, group: set[asyncio.StreamWriter]
    ) -> None:
        """Serves a paced stream until the client leaves. Streams are spread over the interval, as real scripts are."""
        writer.write(_HEAD)
        group.add(writer)
        try:
            while await reader.read(65536):
                pass
        finally:
            self._closings.append(time.monotonic_ns())
            group.discard(writer)

    async def keep_pace(self, rhythm: Rhythm) -> None:
        number, due = 0, time.monotonic()
        groups = self._groups[rhythm.shape]
        while True:
            for writer in groups[number % rhythm.groups]:
                writer.write(
                    chunked(frame(f"{time.monotonic_ns()} {number:07d} loss=0.482 lr=3e-4 throughput=812/s ok"))
                )
            number += 1
            due += rhythm.interval / rhythm.groups
            await asyncio.sleep(due - time.monotonic())


def _json(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    return _OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def serve(listener: socket.socket, lines: int) -> None:
    """Serves until the process ends."""
    upstream = Upstream(lines)
    async with await asyncio.start_server(upstream.answer, sock=listener):
        await asyncio.gather(*map(upstream.keep_pace, _RHYTHMS.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--lines", type=int, required=True, help="lines of a burst")
    arguments = parser.parse_args()
    asyncio.run(serve(socket.socket(fileno=arguments.fd), arguments.lines))


if __name__ == "__main__":
    main()
