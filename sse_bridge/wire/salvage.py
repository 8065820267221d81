"""Salvage: the facts of a JSON object that cannot be read as a whole.

It may be too large to keep, or hold what a browser would refuse: `NaN`, endless nesting, a broken escape. An exit code
counts whatever stands beside it. Objects arrive in pieces of any size, and memory is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from .objects import Body, read_value

__all__ = ["MAX_TEXT", "Salvage", "Salvaged", "salvage"]

#: Bytes that are kept of a text. An error's message fits; the rest is cut off.
MAX_TEXT: Final = 1000
#: Bytes that are kept in all, and what a value costs beside its text. After that, only facts are kept.
_MAX_KEPT: Final = 16 * 1024
_OVERHEAD: Final = 64
#: Members of the object that say that it is an error. What they hold is kept wherever they stand, up to as many bytes.
_ERRORS: Final = frozenset({"error", "errors"})
_MAX_KEPT_OF_ERROR: Final = 4 * 1024
#: Levels of nesting that are kept: `{"errors": [{"message": "..."}]}` has three.
_MAX_DEPTH: Final = 3
#: Entries of a list that are kept: the first error is the one that is told.
_MAX_ENTRIES: Final = 4

_SPACES: Final = re.compile(rb"[ \t\r\n]++")
#: The inside of a string: up to its quote, to a lone backslash at the end, or to the end.
_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SCALAR: Final = re.compile(rb'[^ \t\r\n",:{}\[\]]++')
#: What is skipped: everything but brackets. A string has to be whole.
_SKIPPED: Final = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"|\{\}|\[\])*+', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[{\[]++|[}\]]++")
#: Whole escapes, for a text that was cut.
_WHOLE: Final = re.compile(rb"(?:[^\\]|\\u[0-9a-fA-F]{4}|\\[^u])*+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What could be read of an object. Long texts are cut. Values that JSON lacks are `None`."""

    body: Body
    #: The object ended where the text did.
    is_whole: bool


def salvage(text: str, facts: Collection[str]) -> Salvaged | None:
    """Reads an object as far as it goes; `None` if `text` begins with anything else. See `Salvage`."""
    if not text.lstrip(" \t\r\n").startswith("{"):  # a script's plain lines come here, too
        return None
    reader = Salvage(facts)
    reader.feed(text.encode("utf-8", "replace"))
    return reader.result()


