"""Dialects: how a page's frames are spelled.

A dialect is a stateless value that every run shares. What a run's frames become is the business of the mapper that a
dialect makes for it. `missed` and `merge` are about frames that the run has already, and take its ids.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Protocol

from .events import comment
from .ids import FrameIds
from .mapping import LineMapper, Mapper
from .merging import Merged, first_frames, merge
from .objects import Body, write_json
from .plain import UPSTREAM_HEADS
from .shapes import Shape
from .verbatim import VerbatimMapper, gap_text

__all__ = ["DIALECTS", "NAMED", "TYPED", "VERBATIM", "Dialect"]

_LINE_END: Final = re.compile(r"[\r\n]")


class Dialect(Protocol):
    """How a page's frames are spelled."""

    #: What `SSEBridge(dialect=...)` calls it.
    name: str
    #: Whether frames get ids unless the application decides.
    ids_by_default: bool
    #: Whether the bridge may add frames of its own (`start`, `retry`, gaps, errors).
    has_own_frames: bool

    def mapper(self, shape: Shape, *, numbered: bool) -> Mapper:
        """A mapper for one run.

        Args:
            shape: how to read the upstream.
            numbered: whether the frames will get ids.
        """
        ...

    def own_frame(self, kind: str, body: Body) -> bytes:
        """A frame of the bridge's own, without id and blank line; empty if `has_own_frames` is false.

        Args:
            kind: such as `start` or `error`.
            body: what it says, as JSON; no key is called `type`.
        """
        ...

    def missed(self, ids: FrameIds, dropped: int, size: int | None, last: int) -> bytes:
        """The notice to one viewer that it misses frames, to stand before whole frames.

        It stands under the number of the last of them, so that a viewer that resumes behind it goes on behind them. A
        dialect without frames of its own has a comment instead.

        Args:
            ids: the run's.
            dropped: how many frames.
            size: their bytes; `None` if that is unknown by now.
            last: the number of the last of them.
        """
        ...

    def merge(self, ids: FrameIds, frames: bytes, first: int, most: int | None) -> Merged:
        """Fewer events that say the same: see `merging.merge`. `frames` are this dialect's own, from `first` on."""
        ...


class _Lines(ABC):
    """What `typed` and `named` share: everything but the spelling."""

    name: str
    heads: Mapping[bytes, bytes]
    ids_by_default = True
    has_own_frames = True

    @abstractmethod
    def render(self, kind: str, body: Body) -> bytes:
        """See `Spelling.render`."""

    def mapper(self, shape: Shape, *, numbered: bool) -> Mapper:
        return LineMapper(self, shape)

    def own_frame(self, kind: str, body: Body) -> bytes:
        return self.render(kind, body)

    def missed(self, ids: FrameIds, dropped: int, size: int | None, last: int) -> bytes:
        body = {"dropped": dropped} if size is None else {"dropped": dropped, "bytes": size}
        return ids.at(last, self.render("gap", body))

    def merge(self, ids: FrameIds, frames: bytes, first: int, most: int | None) -> Merged:
        return merge(frames, self.heads.values(), ids, first, most)


class _Typed(_Lines):
    """Unnamed events, one JSON object each, with its kind under `type`: for `onmessage`."""

    name = "typed"
    heads = {head: b'data: {"type":"%b","line":"' % stream for stream, head in UPSTREAM_HEADS.items()}  # noqa: RUF012

    def render(self, kind: str, body: Body) -> bytes:
        return b"data: " + write_json({"type": kind, **body})


class _Named(_Lines):
    """The kind is the event's name, the rest is its JSON: for `addEventListener("stdout", ...)`.

    A browser's `EventSource` hands the event named `error` to `onerror`. There, `data` tells it from a lost connection.
    """

    name = "named"
    heads = {head: head for head in UPSTREAM_HEADS.values()}  # noqa: RUF012

    def render(self, kind: str, body: Body) -> bytes:
        name = _LINE_END.sub(" ", kind).encode("utf-8", "replace")
        return b"event: %b\ndata: %b" % (name, write_json(body))


class _Verbatim:
    """The upstream's own frames."""

    name = "verbatim"
    ids_by_default = False
    has_own_frames = False

    def mapper(self, shape: Shape, *, numbered: bool) -> Mapper:
        return VerbatimMapper(shape, numbered=numbered)

    def own_frame(self, kind: str, body: Body) -> bytes:
        return b""

    def missed(self, ids: FrameIds, dropped: int, size: int | None, last: int) -> bytes:
        """A single line: some clients deliver an empty event for each block without data."""
        return comment(gap_text(dropped, size))[:-1]

    def merge(self, ids: FrameIds, frames: bytes, first: int, most: int | None) -> Merged:
        return first_frames(frames, most)


TYPED: Final[Dialect] = _Typed()
NAMED: Final[Dialect] = _Named()
VERBATIM: Final[Dialect] = _Verbatim()

#: The dialects by the names that `SSEBridge(dialect=...)` takes.
DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in (TYPED, NAMED, VERBATIM)}
