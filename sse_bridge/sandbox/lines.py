"""Whole lines out of an output that is read in pieces of any size. No I/O."""

from __future__ import annotations

from .output import MAX_LINE, boundary

__all__ = ["WholeLines"]


class WholeLines:
    """Keeps the beginning of a line until its end is read.

    Args:
        limit: bytes above which a line is cut, which bounds the memory.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """The lines that this piece completes, with their newlines, or `b""`. A line that is cut has none."""
        end = piece.rfind(b"\n") + 1
        if end:
            lines = bytes(self._rest) + piece[:end]
            self._rest[:] = piece[end:]
            return lines
        self._rest += piece
        return self._take(boundary(self._rest, self._limit)) if len(self._rest) > self._limit else b""

    def finish(self) -> bytes:
        """An unfinished last line, or `b""`."""
        return self._take(len(self._rest))

    def _take(self, end: int) -> bytes:
        lines = bytes(self._rest[:end])
        del self._rest[:end]
        return lines
