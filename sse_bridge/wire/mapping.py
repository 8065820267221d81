"""Mappers: one run's upstream frames become a page's frames, to be numbered later.

The contract of every mapper, stated once:

* `map` takes whole frames (what `FrameSplitter.feed` returned) and accepts any content. While `heads` has entries,
  plain frames may go through `plain.map_plain` instead, which says the same (a property test).
* A mapper belongs to one run. It may hold back the beginnings of lines (`unfinished` says how much). `due` says until
  when, and `flush` hands them over as they are. Time is the caller's.
* After the terminal frame `finished` is true, and `map`, `flush`, `discarded` and `fail` return zero frames.
* `discarded` stands in for a frame that was too large. An ending is never lost to its size.
* `fail` says what only the bridge can know, in dialects that have frames of their own. It is given the lines of a last
  frame that the upstream left unfinished. `finish` ends a stream that may end without more words.
* `ending` is what the frames so far say of the end: an `Exit`, which means that the work itself has ended, a
  `Failure`, or `None`. `close` frees what is held back and keeps `ending` and `finished`; it is the last call.

What an object means is the business of `shapes`; how a frame is spelled comes from a dialect. Numbering comes
afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple, Protocol

from .events import Event, comment, encode, parse_frame
from .frames import canonical, count_alike, split
from .ids import Parts, without_ids
from .objects import Body, without, write_json, write_texts
from .plain import UPSTREAM_HEADS, map_plain_frame
from .shapes import EVENT_STREAM, OUTPUTS, Exit, Failure, Output, Shape, brief, read

__all__ = ["LineMapper", "Mapper", "Spelling", "VerbatimMapper"]

#: Characters of an unfinished line that are held back; then they go out as they are. Precedent: Go's line scanner.
MAX_UNFINISHED: Final = 64 * 1024
#: Streams whose unfinished lines are held back. There are two, unless an upstream has names of its own.
_MAX_STREAMS: Final = 8

#: Bytes of frames that are worth a look at how they begin and end.
_LARGE: Final = 2048
_NO_HEADS: Final[Mapping[bytes, bytes]] = {}
#: The beginning of a field `data`, with a value or without one.
_DATA: Final = re.compile(rb"(?:^|\n)data[:\n]")


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
        return _parts(mapped)

    def due(self, at: float) -> float:
        """When the next unfinished line is to be shown. Those that have begun since the last call are due at `at`."""
        for held in self._held.values():
            held.due = min(held.due, at)
        return min((held.due for held in self._held.values()), default=inf)

    def flush(self, now: float = inf) -> Parts:
        """The unfinished lines that are due, marked `partial`."""
        return _parts(self._take_held([key for key, held in self._held.items() if held.due <= now]))

    def discarded(self, digest: bytes, size: int) -> Parts:
        """The notice that a frame is missing here, and the ending that it told of."""
        if self.finished:
            return _parts([])
        frames = [*self._take_held(list(self._held)), self._render("gap", {"dropped": 1, "bytes": size})]
        meaning = read(parse_frame(digest), self._shape)
        if isinstance(meaning, Exit | Failure):
            frames += self._end(brief(meaning))
        return _parts(frames)

    def fail(self, code: str, message: str, rest: bytes) -> Parts:
        """The terminal frame of a run that ended before an exit was seen."""
        return _parts([] if self.finished else self._end(Failure({"code": code, "message": message})))

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
        self.heads = _NO_HEADS if self.unfinished or self.finished else self._all_heads


class VerbatimMapper:
    """Hands on the upstream's frames. Unless they get ids, only line ends change.

    A frame that was too large leaves its id, its reconnection time, a comment that counts it and, if it told of an
    ending, that ending.

    With ids, ours replace the upstream's, and frames that held only an id go. Only the end of the stream ends
    the run. Whether the work has ended by then, too, is read off its exit: heartbeats and events of other kinds may
    follow one, while output says that the work goes on.

    Args:
        numbered: whether the frames will get ids.
    """

    __slots__ = ("_ending", "_exit", "_last", "_numbered", "_shape", "_signs")

    heads = _NO_HEADS
    unfinished = 0
    finished = False

    def __init__(self, shape: Shape, *, numbered: bool) -> None:
        self._shape = shape
        self._numbered = numbered
        self._last = b""  # from the last frame that carries data on, or a little earlier
        self._exit: Exit | None = None  # the last one, unless output has followed it
        self._ending: Exit | Failure | None = None
        self._signs = _signs(shape)

    @property
    def ending(self) -> Exit | Failure | None:
        """The exit, or what the last frame that carries data says of the end. Costs a parse until `close`."""
        return self._ending or self._exit or self._last_ending()

    def map(self, frames: bytes) -> Parts:
        """Maps whole frames. In a large chunk, counting them by their beginning saves a look for extra blank lines."""
        is_large = len(frames) > _LARGE
        count = count_alike(frames) if is_large else 0
        if not count and b"\n\n\n" in frames:  # spares a call where there is one frame a chunk
            frames = canonical(frames)
        if _DATA.search(frames) is not None:
            self._last = _from_last_data(frames) if is_large else frames
            self._look_for_exit(frames, are_alike=count > 0)
        if not self._numbered:
            return [frames], count or frames.count(b"\n\n"), b"", b""
        return _parts([frame for part in split(without_ids(frames)) if (frame := part.lstrip(b"\n"))])

    def due(self, at: float) -> float:
        return inf

    def flush(self, now: float = inf) -> Parts:
        return _parts([])

    def discarded(self, digest: bytes, size: int) -> Parts:
        event = parse_frame(digest)
        if event.data is not None:
            self._last = digest + b"\n"
            meaning = read(event, self._shape)
            if isinstance(meaning, Exit):
                self._exit = meaning
            elif self._is_output(event):
                self._exit = None
        lines = comment(gap_text(1, size))[:-1] + encode(self._brief(event))
        return _parts([lines.rstrip(b"\n")])

    def fail(self, code: str, message: str, rest: bytes) -> Parts:
        self._ending = self.ending or Failure({"code": code, "message": message})
        return self.finish(rest)

    def finish(self, rest: bytes) -> Parts:
        """The reconnection time of an unfinished last frame: it counts when its line has ended (9.2.6)."""
        retry = parse_frame(rest).retry
        return _parts([] if retry is None else [b"retry: %d" % retry])

    def close(self) -> None:
        """Settles `ending` and forgets the frames that it was read from."""
        self._ending = self.ending
        self._last = b""

    def _brief(self, event: Event) -> Event:
        """What a browser takes from a frame that was too large, beside the end of the run."""
        meaning = read(event, self._shape)
        last_id = None if self._numbered else event.id
        if not isinstance(meaning, Exit | Failure):
            return Event(id=last_id, retry=event.retry)
        said = brief(meaning).body
        is_exit = isinstance(meaning, Exit)
        body = {"exit_code": said["code"], **without(said, "code")} if is_exit else {"error": said}
        return Event(event.type, write_json(body).decode(), last_id, event.retry)

    def _look_for_exit(self, frames: bytes, *, are_alike: bool) -> None:
        """Only chunks that hold an exit's words are parsed, and those behind an exit: from their end, to output."""
        signs = self._signs
        if are_alike and frames.startswith(signs.heads):
            self._exit = None
        elif self._exit is not None or _holds(frames, signs.words):
            self._exit = self._last_exit(split(frames))

    def _last_exit(self, frames: list[bytes]) -> Exit | None:
        """The exit that stands once these frames have passed. What follows it is parsed only if there is one."""
        words, behind = self._signs.words, len(frames)
        found = self._exit
        for at in range(len(frames) - 1, -1, -1):
            meaning = read(parse_frame(frames[at]), self._shape) if _holds(frames[at], words) else None
            if isinstance(meaning, Exit):
                found = meaning
                break
            if isinstance(meaning, Output) and self._is_output(parse_frame(frames[at])):
                return None
            behind = at
        return None if found and any(self._is_output(parse_frame(frame)) for frame in frames[behind:]) else found

    def _is_output(self, event: Event) -> bool:
        """Whether an event says that the work goes on, although an exit has been seen."""
        return isinstance(read(event, self._signs.behind), Output)

    def _last_ending(self) -> Exit | Failure | None:
        for frame in reversed(split(self._last)):
            event = parse_frame(frame)
            if event.data is not None:
                meaning = read(event, self._shape)
                return meaning if isinstance(meaning, Exit | Failure) else None
        return None