class Salvage:
    """Reads one object that arrives in pieces. Call `feed` for each, and `result` in the end.

    Args:
        facts: keys whose values are kept wherever in the object they stand.
    """

    __slots__ = (
        "_depth",
        "_error_room",
        "_escaped",
        "_facts",
        "_has_more",
        "_key",
        "_open",
        "_room",
        "_root",
        "_scalar",
        "_text",
    )

    def __init__(self, facts: Collection[str]) -> None:
        self._facts = facts
        self._root: Body | None = None
        self._has_more = False  # something stands before or after the object
        self._depth = 0  # containers that are open
        self._open: list[Any] = []  # those of them that are kept, outermost first; deeper ones are skipped
        self._key: str | None = None  # of the member whose value comes next
        self._text: bytearray | None = None  # of the string that has begun
        self._escaped = False  # a backslash came last
        self._scalar = b""  # the number or word that has begun
        self._room = _MAX_KEPT
        self._error_room: int | None = None  # while a member of `_ERRORS` is open

    def feed(self, data: bytes) -> None:
        """Takes the next piece."""
        at = 0
        while at < len(data):
            if self._text is not None:
                at = self._go_on_with(self._text, data, at)
            elif self._depth > len(self._open):
                at = self._skip(data, at)
            else:
                at = self._token(data, at)

    def result(self) -> Salvaged | None:
        """What was read; `None` if there was no object."""
        if self._root is None:
            return None
        self._end_scalar()
        return Salvaged(self._root, not self._depth and not self._has_more)

    # -- steps: each returns where the next one begins

    def _token(self, data: bytes, at: int) -> int:
        if scalar := _SCALAR.match(data, at):
            if self._depth:
                self._scalar = (self._scalar + scalar[0])[: MAX_TEXT + 1]
                return scalar.end()
            return self._end(data)
        self._end_scalar()
        if spaces := _SPACES.match(data, at):
            return spaces.end()
        token = data[at : at + 1]
        if not self._depth and (token != b"{" or self._root is not None or self._has_more):
            return self._end(data)
        if token == b'"':
            self._text = bytearray()
        elif token in b"{[":
            self._begin({} if token == b"{" else [])
        elif token in b"}]":
            self._depth -= 1
            self._open.pop()
            if len(self._open) == 1:
                self._error_room = None
        elif token == b",":
            self._key = None
        return at + 1

    def _end(self, data: bytes) -> int:
        self._has_more = True
        return len(data)

    def _skip(self, data: bytes, at: int) -> int:
        matched = _SKIPPED.match(data, at)
        at = at if matched is None else matched.end()
        brackets = _BRACKETS.match(data, at)
        if brackets is None:
            if at < len(data):  # a string whose end is in the next piece
                self._text = bytearray()
            return at + 1
        count = len(brackets[0])
        if brackets[0][0] in b"{[":
            self._depth += count
        else:
            count = min(count, self._depth - len(self._open))
            self._depth -= count
        return at + count

    def _go_on_with(self, text: bytearray, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._collect(text, data[at : at + 1])
            return at + 1
        matched = _TEXT.match(data, at)
        end = at if matched is None else matched.end()
        self._collect(text, data[at:end])
        if data[end : end + 1] == b"\\":
            self._escaped = True
            self._collect(text, b"\\")
        elif end < len(data):
            self._text = None
            self._add_text(_decoded(bytes(text)))
        return end + 1

    # -- what is kept

    def _collect(self, text: bytearray, piece: bytes) -> None:
        if self._depth == len(self._open):
            text += piece[: MAX_TEXT + 1 - len(text)]

    def _begin(self, container: dict[str, Any] | list[Any]) -> None:
        if not self._depth:
            self._root = {}
            self._open.append(self._root)
        elif self._add(container, 0) and self._depth < _MAX_DEPTH:
            self._open.append(container)
        self._depth += 1

    def _add_text(self, text: str) -> None:
        if self._depth > len(self._open):
            return
        if self._key is None and isinstance(self._open[-1], dict):
            self._key = text
        else:
            self._add(text, len(text))

    def _end_scalar(self) -> None:
        if self._scalar:
            scalar, self._scalar = self._scalar, b""
            self._add(read_value(scalar.decode("utf-8", "replace")) if len(scalar) <= MAX_TEXT else None, 0)

    def _add(self, value: object, size: int) -> bool:
        """Puts a value into the innermost container, if there is room for it."""
        container, key = self._open[-1], self._key
        is_container = isinstance(value, dict | list)
        if container is self._root and key in _ERRORS and is_container:
            self._error_room = _MAX_KEPT_OF_ERROR
        has_room = self._takes(size + _OVERHEAD)
        if isinstance(container, list):
            has_room = has_room and len(container) < _MAX_ENTRIES
            if has_room:
                container.append(value)
            return has_room
        self._key = None
        is_fact = container is self._root and key in self._facts and not is_container
        if key is None or not (has_room or is_fact):
            return False
        container[key] = value
        return True

    def _takes(self, size: int) -> bool:
        if self._error_room is not None:
            self._error_room -= size
            return self._error_room >= 0
        self._room -= size
        return self._room >= 0


def _decoded(raw: bytes) -> str:
    """The text that stands between quotes. A cut one ends in an ellipsis."""
    is_cut = len(raw) > MAX_TEXT
    if is_cut and (whole := _WHOLE.match(raw[:MAX_TEXT])):
        raw = whole[0]
    text = raw.decode("utf-8", "ignore" if is_cut else "replace")
    with suppress(ValueError):  # a broken escape stands for itself
        text = json.loads(f'"{text}"', strict=False)
    return text + "…" if is_cut else text
