"""The chunks of a body, joined in C before a parser sees them.

A parser written in C still calls into Python for each chunk, and MIOSA sends a chunk for each line. `JoinedChunks`
stands before a parser that has read the head: whole plain chunks go past it, and the parser reads all the rest. It
begins and ends at a chunk, so its answer is the same: what is valid, which errors there are, where the body ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .. import speedups
from .parsing import Parser

__all__ = ["JoinedChunks"]

#: What may become the beginning of a plain chunk when more arrives.
_BEGINNING: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,7}\r?)?")


class JoinedChunks:
    """A parser of a chunked body, behind the interface of the one that has read its head.

    Args:
        parser: stands where the first chunk begins.
        join: `speedups.join_chunks`.
        on_body: called with the bodies.
    """

    __slots__ = ("_beginning", "_join", "_missing", "_on_body", "_parser")

    def __init__(self, parser: Parser, join: speedups.JoinChunks, on_body: Callable[[bytes], object]) -> None:
        self._parser = parser
        self._join: speedups.JoinChunks | None = join  # `None`: the parser reads all from here on
        self._on_body = on_body
        self._beginning = b""  # of a chunk; the parser has not seen it
        self._missing = 0  # bytes that the parser is to get before the next chunk begins

    def feed_data(self, data: bytes) -> None:
        """See `Parser.feed_data`."""
        join, start = self._join, 0
        if join is None:
            return self._parser.feed_data(data)
        if self._missing:
            start = min(self._missing, len(data))
            self._missing -= start
            self._parser.feed_data(data[:start])
            if self._missing:
                return None
        elif self._beginning:
            data = self._beginning + data
            self._beginning = b""
        body, end, self._missing = join(data, start)
        if body:
            self._on_body(body)
        return self._feed_rest(data[end:]) if end < len(data) else None

    def _feed_rest(self, rest: bytes) -> None:
        """Takes what follows the whole chunks: the beginning of one, or something that is for the parser."""
        if not self._missing:
            if _BEGINNING.fullmatch(rest):
                self._beginning = rest
                return None
            self._join = None
        return self._parser.feed_data(rest)

    def get_status_code(self) -> int:
        """See `Parser`."""
        return self._parser.get_status_code()

    def get_http_version(self) -> str:
        """See `Parser`."""
        return self._parser.get_http_version()
