"""The mapper of `verbatim`: it hands on the upstream's frames, and watches for the end of the work.

The contract is that of every mapper: see `mapping`. Frames go through in one piece. Only those that may tell of an exit
are parsed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple

from .events import Event, comment, encode, parse_frame
from .frames import canonical, count_alike, split
from .ids import Parts, without_ids
from .mapping import NO_HEADS, framed
from .objects import without, write_json
from .shapes import EVENT_STREAM, OUTPUTS, Exit, Failure, Meaning, Output, Shape, brief, read

__all__ = ["VerbatimMapper", "gap_text"]

#: Bytes of frames that are worth a look at how they begin and end.
_LARGE: Final = 2048
#: In a frame of two lines, such as a line of output: theirs, and its blank line.
_LINE_ENDS: Final = 3
#: The beginning of a field `data`, with a value or without one.
_DATA: Final = re.compile(rb"(?:^|\n)data[:\n]")


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

    heads = NO_HEADS
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
        """Maps whole frames.

        The looks at all bytes are spared where the first frame tells enough: in a large chunk whose frames all begin
        alike, and in a lone line of output.
        """
        is_large, are_outputs = len(frames) > _LARGE, frames.startswith(self._signs.heads)
        if is_large:
            count = count_alike(frames)
            are_outputs = are_outputs and count > 0 and frames.count(b"\n", 0, frames.find(b"\n\n")) == 1
        else:
            are_outputs = are_outputs and frames.count(b"\n") == _LINE_ENDS
            count = int(are_outputs)
        if not count and b"\n\n\n" in frames:
            frames = canonical(frames)
        if are_outputs or _DATA.search(frames) is not None:
            self._last = _from_last_data(frames) if is_large else frames
            self._exit = None if are_outputs else self._exit_behind(frames)
        if not self._numbered:
            return [frames], count or frames.count(b"\n\n"), b"", b""
        return framed([frame for part in split(without_ids(frames)) if (frame := part.lstrip(b"\n"))])

    def due(self, at: float) -> float:
        return inf

    def flush(self, now: float = inf) -> Parts:
        return framed([])

    def discarded(self, digest: bytes, size: int) -> Parts:
        event = parse_frame(digest)
        meaning = read(event, self._shape)
        if event.data is not None:
            self._last = digest + b"\n"
            if isinstance(meaning, Exit):
                self._exit = meaning
            elif self._is_output(event):
                self._exit = None
        lines = comment(gap_text(1, size))[:-1] + encode(self._brief(event, meaning))
        return framed([lines.rstrip(b"\n")])

    def missing(self) -> Parts:
        return framed([comment(gap_text(None, None)).rstrip(b"\n")])

    def fail(self, code: str, message: str, rest: bytes) -> Parts:
        self._ending = self.ending or Failure({"code": code, "message": message})
        return self.finish(rest)

    def finish(self, rest: bytes) -> Parts:
        """The reconnection time of an unfinished last frame: it counts when its line has ended (9.2.6)."""
        retry = parse_frame(rest).retry
        return framed([] if retry is None else [b"retry: %d" % retry])

    def close(self) -> None:
        """Settles `ending` and forgets the frames that it was read from."""
        self._ending = self.ending
        self._last = b""

    def _brief(self, event: Event, meaning: Meaning | None) -> Event:
        """What a browser takes from a frame that was too large, beside the end of the run."""
        last_id = None if self._numbered else event.id
        if not isinstance(meaning, Exit | Failure):
            return Event(id=last_id, retry=event.retry)
        said = brief(meaning).body
        is_exit = isinstance(meaning, Exit)
        body = {"exit_code": said["code"], **without(said, "code")} if is_exit else {"error": said}
        return Event(event.type, write_json(body).decode(), last_id, event.retry)

    def _exit_behind(self, frames: bytes) -> Exit | None:
        """The exit that stands once these frames have passed.

        Only chunks that hold an exit's words are parsed, and those behind an exit: from their end, to output.
        """
        is_concerned = self._exit is not None or _holds(frames, self._signs.words)
        return self._last_exit(split(frames)) if is_concerned else None

    def _last_exit(self, frames: list[bytes]) -> Exit | None:
        """See `_exit_behind`. What follows an exit is parsed only if there is one."""
        found, behind = self._exit, frames
        for at in range(len(frames) - 1, -1, -1):
            if not _holds(frames[at], self._signs.words):
                continue
            event = parse_frame(frames[at])
            meaning = read(event, self._shape)
            if isinstance(meaning, Exit):
                found, behind = meaning, frames[at + 1 :]
                break
            if self._is_output(event):
                return None
        return None if found and any(self._is_output(parse_frame(frame)) for frame in behind) else found

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


def gap_text(dropped: int | None, size: int | None) -> str:
    """A gap in words, for a comment. `None` stands for what is unknown."""
    if dropped is None:
        return "gap dropped=unknown"
    return f"gap dropped={dropped}" if size is None else f"gap dropped={dropped} bytes={size}"
