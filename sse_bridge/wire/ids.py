"""Ids: the `<run>.<number>` on frames, written and read. Only this module knows their form.

This is also where mapped texts become frames, once for every frame of every run. The bulk path executes bytecode per
thousand frames. Measured, ns a frame for 660 frames of 91 bytes: interleaving slices of a table of ready number lines
20, `map(add, table, frames)` 38, formatting each number 100.
"""

from __future__ import annotations

import re
import secrets
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = [
    "ID_LINE",
    "FrameIds",
    "Parts",
    "Place",
    "gone",
    "is_token",
    "new_token",
    "read_place",
    "without_ids",
]

#: Pattern of the line that `FrameIds` writes, or of its absence. It stands first in a frame.
ID_LINE: Final = rb"(?:id: [^\n]*\n)?"

#: Random bytes in a run's token: 96 bits, 16 characters.
_TOKEN_BYTES: Final = 12
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16}")
_EVENT_ID: Final = re.compile(r"([A-Za-z0-9_-]{16})\.(?:(gone)|([0-9]{1,18})|.*)", re.DOTALL)
_ANY_ID_LINE: Final = re.compile(rb"^id(?::[^\n]*)?\n", re.MULTILINE)
#: Frames that no run has.
_BEYOND: Final = 10**18
#: Numbers whose last digits share a table.
_TABLE_SIZE: Final = 1000


class Place(NamedTuple):
    """A viewer's place in a run."""

    #: The run.
    token: str
    #: The frame that the viewer saw last; 0 before the first. `None` if the viewer was told that there is no such run.
    number: int | None


def new_token() -> str:
    """The token of a new run. Guessing it is as hard as guessing a 96-bit key."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Whether `text` has the form of a run's token."""
    return _TOKEN.fullmatch(text) is not None


def gone(token: str, frame: bytes) -> bytes:
    """A frame that tells a viewer why it cannot follow a run. A browser comes back with its id once.

    Args:
        frame: its lines, without id and blank line.
    """
    return b"id: %b.gone\n%b\n\n" % (token.encode(), frame)


def read_place(event_id: str) -> Place | None:
    """Reads an event id; `None` if it has another form.

    An id of ours that was garbled behind its token is a place that no run reaches.
    """
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        return None
    return Place(match[1], None if match[2] else int(match[3] or _BEYOND))


def without_ids(frames: bytes) -> bytes:
    """Removes every `id` line, the upstream's own included. A frame that held only ids becomes a line feed."""
    return _ANY_ID_LINE.sub(b"", frames) if b"id" in frames else frames


#: Mapped frames before they are numbered: texts, how many frames they are, head and tail. Each frame is `head + text +
#: tail`; only without ids may one text hold several. There are few different heads, since a head keys a table of ready
#: lines, and a tail ends with a blank line. One is made for every chunk: a tuple costs 30 ns, a `NamedTuple` 220.
Parts = tuple[list[bytes], int, bytes, bytes]


class FrameIds:
    """Puts the ids of one run on frames. It is stateless: the caller counts.

    Args:
        token: the run's token, which every id contains. `None` leaves frames without `id` lines.
    """

    __slots__ = ("prefix",)

    def __init__(self, token: str | None) -> None:
        #: Of each `id` line, up to the number; `None` if frames have none.
        self.prefix = None if token is None else f"id: {token}.".encode()

    @property
    def visible(self) -> bool:
        """Whether frames get an `id` line."""
        return self.prefix is not None

    def line(self, number: int) -> bytes:
        """The `id` line of a frame; empty if `visible` is false."""
        return b"" if self.prefix is None else b"%b%d\n" % (self.prefix, number)

    def at(self, number: int, frame: bytes) -> bytes:
        """A frame under a number that the run has used already.

        Args:
            frame: its lines between the id and the blank line.
        """
        return b"%b%b\n\n" % (self.line(number), frame)

    def number(self, parts: Parts, first: int) -> bytes:
        """Makes frames of `parts` and numbers them from `first` on."""
        texts, _, head, tail = parts
        prefix = self.prefix
        if len(texts) == 1:
            text = texts[0]
            return head + text + tail if prefix is None else b"%b%d\n%b%b%b" % (prefix, first, head, text, tail)
        if not texts:
            return b""
        if prefix is None:
            return head + (tail + head).join(texts) + tail
        return _interleave(prefix, first, texts, head, tail)


def _interleave(prefix: bytes, first: int, texts: list[bytes], head: bytes, tail: bytes) -> bytes:
    """Joins triples: `tail` of the frame before, prefix and thousands; last digits and `head`; text."""
    pieces = [tail] * (3 * len(texts) + 1)
    pieces[2::3] = texts
    taken = 0
    while taken < len(texts):
        thousand, start = divmod(first + taken, _TABLE_SIZE)
        stop = min(_TABLE_SIZE, start + len(texts) - taken)
        end = taken + stop - start
        pieces[3 * taken : 3 * end : 3] = [tail + prefix + (b"%d" % thousand if thousand else b"")] * (end - taken)
        pieces[3 * taken + 1 : 3 * end : 3] = _endings(head, "03d" if thousand else "d")[start:stop]
        taken = end
    pieces[0] = pieces[0].removeprefix(tail)
    return b"".join(pieces)


@lru_cache(maxsize=16)
def _endings(head: bytes, digits: str) -> list[bytes]:
    """The last three digits of each number in a thousand, the line's end, and `head`."""
    return [format(number, digits).encode() + b"\n" + head for number in range(_TABLE_SIZE)]
