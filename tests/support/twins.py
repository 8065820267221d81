"""What the functions of the C twin do, in Python: slow, one frame or chunk at a time, and easy to check by eye."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sse_bridge import speedups
from sse_bridge.wire.frames import split
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.plain import map_plain
from tests.support.skipping import skip

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")


def compiled() -> Any:
    """The extension, also where `SSE_BRIDGE_PURE` is set. Skips the test if there is none."""
    try:
        from sse_bridge import _speedups
    except ImportError:
        skip("the C twin is not compiled")
    return _speedups


def map_frames(
    frames: bytes, start: int, heads: Mapping[bytes, bytes], prefix: bytes | None, first: int, before: bytes, /
) -> tuple[bytes, int, int]:
    """See `speedups.MapFrames`."""
    ids, count = FrameIds(None), 0
    mapped: list[bytes] = []
    ids.prefix = prefix
    while True:
        while frames[start : start + 1] == b"\n":
            start += 1
        end = frames.find(b"\n\n", start) + 2
        parts = map_plain(frames[start:end], heads) if end >= 2 else None
        if parts is None:
            return before + b"".join(mapped), count, start
        mapped.append(ids.number(parts, first + count))
        count, start = count + 1, end


def join_chunks(data: bytes, start: int, /) -> tuple[bytes, int, int]:
    """See `speedups.JoinChunks`."""
    bodies: list[bytes] = []
    while (head := _CHUNK.match(data, start)) is not None:
        end = head.end() + int(head[1], 16)
        missing = end + 2 - len(data)
        is_wrong = missing <= 0 and data[end : end + 2] != b"\r\n"
        if end == head.end() or is_wrong or missing > 0:
            return b"".join(bodies), start, max(0, missing) if end > head.end() else 0
        bodies.append(data[head.end() : end])
        start = end + 2
    return b"".join(bodies), start, 0


def count_alike(frames: bytes) -> int:
    """See `frames.count_alike`."""
    parts = split(frames)
    before, line_end, last = parts[0].rpartition(b"\n")
    name, colon, _ = last.partition(b":")
    start = before + line_end + name + colon
    is_alike = all(part.startswith(start) and part.count(b"\n") == start.count(b"\n") for part in parts)
    return len(parts) if colon and is_alike and b"\n\n\n" not in frames else 0


#: As `speedups` has them.
MODELS: dict[str, Any] = {"map_frames": map_frames, "join_chunks": join_chunks, "count_alike": count_alike}


def use(twin: str, monkeypatch: Any) -> None:
    """Chooses what runs the fast paths of a test.

    Args:
        twin: `C`, `model` for the functions above, or `none` for Python without a twin.
    """
    for name, model in MODELS.items():
        chosen = getattr(compiled(), name) if twin == "C" else model if twin == "model" else None
        monkeypatch.setattr(speedups, name, chosen)
