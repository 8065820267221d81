"""`Lines` over real pipes: one as a container engine multiplexes it, and the two of a program."""

from __future__ import annotations

import struct
import sys
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from sse_bridge import Exit, Lines, SSEBridge
from tests.support.asgi import Page, lines
from tests.support.sandboxes import new_mark, running

pytestmark = pytest.mark.anyio

#: Writes as `docker attach` does: eight bytes of header, stream and length, before each piece, cut anywhere.
MULTIPLEXED = """
import os, struct, sys, time
def write(stream, data):
    os.write(1, struct.pack(">BxxxL", stream, len(data)) + data)
text = "".join(f"zeile {n} \\u00e4\\U0001f600\\n" for n in range(300)).encode()
for at in range(0, len(text), 7):
    write(1, text[at:at + 7])
    if at == 700:
        write(2, b"warn")
        write(2, b"ing\\n")
"""


async def demultiplexed(program: str) -> AsyncGenerator[Any]:
    """What an application writes for a container engine."""
    async with await anyio.open_process([sys.executable, "-c", program], stderr=sys.stderr.fileno()) as process:
        assert process.stdout is not None
        pipe = BufferedByteReceiveStream(process.stdout)
        try:
            while True:
                try:
                    stream, size = struct.unpack(">BxxxL", await pipe.receive_exactly(8))
                except anyio.IncompleteRead:
                    break
                yield ("stdout" if stream == 1 else "stderr", await pipe.receive_exactly(size))
            yield Exit(await process.wait())
        finally:
            if process.returncode is None:
                process.kill()


async def test_a_containers_pipe_becomes_lines_of_its_two_streams(anyio_backend: str) -> None:
    """Characters and lines are cut anywhere, and the streams interrupt one another in the middle of a line."""
    page = Page()
    bridge = SSEBridge(resolve=lambda request: Lines(demultiplexed(MULTIPLEXED), chunks=True))
    with anyio.fail_after(30):
        await bridge(page.scope, page.receive, page.send)

    said = [event["line"] for event in page.objects if event["type"] == "stdout"]
    assert said == [f"zeile {n} ä\U0001f600" for n in range(300)]
    assert [event["line"] for event in page.objects if event["type"] == "stderr"] == ["warning"]
    assert page.objects[-1] == {"type": "exit", "code": 0}


async def test_a_viewer_that_leaves_ends_the_program_behind_the_pipe(anyio_backend: str) -> None:
    """Its `finally` kills it."""
    mark = new_mark()
    program = f"import os, struct, time\nos.write(1, struct.pack('>BxxxL', 1, 3) + b'up\\n')\ntime.sleep({mark})"
    page = Page()
    bridge = SSEBridge(resolve=lambda request: Lines(demultiplexed(program), chunks=True), grace=0)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await page.until(lambda: page.objects)
            assert running(mark)
            page.leave()
        await bridge.shutdown()

    assert lines(page)[0] == "up"
    assert not running(mark)
