"""Digests: a frame that is too large to keep, in short.

The digest of a frame has its fields as a browser would read them. Its object is what `salvage` makes of it, so an exit
code and an error's message are there, and texts are cut. A digest is made while the frame streams by, in bounded
memory.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from .objects import write_json
from .salvage import MAX_TEXT, Salvage

__all__ = ["Digest"]

#: Bytes of a field's name that are looked at; the longest name that counts has five.
_MAX_NAME: Final = 8
#: Bytes of an id, a name and a reconnection time. Longer ones are left out.
_MAX_VALUE: Final = 256
_SMALL_FIELDS: Final = frozenset({b"event", b"id", b"retry"})
_END_OF_NAME: Final = re.compile(rb"[:\n]")


class Digest:
    """Reads one frame that arrives in pieces. Call `feed` for each, then `frame`.

    Args:
        facts: keys of objects whose values are kept wherever they stand.
    """

    __slots__ = ("_data", "_facts", "_fields", "_name", "_object", "_value")

    def __init__(self, facts: Collection[str]) -> None:
        self._facts = facts
        self._fields: dict[bytes, bytes] = {}  # all but data; their lines have ended
        self._name = b""  # of the field whose line has begun
        self._value: bytearray | None = None  # its value, once its name has ended
        self._data = bytearray()  # the beginning of all data
        self._object: Salvage | None = None  # made by the first line of data

    def feed(self, piece: bytes) -> None:
        """Takes the next piece. Lines end in LF."""
        at = 0
        while at < len(piece):
            value = self._value
            at = self._go_on_with_name(piece, at) if value is None else self._go_on_with(value, piece, at)

    def frame(self) -> bytes:
        """The lines of the digest: `event`, `id`, `retry` and `data`, as far as the frame has them."""
        lines = [b"%b: %b\n" % field for field in self._fields.items()]
        if self._object is not None:
            lines.append(b"data:%b\n" % self._text(self._object).replace(b"\n", b"\ndata:"))
        return b"".join(lines)

    def _text(self, reader: Salvage) -> bytes:
        found = reader.result()
        if found is not None and (found.is_whole or b"event" in self._fields):
            return b" " + write_json(found.body)
        return bytes(self._data)

    # -- steps: each returns where the next one begins

    def _go_on_with_name(self, piece: bytes, at: int) -> int:
        matched = _END_OF_NAME.search(piece, at)
        end = len(piece) if matched is None else matched.start()
        self._name = (self._name + piece[at:end])[:_MAX_NAME]
        if end < len(piece):
            self._value = bytearray()
            if self._name == b"data":
                self._begin_data()
        return end + (piece[end : end + 1] == b":")

    def _go_on_with(self, value: bytearray, piece: bytes, at: int) -> int:
        end = piece.find(b"\n", at)
        part = piece[at:] if end < 0 else piece[at:end]
        if self._name == b"data" and self._object is not None:
            self._collect_data(self._object, part)
        else:
            value += part[: _MAX_VALUE + 2 - len(value)]
        if end < 0:
            return len(piece)
        if self._name in _SMALL_FIELDS:
            self._keep(self._name, bytes(value.removeprefix(b" ")))
        self._name, self._value = b"", None
        return end + 1

    def _begin_data(self) -> None:
        if self._object is None:
            self._object = Salvage(self._facts)
        else:
            self._collect_data(self._object, b"\n")

    def _collect_data(self, reader: Salvage, part: bytes) -> None:
        self._data += part[: MAX_TEXT + 1 - len(self._data)]
        reader.feed(part)

    def _keep(self, name: bytes, value: bytes) -> None:
        is_ignored = (name == b"id" and b"\0" in value) or (name == b"retry" and not value.isdigit())
        if len(value) <= _MAX_VALUE and not is_ignored:
            self._fields[name] = value
