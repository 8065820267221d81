"""What a run needs to go on with a stream that broke off and was opened again.

An event id says where to go on, if the upstream gives ids. An upstream without ids may repeat what it has kept; these
frames are recognised and left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from .events import parse_frame
from .frames import canonical, split

__all__ = ["MAX_WITHHELD", "Continuity"]

#: Bytes of the last frames by which a repeat is recognised: hundreds of lines.
_ANCHOR: Final = 16 * 1024
#: Bytes that are held back while a repeat is looked for. An upstream that repeats more than this is shown again.
MAX_WITHHELD: Final = 4 * 1024 * 1024
#: Upstreams send comments by the clock, so a repeat has others.
_COMMENTS: Final = re.compile(rb"(?:(?<=\n\n)|\A)(?::[^\n]*\n)+\n")
_ID: Final = b"\nid"
_RETRY: Final = re.compile(rb"(?:^|\n)retry: ?([0-9]{1,9})(?=\n)")


class Continuity:
    """Remembers where a stream is, and recognises what the next one repeats.

    Args:
        keeps_ids: whether the upstream can go on behind an event id.
        keeps_frames: whether it may repeat frames.
        end_marks: texts that say that the stream is over.
    """

    __slots__ = (
        "_carried",
        "_end_marks",
        "_keeps_frames",
        "_keeps_ids",
        "_last",
        "_tail",
        "_withheld",
        "apart",
        "has_news",
        "is_done",
        "last_event_id",
        "retry",
    )

    def __init__(self, *, keeps_ids: bool, keeps_frames: bool, end_marks: Collection[str] = ()) -> None:
        #: The last event id of the upstream's own; empty if it reset it (WHATWG HTML 9.2.6), `None` if it gave none.
        self.last_event_id: str | None = None
        #: Seconds that the upstream asked for between two connections; `None` if it left that open.
        self.retry: float | None = None
        #: Frames that an earlier stream brought before it broke off. `feed` puts them here if the present stream does
        #: not repeat them. The caller shows them, then a gap, then what `feed` returned, and empties this.
        self.apart = b""
        #: The stream has brought data that the one before it had not.
        self.has_news = False
        #: The last event said that the stream is over.
        self.is_done = False
        self._keeps_ids = keeps_ids
        self._keeps_frames = keeps_frames
        self._end_marks = [mark.encode() for mark in end_marks]
        self._tail = bytearray()  # the last frames, without comments; from `_ANCHOR` on they may begin within a frame
        self._last = b""  # the last frame of the tail, while a repeat is looked for
        self._withheld: bytearray | None = None  # what may be repeats meanwhile
        self._carried = b""  # the same of the stream before, if that broke off meanwhile

    @property
    def withheld(self) -> int:
        """Bytes of frames that may be repeats, and wait for more."""
        return len(self._pending)

    @property
    def is_ahead(self) -> bool:
        """Whether an earlier stream brought these frames, and the present one has not repeated all of them yet."""
        return len(self._carried) > len(self._withheld or b"")

    def begin(self, *, exactly: bool) -> None:
        """Another stream begins. Unless it goes on exactly, it may repeat frames, the last ones among them."""
        self.has_news = False
        if exactly:
            return
        # What the last stream brought without a repeat: this one begins with it, or it was not a repeat.
        self._carried = bytes(self._pending)
        self._seek()

    def feed(self, frames: bytes) -> bytes:
        """Takes whole frames, and returns those to go on with, perhaps zero. See also `apart`."""
        if self._withheld is not None:
            return self._sought(self._withheld, frames)
        self._note(frames)
        return frames

    def release(self) -> bytes:
        """Ends the search: returns what was held back, which was not a repeat."""
        frames = bytes(self._pending)
        self._carried, self._withheld = b"", None
        self._note(frames)
        return frames

    def skip(self, digest: bytes) -> None:
        """A frame was too large to be kept. `digest` is what is left of it."""
        self._tail.clear()
        self.has_news = self.has_news or b"data" in digest
        self.note_retry(digest)
        if self._keeps_ids:
            self._note_fields(digest + b"\n")

    def note_retry(self, lines: bytes) -> None:
        """Lines that have ended. Their `retry` counts even where their frame has no end (WHATWG HTML 9.2.6)."""
        if b"retry" in lines and (times := _RETRY.findall(lines)):
            self.retry = int(times[-1]) / 1000

    @property
    def _pending(self) -> bytes | bytearray:
        """What is held back. One of the two is the beginning of the other."""
        return self._carried if self.is_ahead else self._withheld or b""

    def _seek(self) -> None:
        self._withheld = bytearray() if self._tail else None
        self._last = bytes(self._tail[self._tail.rfind(b"\n\n", 0, len(self._tail) - 2) + 1 :].lstrip(b"\n"))

    def _sought(self, withheld: bytearray, frames: bytes) -> bytes:
        """What is no repeat, as far as that is known.

        The first repeat of the last frame counts, if all that precedes it was seen, too. A later one might leave out
        frames that are new.
        """
        known = len(withheld)
        start = max(0, known - len(self._last))
        withheld += _plain(frames)
        if (carried := self._carried) and known < len(carried):  # what is known of both is alike
            if not carried.startswith(withheld[known : len(carried)], known):
                self._carried = b""
                self._note(carried)
                self._seek()
                self.apart = carried
                return self.feed(bytes(withheld))
            if len(withheld) < len(carried):
                return b""
        while (start := withheld.find(self._last, start)) >= 0:
            end = start + len(self._last)
            if self._was_seen(withheld, end):
                self._carried, self._withheld = b"", None
                news = bytes(withheld[end:])
                self._note(news)
                return news
            start += 1
        return self.release() if len(withheld) > MAX_WITHHELD else b""

    def _was_seen(self, withheld: bytearray, end: int) -> bool:
        """Whether the bytes up to `end` are the last frames, as far as these are remembered."""
        tail, before = self._tail, end - len(self._tail)
        if before >= 0:
            return withheld.startswith(tail, before) and (len(tail) >= _ANCHOR or _begins_frame(withheld, before))
        return tail.endswith(withheld[:end]) and _begins_frame(tail, -before)

    def _note(self, frames: bytes) -> None:
        frames = _plain(frames)
        self.has_news = self.has_news or b"data" in frames
        self.note_retry(frames)
        if self._keeps_ids:
            self._note_fields(frames)
        if self._keeps_frames:
            self._tail += frames[-2 * _ANCHOR :]
            if len(self._tail) > 2 * _ANCHOR:
                del self._tail[:-_ANCHOR]

    def _note_fields(self, frames: bytes) -> None:
        last = _last_id(frames)
        if last is not None:
            self.last_event_id = last
        if self.is_done or any(mark in frames for mark in self._end_marks):
            self.is_done = self._says_end(frames)

    def _says_end(self, frames: bytes) -> bool:
        """Whether the last event says that the stream is over."""
        for frame in reversed(split(frames)):
            data = parse_frame(frame).data
            if data is not None:
                return data.strip().encode() in self._end_marks
        return self.is_done


def _plain(frames: bytes) -> bytes:
    """Canonical frames without comments."""
    frames = canonical(frames)
    return _COMMENTS.sub(b"", frames) if frames.startswith(b":") or b"\n\n:" in frames else frames


def _begins_frame(frames: bytearray, at: int) -> bool:
    return at == 0 or frames[at - 2 : at] == b"\n\n"


def _last_id(frames: bytes) -> str | None:
    """The last id that counts; `None` if the frames have none."""
    lines, end = b"\n" + frames, len(frames) + 1
    while (at := lines.rfind(_ID, 0, end)) >= 0:
        found = parse_frame(lines[at + 1 : lines.index(b"\n", at + 1)]).id
        if found is not None:
            return found
        end = at + len(_ID) - 1
    return None
