"""Merging: consecutive lines of one stream as one event, for viewers that want few.

Works on a dialect's own frames, numbered and canonical. Everything but plain lines (an exit, a gap, a line with more
than its text, a `partial` one) stays as it is, between the same neighbours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from .frames import split
from .ids import ID_LINE, FrameIds
from .objects import write_texts
from .terminal import settle

__all__ = ["Merged", "first_frames", "merge"]

_TAIL: Final = b'"}'
_BLANK_LINE: Final = b"\n\n"
#: What stands between two lines inside a JSON string.
_NEWLINE: Final = b"\\n"
_RETURN: Final = b"\\r"
#: In a frame that is the beginning of a line. Inside a text, quotes would be escaped.
_PARTIAL: Final = b'"partial":true'


class Merged(NamedTuple):
    """The result of merging: the events, and the frames that they stand for."""

    data: bytes
    #: Events in `data`.
    events: int
    #: Frames that these stand for, and their bytes.
    frames: int
    size: int


def first_frames(frames: bytes, most: int | None) -> Merged:
    """The first `most` frames as they are; all of them if it is `None`."""
    count = frames.count(_BLANK_LINE)
    if most is None or count <= most:
        return Merged(frames, count, count, len(frames))
    end = 0
    for _ in range(most):
        end = frames.index(_BLANK_LINE, end) + 2
    return Merged(frames[:end], most, most, end)


def merge(frames: bytes, heads: Iterable[bytes], ids: FrameIds, first: int, most: int | None) -> Merged:
    """The first `most` events that the frames make when consecutive lines of one stream are merged.

    Args:
        frames: whole frames with their ids.
        heads: how a plain line begins, behind its id: one for each stream.
        ids: the run's.
        first: the number of the first frame.
        most: `None` for all.
    """
    if most == 0:
        return Merged(b"", 0, 0, 0)
    return _merge_one_stream(frames, heads, ids, first) or _merge_each(frames, heads, ids, first, most)


# -- the fast path: lines of one stream


def _merge_one_stream(frames: bytes, heads: Iterable[bytes], ids: FrameIds, first: int) -> Merged | None:
    """Splits at everything that stands between two texts.

    If there are as many texts as frames, and each quote in a text is escaped, then the texts are all there is.
    """
    start = len(ids.line(first))
    head = next((head for head in heads if frames.startswith(head, start)), None)
    if head is None or not frames.endswith(_TAIL + _BLANK_LINE):
        return None
    texts = _between(head).split(frames[start + len(head) : -len(_TAIL + _BLANK_LINE)])
    count = len(texts)
    if count != frames.count(_BLANK_LINE):
        return None
    text = _NEWLINE.join(texts)
    if b'"' in (text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text):
        return None
    if _RETURN in text:
        rest = [_settled(text, starts=True) for text in texts[1:]]
        text = _NEWLINE.join([_settled(texts[0], starts=first == 1), *rest])
    return Merged(ids.at(first + count - 1, head + text + _TAIL), 1, count, len(frames))


@lru_cache
def _between(head: bytes) -> re.Pattern[bytes]:
    """The end of one line's frame and the beginning of the next."""
    return re.compile(re.escape(_TAIL + _BLANK_LINE) + ID_LINE + re.escape(head))


# -- any frames


def _merge_each(frames: bytes, heads: Iterable[bytes], ids: FrameIds, first: int, most: int | None) -> Merged:
    line, of_stream = _line(tuple(heads)), _of_stream(tuple(heads))
    events: list[bytes] = []
    texts: list[bytes] = []  # of the stream that `head` begins; they become the next event
    head, number, size = b"", first, 0
    starts: dict[bytes, bool] = {}  # by stream, whether its next frame begins a line

    def close() -> None:
        if texts:
            events.append(ids.at(number - 1, head + _NEWLINE.join(texts) + _TAIL))
            texts.clear()

    for frame in split(frames):
        match = line.fullmatch(frame)
        if match is None or match[1] != head or not texts:
            if len(events) + bool(texts) == most:
                break
            close()
        if match is None:
            events.append(frame + _BLANK_LINE)
            if odd := of_stream.match(frame):
                starts[odd[1]] = _PARTIAL not in frame
        else:
            head = match[1]
            texts.append(_settled(match[2], starts=starts.get(head, first == 1)))
            starts[head] = True
        number += 1
        size += len(frame) + 2
    close()
    return Merged(b"".join(events), len(events), number - first, size)


@lru_cache
def _line(heads: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """A frame that is one plain line."""
    return re.compile(_of_stream(heads).pattern + rb'([^"\\]*+(?:\\.[^"\\]*+)*+)"\}')


@lru_cache
def _of_stream(heads: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """The beginning of a frame that is a line, or a part of one, whatever else it holds."""
    return re.compile(ID_LINE + b"(" + b"|".join(map(re.escape, heads)) + b")")


def _settled(text: bytes, *, starts: bool) -> bytes:
    """The inside of a JSON string, without what a terminal would no longer show. See `terminal.settle`.

    The first line of a batch may continue a line that was shown before, unless it is the first of the run.
    """
    if _RETURN not in text:
        return text
    line = json.loads(b'"%b"' % text)
    settled = settle(line, starts=starts)
    return text if settled == line else write_texts([settled])[0][1:-1]