class _Signs(NamedTuple):
    """What tells frames of an exit from others without a parse."""

    #: A frame without any of these is no exit.
    words: tuple[bytes, ...]
    #: How events that are called an output begin.
    heads: tuple[bytes, ...]
    #: How to read what stands behind an exit: words under a name of their own are no output there.
    behind: Shape


@lru_cache
def _signs(shape: Shape) -> _Signs:
    words = {name for name, kind in shape.kinds.items() if kind in ("exit", "timeout")} | {*shape.sure_exit_keys}
    shortest = [word for word in words if not any(other != word and other in word for other in words)]
    outputs = [name for name, kind in shape.kinds.items() if kind in OUTPUTS]
    behind = replace(shape, is_command=False, end_marks=(*shape.end_marks, *EVENT_STREAM.end_marks))
    return _Signs(
        tuple(word.encode() for word in sorted(shortest)),
        tuple(b"event: %b\ndata:" % name.encode() for name in outputs),
        behind,
    )


def _holds(frames: bytes, words: tuple[bytes, ...]) -> bool:
    return any(word in frames for word in words)


def _from_last_data(frames: bytes) -> bytes:
    """The end of frames, from the last one on that carries data.

    A copy, because keeping a whole chunk costs 7 ns for each of its frames: the next one gets memory that is cold.
    """
    at = len(frames)
    while (at := frames.rfind(b"\ndata", 0, at)) >= 0 and frames[at + len(b"\ndata")] not in b":\n":
        pass  # another field, whose name only begins so
    return frames[max(0, frames.rfind(b"\n\n", 0, at + 1)) :]


def _parts(frames: list[bytes]) -> Parts:
    return frames, len(frames), b"", b"\n\n"


def gap_text(dropped: int, size: int | None) -> str:
    """A gap in words, for a comment."""
    return f"gap dropped={dropped}" if size is None else f"gap dropped={dropped} bytes={size}"
