"""Millions of inputs for the C twin, each also given to Python: `scripts/sanitize` runs this with sanitizers.

    python -m tests.fuzz.speedups [--inputs N] [--seed TEXT]

A finding prints the call and both results, and ends the process.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from sse_bridge import _speedups as c
from sse_bridge import speedups
from sse_bridge.wire.dialects import NAMED, TYPED
from sse_bridge.wire.frames import count_alike
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.plain import UPSTREAM_HEADS, map_plain
from sse_bridge.wire.shapes import EXEC
from tests.support import twins

HEADS: Final = [dialect.mapper(EXEC, numbered=True).heads for dialect in (TYPED, NAMED)]
IDS: Final = [FrameIds(None), FrameIds("Zk3vQ0x9bTnWf2Rq")]
BEGINNINGS: Final = list(UPSTREAM_HEADS.values())
#: Plain texts, mostly.
TEXTS: Final = [
    *[b"x", b"epoch 3", b" " * 15, b"y" * 16, b"z" * 17, b"a" * 70, b"\x7f", "é".encode(), "€".encode(), "😀".encode()],
    *[b"\\u001b[1m", b"\\\\", b'\\"', b"\\r", b"\\t", b"\\/", b"\\ud83d", b"", b"\xf4\x8f\xbf\xbf", b"\xed\x9f\xbf"],
]
#: What ends a plain text, or seems to.
ODD: Final = [
    *[b'"', b"\\", b"\n", b"\n\n", b"\\n", b"\\u000a", b"\\u00", b"\\x", b"\x00", b"\x1f", b'"}', b'"}\n', b'"}\n\n'],
    *[
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xff",
    ],
    *[b'event: stdout\ndata: {"line":"', b"event: exit\ndata: 0\n\n", b"event: ", b":", b"data:"],
]
CHUNKS: Final = [
    *[b"1\r\nx\r\n", b"5\r\nhello\r\n", b"0A\r\n0123456789\r\n", b"10\r\n0123456789abcdef\r\n", b"5\r\nhello\r\n" * 3],
    *[
        b"0\r\n\r\n",
        b"5;a\r\n",
        b"5\r\nhell",
        b"5\r\nhelloX",
        b"fffffff\r\n",
        b"ffffffff\r\n",
        b"5\r",
        b"5",
        b"\r\n",
        b"\n",
    ],
    *[b"g", b"00000005\r\nhello\r\n", b"0000005\r\nhello\r\n", b"\x00", b"\xff"],
]


def frames_of(rng: random.Random) -> bytes:
    """One to four frames. Half of all inputs have something odd in them, and some are cut off."""
    made = []
    for _ in range(int(rng.random() * 4) + 1):
        made += [BEGINNINGS[rng.random() < 0.3], *rng.choices(TEXTS, k=int(rng.random() * 4)), b'"}\n\n']
    if rng.random() < 0.5:
        made[int(rng.random() * len(made))] = ODD[int(rng.random() * len(ODD))]
    frames = b"".join(made)
    return frames[: int(rng.random() * len(frames))] if rng.random() < 0.1 else frames


def check_frames(rng: random.Random) -> None:
    frames, heads, ids = frames_of(rng), HEADS[rng.random() < 0.5], IDS[rng.random() < 0.8]
    start = 0 if rng.random() < 0.9 else int(rng.random() * len(frames))
    first = 10 ** int(rng.random() * 19) - int(rng.random() * 2)
    before = frames[: int(rng.random() * 40)] if rng.random() < 0.3 else b""
    call = frames, start, heads, ids.prefix, first, before
    got = c.map_frames(*call)
    expected = None
    if start == 0 and got[2] == len(frames) and b"\n\n\n" not in frames:  # as a whole: Python's own fast path
        parts = map_plain(frames, heads)
        expected = parts and (before + ids.number(parts, first), parts[1], len(frames))
    compare("map_frames", call, got, expected or twins.map_frames(*call))


def check_count(rng: random.Random) -> None:
    frames = frames_of(rng) + b"\n\n"
    compare("count_alike", (frames,), c.count_alike(frames), count_alike(frames))


def check_chunks(rng: random.Random) -> None:
    data = b"".join(rng.choices(CHUNKS, k=int(rng.random() * 5)))
    start = 0 if rng.random() < 0.8 else int(rng.random() * len(data))
    compare("join_chunks", (data, start), c.join_chunks(data, start), twins.join_chunks(data, start))


def compare(name: str, call: tuple[Any, ...], got: object, expected: object) -> None:
    if got != expected:
        sys.exit(f"{name}{call!r}\nC:      {got!r}\nPython: {expected!r}")


#: Most of the code is behind the first.
CHECKS: Final[Sequence[Callable[[random.Random], None]]] = [*[check_frames] * 4, check_count, *[check_chunks] * 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", default="1", help="another seed makes other inputs")
    arguments = parser.parse_args()
    if speedups.IN_USE:
        sys.exit(f"Set {speedups.PURE}=1: otherwise C would be compared with itself.")
    rng, started = random.Random(arguments.seed), time.monotonic()
    for number in range(arguments.inputs):
        CHECKS[number % len(CHECKS)](rng)
    seconds = time.monotonic() - started
    sys.stdout.write(f"{arguments.inputs} inputs, seed {arguments.seed!r}: no difference in {seconds:.0f} s\n")


if __name__ == "__main__":
    main()
