"""Turns what a command prints into frames of `exec/stream`. No I/O, no clock.

A line is one frame, and its text stands under `line`. What is shown of a line before it ends, or of a line that is too
long, is a piece: its text stands under `data`, and a newline ends the line (`docs/miosa.md` §3).

A burst has a million lines, so there is no Python code per line: a piece of output is escaped as a whole, and its
newlines are replaced by the text between two lines of the event stream. Measured for pieces of 64 KiB with lines of
100 bytes, CPython 3.11: 42 ns a line, or 250 where malloc returns the memory to the system after every piece. A
`json.dumps` per line takes 2,000.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Final

__all__ = ["HEARTBEAT", "MAX_LINE", "LineEncoder", "boundary", "exit_frame"]

#: Bytes. A longer line goes out in pieces of this size, which bounds the memory for a command that never prints a
#: newline. MIOSA documents no limit; Go's line scanner gives up at 64 KiB, and a pipe holds that much.
MAX_LINE: Final = 256 * 1024

HEARTBEAT: Final = b": heartbeat\n\n"

_TAIL: Final = b'"}\n\n'
# The backslash comes first, because the other escapes contain one. JSON allows all other characters as they are, U+2028
# among them (RFC 8259, section 7). The `replace` of an absent byte costs one `memchr`.
_ESCAPES: Final = tuple(
    (chr(code).encode(), json.dumps(chr(code))[1:-1].encode()) for code in (0x5C, 0x22, *range(0x20)) if code != 0x0A
)


class LineEncoder:
    """Encodes stdout or stderr of a command, read in pieces of any size.

    Lines end at LF only, so a CR stays in its line. Invalid UTF-8 becomes U+FFFD. Call `feed` with each piece that was
    read, `flush` when an unfinished line has waited long enough, and `finish` once after the last piece.

    Args:
        event: the frames' event name, `stdout` or `stderr`. If it is empty, they have none.
        max_line: bytes above which a line is cut.
    """

    def __init__(self, event: str, max_line: int = MAX_LINE) -> None:
        name = f"event: {event}\n" if event else ""
        self._head = f'{name}data: {{"line":"'.encode()
        self._head_of_piece = f'{name}data: {{"data":"'.encode()
        self._between = _TAIL + self._head
        self._max_line = max_line
        self._rest = bytearray()  # the part of an unfinished line that is still to be sent
        self._has_begun = False  # whether the beginning of that line went out

    @property
    def is_waiting(self) -> bool:
        """Whether part of an unfinished line is still to be sent."""
        return bool(self._rest)

    def feed(self, piece: bytes) -> bytes:
        """The frames of all lines that this piece completes; may be empty."""
        known = len(self._rest)
        self._rest += piece
        frames = b""
        end = self._rest.rfind(b"\n", known)
        if end >= 0:
            frames = self._lines(bytes(self._rest[:end]))
            del self._rest[: end + 1]
        if len(self._rest) > self._max_line:
            frames += self._overflow()
        return frames

    def flush(self) -> bytes:
        """The frame of an unfinished line's text. A character that is still incomplete waits for its other bytes."""
        _, end = codecs.utf_8_decode(self._rest, "replace", False)
        piece = bytes(self._rest[:end])
        del self._rest[:end]
        return self._pieces(piece) if piece else b""

    def finish(self) -> bytes:
        """The frame of an unfinished last line, or `b""`."""
        rest = bytes(self._rest)
        self._rest.clear()
        if not rest:
            return b""
        return self._pieces(rest) if self._has_begun else self._frames(rest)

    def _lines(self, block: bytes) -> bytes:
        """The frames of complete lines, which `block` holds without the last newline."""
        if self._has_begun:
            line, newline, rest = block.partition(b"\n")
            return self._line(line) + (self._lines(rest) if newline else b"")
        if len(block) <= self._max_line:
            return self._frames(block)
        return b"".join(map(self._line, block.split(b"\n")))

    def _line(self, line: bytes) -> bytes:
        """The frames of one complete line, of any length, whose beginning may have gone out."""
        if not self._has_begun and len(line) <= self._max_line:
            return self._frames(line)
        *whole, rest = _cut(line, self._max_line)
        frames = self._pieces(*whole, rest + b"\n")
        self._has_begun = False
        return frames

    def _overflow(self) -> bytes:
        """The frames of a line that is too long before it ends."""
        *whole, rest = _cut(bytes(self._rest), self._max_line)
        self._rest = bytearray(rest)
        return self._pieces(*whole)

    def _frames(self, block: bytes) -> bytes:
        return self._head + _escape(block).replace(b"\n", self._between) + _TAIL

    def _pieces(self, *pieces: bytes) -> bytes:
        self._has_begun = True
        return b"".join(self._head_of_piece + _escape(each).replace(b"\n", b"\\n") + _TAIL for each in pieces)


def exit_frame(exit_code: int, *, timed_out: bool = False) -> bytes:
    """The last frame of a stream."""
    outcome = b',"timed_out":true' if timed_out else b""
    return b'event: exit\ndata: {"exit_code":%d%b}\n\n' % (exit_code, outcome)


def boundary(data: bytes | bytearray, limit: int) -> int:
    """Where to cut `data`, which is longer than `limit`: there, or up to three bytes earlier, between characters."""
    for end in range(limit, max(0, limit - 4), -1):
        if data[end] & 0xC0 != 0x80:  # the first byte of a character
            return end
    return limit


def _cut(line: bytes, limit: int) -> Iterator[bytes]:
    while len(line) > limit:
        end = boundary(line, limit)
        yield line[:end]
        line = line[end:]
    yield line


def _escape(block: bytes) -> bytes:
    """`block` as the inside of a JSON string, except that newlines stay."""
    if not block.isascii():
        block = block.decode("utf-8", "replace").encode()
    for raw, escaped in _ESCAPES:
        block = block.replace(raw, escaped)
    return block
