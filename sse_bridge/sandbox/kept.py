"""The last output of a process that no request waits for, and how readers follow it.

Independent of HTTP. Any number of readers follow one output, each at its own pace: none holds the process back.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import anyio

__all__ = ["MAX_KEPT", "KeptOutput", "Piece"]

#: Bytes that are kept of a process, stdout and stderr together. MIOSA documents no limit; this is our choice.
MAX_KEPT: Final = 1024 * 1024

#: Bytes up to which pieces of one stream are joined. So a program that prints byte by byte takes no object for each.
_MAX_SEGMENT: Final = 16 * 1024
#: Segments that are kept of a program that prints to both streams in turn.
_MAX_SEGMENTS: Final = 4096


class Piece(NamedTuple):
    """Part of an output."""

    #: `stdout` or `stderr`.
    stream: str
    data: bytes
    #: Where it ends, in bytes since the start of the process. The next piece begins there.
    end: int


class _Segment:
    def __init__(self, stream: str, start: int) -> None:
        self.stream = stream
        self.start = start
        self.data = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class KeptOutput:
    """What a process printed last, in the order in which it was read.

    Beyond the limit the oldest output is dropped, so the first line kept may lack its beginning. A reader that falls
    behind by more than the limit misses what was dropped.

    Args:
        limit: bytes to keep.
    """

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self._limit = limit
        self._segments: deque[_Segment] = deque()
        self._is_closed = False
        self._news = anyio.Event()

    def add(self, stream: str, data: bytes) -> None:
        """Keeps what was read from a stream, and wakes the readers."""
        last = self._segments[-1] if self._segments else None
        if last is None or last.stream != stream or len(last.data) + len(data) > _MAX_SEGMENT:
            last = _Segment(stream, last.end if last else 0)
            self._segments.append(last)
        last.data += data
        while len(self._segments) > 1 and self._is_over_limit(last.end):
            self._segments.popleft()
        self._wake()

    def close(self) -> None:
        """Says that there is no more output: readers that have all of it end."""
        self._is_closed = True
        self._wake()

    async def next(self, position: int) -> Piece | None:
        """The oldest output that is kept from `position` on, as soon as there is some. `None` at the end of all output.

        Args:
            position: 0 for the beginning, else the `end` of the piece before.
        """
        while (piece := self._from(position)) is None and not self._is_closed:
            await self._news.wait()
        return piece

    def text(self, lines: int) -> str:
        """The last lines, stdout and stderr as a terminal would show them. Invalid UTF-8 becomes U+FFFD."""
        text = b"".join(segment.data for segment in self._segments).decode("utf-8", "replace")
        return "\n".join(text.removesuffix("\n").split("\n")[-lines:]) + ("\n" if text.endswith("\n") else "")

    def _is_over_limit(self, end: int) -> bool:
        return end - self._segments[0].start > self._limit or len(self._segments) > _MAX_SEGMENTS

    def _from(self, position: int) -> Piece | None:
        found = None
        for segment in reversed(self._segments):
            if segment.end <= position:
                break
            found = segment
        if found is None:
            return None
        return Piece(found.stream, bytes(found.data[max(0, position - found.start) :]), found.end)

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()
