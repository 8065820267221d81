"""Mappers: one run's upstream frames become a page's frames, to be numbered later.

The contract of every mapper, stated once:

* `map` takes whole frames (what `FrameSplitter.feed` returned) and accepts any content. While `heads` has entries,
  plain frames may go through `plain.map_plain` instead, which says the same (a property test).
* A mapper belongs to one run. It may hold back the beginnings of lines (`unfinished` says how much). `due` says until
  when, and `flush` hands them over as they are. Time is the caller's.
* After the terminal frame `finished` is true, and `map`, `flush`, `discarded`, `missing` and `fail` return zero frames.
* `missing` says that an unknown part of the output is missing, where a stream that was opened again goes on.
* `discarded` stands in for a frame that was too large. An ending is never lost to its size.
* `fail` says what only the bridge can know, in dialects that have frames of their own. It is given the lines of a last
  frame that the upstream left unfinished. `finish` ends a stream that may end without more words.
* `ending` is what the frames so far say of the end: an `Exit`, which means that the work itself has ended, a
  `Failure`, or `None`. `close` frees what is held back and keeps `ending` and `finished`; it is the last call.

`LineMapper` is for dialects that spell lines; `verbatim` has the mapper that hands frames on. What an object means is
the business of `shapes`; how a frame is spelled comes from a dialect. Numbering comes afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final, Protocol

from .events import parse_frame
from .frames import canonical, split
from .ids import Parts
from .objects import Body, write_texts
from .plain import UPSTREAM_HEADS, map_plain_frame
from .shapes import Exit, Failure, Output, Shape, brief, read

__all__ = ["NO_HEADS", "LineMapper", "Mapper", "Spelling", "framed"]

#: Characters of an unfinished line that are held back; then they go out as they are. Precedent: Go's line scanner.
MAX_UNFINISHED: Final = 64 * 1024
#: Streams whose unfinished lines are held back. There are two, unless an upstream has names of its own.
_MAX_STREAMS: Final = 8
#: For frames that all have to go through `map`.
NO_HEADS: Final[Mapping[bytes, bytes]] = {}


class Mapper(Protocol):
    """See the contract at the head of this module."""

    #: How a plain frame is to begin, by how the upstream begins it. Empty while all frames have to go through `map`.
    heads: Mapping[bytes, bytes]
    #: Characters of unfinished lines that are held back.
    unfinished: int
    #: The terminal frame has passed.
    finished: bool

    @property
    def ending(self) -> Exit | Failure | None: ...

    def map(self, frames: bytes) -> Parts: ...
    def due(self, at: float) -> float: ...
    def flush(self, now: float = inf) -> Parts: ...
    def discarded(self, digest: bytes, size: int) -> Parts: ...
    def missing(self) -> Parts: ...
    def fail(self, code: str, message: str, rest: bytes) -> Parts: ...
    def finish(self, rest: bytes) -> Parts: ...
    def close(self) -> None: ...


class Spelling(Protocol):
    """How a dialect writes a frame."""

    #: How a plain frame is to begin, by how the upstream begins it.
    heads: Mapping[bytes, bytes]

    def render(self, kind: str, body: Body) -> bytes:
        """One frame up to its blank line. `body` has no key called `type`."""
        ...


class _Held:
    """The beginning of a line."""

    __slots__ = ("due", "stream", "text")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.text = ""
        #: When it is to be shown; infinity until `LineMapper.due` gives it a time.
        self.due = inf


class LineMapper:
    """Turns any shape into whole lines and endings, spelled by a dialect."""

    __slots__ = (
        "_all_heads",
        "_held",
        "_render",
        "_shape",
        "ending",
        "finished",
        "heads",
        "unfinished",
    )

    def __init__(self, spelling: Spelling, shape: Shape) -> None:
        self.heads = spelling.heads
        self.unfinished = 0
        self.finished = False
        self.ending: Exit | Failure | None = None
        self._all_heads = spelling.heads
        self._render = spelling.render
        self._shape = shape
        self._held: dict[tuple[str, str], _Held] = {}  # by stream, and the upstream's own name of it

    def map(self, frames: bytes) -> Parts:
        """Maps frames one by one. Plain ones take a shortcut unless the beginning of a line goes before them."""
        mapped: list[bytes] = []
        for frame in split(canonical(frames)):
            if self.finished:
                break
            plain = map_plain_frame(frame, self.heads) if self.heads else None
            if plain is None:
                mapped += self._translate(frame)
            else:
                mapped.append(plain)
        return framed(mapped)

    def due(self, at: float) -> float:
        """When the next unfinished line is to be shown. Those that have begun since the last call are due at `at`."""
        for held in self._held.values():
            held.due = min(held.due, at)
        return min((held.due for held in self._held.values()), default=inf)

    def flush(self, now: float = inf) -> Parts:
        """The unfinished lines that are due, marked `partial`."""
        return framed(self._take_held([key for key, held in self._held.items() if held.due <= now]))

    def discarded(self, digest: bytes, size: int) -> Parts:
        """The notice that a frame is missing here, and the ending that it told of."""
        if self.finished:
            return framed([])
        frames = [*self._take_held(list(self._held)), self._render("gap", {"dropped": 1, "bytes": size})]
        meaning = read(parse_frame(digest), self._shape)
        if isinstance(meaning, Exit | Failure):
            frames += self._end(brief(meaning))
        return framed(frames)

    def missing(self) -> Parts:
        """The unfinished lines, which the new stream does not go on with, and a gap of unknown size."""
        if self.finished:
            return framed([])
        return framed([*self._take_held(list(self._held)), self._render("gap", {"dropped": None})])

    def fail(self, code: str, message: str, rest: bytes) -> Parts:
        """The terminal frame of a run that ended before an exit was seen."""
        return framed([] if self.finished else self._end(Failure({"code": code, "message": message})))

    def finish(self, rest: bytes) -> Parts:
        """The unfinished lines."""
        return self.flush()

    def close(self) -> None:
        """Forgets unfinished lines."""
        self._held.clear()
        self._note_held()

    def _translate(self, frame: bytes) -> list[bytes]:
        """The frames that stand for any one upstream frame."""
        meaning = read(parse_frame(frame), self._shape)
        if meaning is None:
            return []
        if isinstance(meaning, Output):
            return self._print(meaning)
        if isinstance(meaning, Exit | Failure):
            return self._end(meaning)
        return [self._render(meaning.kind, meaning.body)]

    def _print(self, output: Output) -> list[bytes]:
        return self._piece(output) if output.is_piece else self._lines(output)

    def _lines(self, output: Output) -> list[bytes]:
        """Whole lines. What the stream left unfinished goes first."""
        lines = output.text.removesuffix("\n").split("\n")
        frames = self._render_lines(output.stream, lines, output.rest)
        return self._take_held([key for key in self._held if key[0] == output.stream]) + frames

    def _piece(self, output: Output) -> list[bytes]:
        """Cuts text that comes in pieces into lines, and holds back the beginning of the next."""
        key = (output.stream, output.origin)
        held = self._held.pop(key, None) or _Held(output.stream)
        *lines, tail = (held.text + output.text).split("\n")
        frames = self._render_lines(output.stream, lines, output.rest)
        if lines:
            held = _Held(output.stream)
        if tail:
            held.text = tail
            self._held[key] = held
        self._note_held()
        if len(tail) >= MAX_UNFINISHED or len(self._held) > _MAX_STREAMS:
            frames += self._take_held([key] if len(self._held) <= _MAX_STREAMS else list(self._held))
        return frames

    def _render_lines(self, stream: str, lines: list[str], rest: Body) -> list[bytes]:
        """What else the object held stands on its first line: on all of them it would multiply.

        The others are written in one go, since a frame of a mebibyte may hold half a million.
        """
        first = [self._render(stream, {"line": line, **rest}) for line in lines[:1]]
        if len(lines) < 2:
            return first
        head = self._all_heads[UPSTREAM_HEADS[stream.encode()]].removesuffix(b'"')
        return first + [head + text + b"}" for text in write_texts(lines[1:])]

    def _end(self, ending: Exit | Failure) -> list[bytes]:
        """The end, behind all text that came before it."""
        printed = self._print(ending.output) if ending.output else []
        self.finished = True
        self.ending = ending
        kind = "exit" if isinstance(ending, Exit) else "error"
        return [*printed, *self._take_held(list(self._held)), self._render(kind, ending.body)]

    def _take_held(self, keys: list[tuple[str, str]]) -> list[bytes]:
        """The beginnings of lines, of some streams, marked `partial`."""
        taken = [self._held.pop(key) for key in keys]
        self._note_held()
        return [self._render(held.stream, {"line": held.text, "partial": True}) for held in taken]

    def _note_held(self) -> None:
        self.unfinished = sum(len(held.text) for held in self._held.values())
        self.heads = NO_HEADS if self.unfinished or self.finished else self._all_heads


def framed(frames: list[bytes]) -> Parts:
    """Mapped frames, each up to its blank line."""
    return frames, len(frames), b"", b"\n\n"
