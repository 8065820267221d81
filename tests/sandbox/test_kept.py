"""What is kept of a process's output, and how readers follow it: `sse_bridge.sandbox.kept`."""

from __future__ import annotations

import anyio
import pytest

from sse_bridge.sandbox.kept import KeptOutput

pytestmark = pytest.mark.anyio


async def read(output: KeptOutput, position: int = 0) -> list[tuple[str, bytes]]:
    """All pieces from there to the end."""
    pieces = []
    while (piece := await output.next(position)) is not None:
        pieces.append((piece.stream, piece.data))
        position = piece.end
    return pieces


async def test_readers_get_what_is_kept_and_then_what_is_new() -> None:
    """Each at its own pace, until the end."""
    output = KeptOutput()
    output.add("stdout", b"a\n")
    early: list[tuple[str, bytes]] = []

    async def follow() -> None:
        early.extend(await read(output))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        output.add("stdout", b"b\n")
        output.add("stderr", b"c\n")
        await anyio.wait_all_tasks_blocked()
        output.close()

    assert early == [("stdout", b"a\n"), ("stdout", b"b\n"), ("stderr", b"c\n")]
    assert await read(output) == [("stdout", b"a\nb\n"), ("stderr", b"c\n")]
    assert await read(output, 3) == [("stdout", b"\n"), ("stderr", b"c\n")]


async def test_only_the_end_is_kept() -> None:
    """A reader that comes late, or is too slow, misses the beginning."""
    output = KeptOutput(limit=40_000)
    for number in range(100):
        output.add("stdout", b"%999d\n" % number)
    output.close()

    kept = b"".join(data for _, data in await read(output))

    assert 20_000 < len(kept) <= 40_000
    assert kept.endswith(b" 98\n" + b"%999d\n" % 99)
    assert await read(output, 500) == await read(output)


async def test_many_small_pieces_are_bounded_too() -> None:
    """A program that prints single bytes to both streams in turn: the number of objects stays bounded."""
    output = KeptOutput()
    for _ in range(10_000):
        output.add("stdout", b"o")
        output.add("stderr", b"e")
    output.close()

    assert len(await read(output)) == 4096


@pytest.mark.parametrize(
    ("printed", "lines", "text"),
    [
        (b"", 5, ""),
        (b"a\nb\nc\n", 2, "b\nc\n"),
        (b"a\nb\nc", 2, "b\nc"),
        (b"a\n\n", 1, "\n"),
        (b"a\n", 9, "a\n"),
        (b"\xff\n", 1, "\ufffd\n"),
    ],
)
async def test_the_text_is_its_last_lines(printed: bytes, lines: int, text: str) -> None:
    """As `tail` would show them."""
    output = KeptOutput()
    if printed:
        output.add("stdout", printed)

    assert output.text(lines) == text
