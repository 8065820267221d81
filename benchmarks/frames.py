"""What a frame costs on its way through splitter, dialect, ids and log, beside what people write by hand.

    python -m benchmarks.frames [--repeat N]

One process, no network, CPU time. Every row handles the same 64 KiB chunks of the same stream (or the same stream
with one chunk per frame), the rows take turns, and the median of the turns is shown, so a machine that slows down
slows down all of them. The peer is httpx-sse's decoder with a JSON round trip per line: what the usual
hand-written relay does with each event.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from sse_bridge import speedups
from sse_bridge.flow.log import RunLog
from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.frames import DEFAULT_MAX_FRAME_SIZE, FrameSplitter
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.shapes import EXEC

FRAMES = 20_000
CHUNK = 64 * 1024
RUN = "Zk3vQ0x9bTnWf2Rq"

LINES = [
    f"{number:07d} epoch 3 step {number} loss=0.{number % 997:03d} lr=3e-4 throughput=812/s" for number in range(FRAMES)
]
SINGLE = [f'event: stdout\ndata: {{"line":"{line}"}}\n\n'.encode() for line in LINES]
ESCAPED = [f'event: stdout\ndata: {{"line":"{line} \\"ok\\""}}\n\n'.encode() for line in LINES]
COLOURED = [f'event: stdout\ndata: {{"line":"\\u001b[32m{line}\\u001b[0m"}}\n\n'.encode() for line in LINES]
MIXED = [frame.replace(b"stdout", b"stderr") if n % 10 == 0 else frame for n, frame in enumerate(SINGLE)]
SPACED = [f'data: {{"type": "stdout", "line": "{line}"}}\n\n'.encode() for line in LINES]


def large(frames: list[bytes]) -> list[bytes]:
    stream = b"".join(frames)
    return [stream[start : start + CHUNK] for start in range(0, len(stream), CHUNK)]


def by_hand(chunks: list[bytes]) -> int:
    """httpx-sse's decoder, `json.loads`, `json.dumps`, an f-string: the usual relay, without its sends."""
    lines, decoder, size = SSELineDecoder(), SSEDecoder(), 0
    for chunk in chunks:
        for line in lines.decode(chunk.decode()):
            event = decoder.decode(line)
            if event is not None:
                body = json.dumps({"type": event.event, **json.loads(event.data)})
                size += len(f"data: {body}\n\n".encode())
    return size


def splits(chunks: list[bytes]) -> int:
    """The floor that everything here stands on: `bytes.split(b"\\n\\n")`."""
    return sum(len(chunk.split(b"\n\n")) for chunk in chunks)


def splitter_only(chunks: list[bytes]) -> int:
    splitter = FrameSplitter()
    return sum(len(splitter.feed(chunk)) for chunk in chunks)


def pipeline(dialect: Dialect, run: str | None) -> Pipeline:
    return Pipeline(dialect, EXEC, FrameIds(run), DEFAULT_MAX_FRAME_SIZE)


def mapped(dialect: Dialect, run: str | None) -> Callable[[list[bytes]], int]:
    def work(chunks: list[bytes]) -> int:
        station = pipeline(dialect, run)
        return sum(len(station.feed(chunk)) for chunk in chunks)

    return work


def logged(chunks: list[bytes]) -> int:
    """Split, map, ids, log, and one viewer who takes what is there after each chunk."""
    station, log = pipeline(TYPED, RUN), RunLog()
    cursor, size = log.attach(), 0
    for chunk in chunks:
        frames = station.feed(chunk)
        if frames:
            log.append(frames, station.next)
        size += len(cursor.take(CHUNK))
    return size


ROWS: list[tuple[str, Callable[[list[bytes]], int], list[bytes]]] = [
    ("peer: httpx-sse + json, 64 KiB chunks", by_hand, large(SINGLE)),
    ("peer: httpx-sse + json, chunk per frame", by_hand, SINGLE),
    ('bytes.split(b"\\n\\n")', splits, large(SINGLE)),
    ("split", splitter_only, large(SINGLE)),
    ("split + typed", mapped(TYPED, None), large(SINGLE)),
    ("split + typed + ids", mapped(TYPED, RUN), large(SINGLE)),
    ("split + typed + ids + log + take", logged, large(SINGLE)),
    ("split + named + ids", mapped(NAMED, RUN), large(SINGLE)),
    ("split + verbatim", mapped(VERBATIM, None), large(SINGLE)),
    ("split + verbatim, chunk per frame", mapped(VERBATIM, None), SINGLE),
    ("split + typed + ids, stderr every 10th", mapped(TYPED, RUN), large(MIXED)),
    ("split + typed + ids, escapes", mapped(TYPED, RUN), large(ESCAPED)),
    ("split + typed + ids, colours", mapped(TYPED, RUN), large(COLOURED)),
    ("split + typed + ids, escapes, chunk per frame", mapped(TYPED, RUN), ESCAPED),
    ("split + typed + ids, slow path", mapped(TYPED, RUN), large(SPACED)),
    ("split + typed + ids, chunk per frame", mapped(TYPED, RUN), SINGLE),
    ("split + typed + ids + log + take, chunk per frame", logged, SINGLE),
]


def measure(repeat: int) -> Iterator[tuple[str, float]]:
    """Median CPU nanoseconds a frame, by row; the rows take turns."""
    seen: dict[str, list[float]] = {name: [] for name, _, _ in ROWS}
    for _ in range(repeat):
        for name, work, chunks in ROWS:
            started = time.process_time_ns()
            work(chunks)
            seen[name].append((time.process_time_ns() - started) / FRAMES)
    return ((name, statistics.median(times)) for name, times in seen.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9, help="turns of every row (default 9)")
    rows = dict(measure(parser.parse_args().repeat))
    peer, floor = rows["peer: httpx-sse + json, 64 KiB chunks"], rows['bytes.split(b"\\n\\n")']
    print(f"{FRAMES} frames of {sum(map(len, SINGLE)) / FRAMES:.0f} bytes, median CPU time of the turns\n")
    print(f"{'':50} {'ns/frame':>9} {'x faster':>9} {'x split':>8}")
    for name, cost in rows.items():
        print(f"{name:50} {cost:9.0f} {peer / cost:9.1f} {cost / floor:8.1f}")
    print(f"\nfast paths: {speedups.REASON}")
    for name in ("split + typed + ids", "split + typed + ids, stderr every 10th", "split + typed + ids, escapes"):
        print(f"{name}: {rows[name]:.0f} ns a frame (at most 30, goal 20)")


if __name__ == "__main__":
    main()
