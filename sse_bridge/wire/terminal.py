"""What a terminal shows of a line in which carriage returns were used, and what it no longer shows.

`settle` leaves out text that a terminal, wide enough for the line, would have overwritten or erased. It keeps
everything else: the rest of a longer text, colours, titles. What this small model of a terminal does not know (tabs,
cursor movements, characters of uncertain width) leaves the line as it is. Standards: ECMA-48, and xterm's control
sequences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from unicodedata import category, east_asian_width

__all__ = ["settle"]

#: Escape sequences, and single controls, that print nothing and move nothing.
_SEQUENCE: Final = re.compile(
    r"\x1b\[(?P<parameters>[0-9:;]*)(?P<final>[mK])"  # colours; erasing in the line
    r"|\x1b\[\?(?:12|25|1004|2004|2026)[hl]"  # the cursor's look, and modes of input and of updates
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles, links
    r"|\x1b[()*+][0-9A-Za-z]"  # character sets
    r"|\x1b[=>]"  # the keypad
    r"|[\x00\x07\x0e\x0f\x7f]"
)
#: Printable characters. Anything below U+0020 that is not a sequence is unknown here.
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
#: Parameters of a colour that begin with a reset: whatever was set before is gone.
_RESET: Final = re.compile(r"0*(?:;.*)?")
#: Erasing from the cursor to the end, and all of the line. Text and the former together leave nothing of older text.
_ERASURES: Final = frozenset({"", "0", "2"})
#: Categories of characters that have no width, or whose width depends on fonts and neighbours.
_UNCERTAIN: Final = frozenset({"Mn", "Me", "Mc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
#: Letters that combine with their neighbours in some terminals: vowels of Hangul, halves of flags, tones of skin.
_JOINS_NEIGHBOURS: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff]")
_COLUMNS: Final = {"W": (2, 2), "F": (2, 2), "A": (1, 2), "Na": (1, 1), "N": (1, 1), "H": (1, 1)}


class _Unknown(Exception):
    """The line holds what this model does not know."""


@dataclass(slots=True)
class _Stretch:
    """What stands between two carriage returns."""

    text: str
    #: Columns of its text, if ambiguous characters have one column, and if they have two.
    width: tuple[int, int] = (0, 0)
    #: It erases to the end of the line, or all of it.
    erases: bool = False
    #: Sequences that go on having an effect when its text is gone.
    sequences: list[str] = field(default_factory=list)


def settle(line: str, *, starts: bool) -> str:
    """A line without the text that later text of the same line replaced.

    Args:
        line: up to its end.
        starts: whether it begins in the first column. The continuation of a line begins somewhere else.
    """
    before, _, last = line.rpartition("\r")
    is_plain = line.isascii() and line.replace("\r", "").isprintable()  # then each character has one column
    if is_plain and starts and last and len(last) >= max(map(len, before.split("\r"))):
        return last  # a plain progress bar: saves three quarters of the time
    text = line.rstrip("\r")
    try:
        stretches = [_read(part) for part in text.split("\r")]
    except _Unknown:
        return line
    return "\r".join(_without_replaced(stretches, starts)) + line[len(text) :]


def _without_replaced(stretches: list[_Stretch], starts: bool) -> list[str]:
    """The stretches of which something is left to see; what goes on having an effect of the others precedes them."""
    visible = _visible(stretches)
    if not starts:  # it stands somewhere, and may be the rest of an escape sequence
        visible[0] = True
    kept: list[str] = []
    sequences: list[str] = []
    for stretch, is_visible in zip(stretches, visible, strict=True):
        if is_visible:
            kept.append("".join(sequences) + stretch.text)
            sequences.clear()
        else:
            for sequence in stretch.sequences:
                _add(sequences, sequence)
    return kept


def _visible(stretches: list[_Stretch]) -> list[bool]:
    """For each stretch, whether a part of it may still be seen in the end.

    Text stays if the line ends blank: a page that is no terminal would have nothing to show of it.
    """
    visible = []
    covered, is_erased = (-1, -1), False
    for one in reversed(stretches):
        is_covered = not one.erases and one.width[0] <= covered[0] and one.width[1] <= covered[1]
        visible.append(not (is_erased or is_covered))
        covered = (max(covered[0], one.width[0]), max(covered[1], one.width[1]))
        is_erased = is_erased or (one.erases and covered[0] > 0)
    return visible[::-1]


def _add(sequences: list[str], sequence: str) -> None:
    """Adds a sequence to those that have an effect. A reset of colours ends the effect of the colours before it."""
    match = _SEQUENCE.fullmatch(sequence)
    if match is not None and match["final"] == "m" and _RESET.fullmatch(match["parameters"]):
        sequences[:] = [one for one in sequences if not one.endswith("m") or one[1] != "["]
    if sequences[-1:] != [sequence]:
        sequences.append(sequence)


def _read(text: str) -> _Stretch:
    stretch = _Stretch(text)
    at = 0
    while at < len(text):
        if printable := _PRINTABLE.match(text, at):
            stretch.width = _sum(stretch.width, _width(printable[0]))
            at = printable.end()
        elif sequence := _SEQUENCE.match(text, at):
            if sequence["final"] == "K":
                if sequence["parameters"] not in _ERASURES:
                    raise _Unknown
                stretch.erases = True
            else:
                stretch.sequences.append(sequence[0])
            at = sequence.end()
        else:
            raise _Unknown
    return stretch


def _width(text: str) -> tuple[int, int]:
    if text.isascii():
        return len(text), len(text)
    width = (0, 0)
    for character in text:
        width = _sum(width, _columns(character))
    return width


@lru_cache(maxsize=1024)
def _columns(character: str) -> tuple[int, int]:
    """Columns of one character: where ambiguous ones have one, and where they have two (Unicode's UAX 11)."""
    if category(character) in _UNCERTAIN or _JOINS_NEIGHBOURS.match(character):
        raise _Unknown
    return _COLUMNS[east_asian_width(character)]


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
