"""Whether the fast paths run in C. The extension is optional: Python says the same, and takes longer.

`IN_USE` and `REASON` are public. The functions are chosen here once, when the package is imported; each is `None` where
Python does the work. See `docs/speedups.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, Protocol

__all__ = [
    "IN_USE",
    "PURE",
    "REASON",
    "CountAlike",
    "JoinChunks",
    "MapFrames",
    "count_alike",
    "join_chunks",
    "map_frames",
]

#: The environment variable that chooses Python if it is set to anything but `0` or an empty text.
PURE: Final = "SSE_BRIDGE_PURE"


class MapFrames(Protocol):
    """Maps and numbers plain frames: what `plain.map_plain` and `FrameIds.number` do together."""

    def __call__(
        self,
        frames: bytes,
        start: int,
        heads: Mapping[bytes, bytes],
        prefix: bytes | None,
        first: int,
        before: bytes,
        /,
    ) -> tuple[bytes, int, int]:
        """Maps up to the first frame that is not plain, or not whole. Blank lines between frames are left out.

        Args:
            frames: a part of an event stream.
            start: where a frame begins.
            heads: how a plain frame is to begin, by how the upstream begins it.
            prefix: of each `id` line, up to the number; `None` leaves frames without.
            first: the number of the first frame, up to 10**18.
            before: what the result begins with, which saves the caller a copy.

        Returns:
            The mapped frames, how many they are, and where the first frame begins that is not plain, or not whole.
        """
        ...


#: What `frames.count_alike` does.
CountAlike = Callable[[bytes], int]


class JoinChunks(Protocol):
    """Joins the bodies of HTTP chunks (RFC 9112 7.1)."""

    def __call__(self, data: bytes, start: int, /) -> tuple[bytes, int, int]:
        """Reads whole chunks that have neither extensions nor eight digits of size.

        Args:
            data: what arrived.
            start: where a chunk begins.

        Returns:
            The bodies, joined; where they end; and, if a chunk begins there whose size is known, how many bytes it
            lacks. Otherwise the last is 0, and what stands there is the beginning of a size, or for a parser.
        """
        ...


map_frames: MapFrames | None = None
count_alike: CountAlike | None = None
join_chunks: JoinChunks | None = None


def _choose() -> str:
    """Sets the functions. Returns `REASON`."""
    global map_frames, count_alike, join_chunks
    if os.environ.get(PURE, "0") not in ("", "0"):
        return f"Python, because {PURE} is set"
    try:
        import sse_bridge._speedups as twin
    except ImportError as error:
        return f"Python, because the extension cannot be imported ({error})"
    map_frames, count_alike, join_chunks = twin.map_frames, twin.count_alike, twin.join_chunks
    return "C"


#: What runs the fast paths, and why it is not C if it is Python.
REASON: Final = _choose()
#: Whether the C twin is in use.
IN_USE: Final = map_frames is not None
