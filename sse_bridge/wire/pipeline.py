"""The pipeline: one upstream's chunks in, one run's numbered frames out.

It cuts chunks into frames, maps these and numbers what comes out, in one straight line. Viewers, log and time are the
caller's: it decides, for one, when a line has waited long enough to be flushed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import inf

from .. import speedups
from .continuity import Continuity
from .dialects import Dialect
from .frames import Discard, FrameSplitter
from .ids import FrameIds, Parts
from .plain import map_plain
from .shapes import Exit, Failure, Shape, facts

__all__ = ["Pipeline"]


class Pipeline:
    """Everything that happens to a chunk before it is kept.

    Call `feed` for each chunk, `flush` when unfinished lines are `due`, `fail` when the upstream ended before a
    terminal frame, and `close` in the end. After `close`, only the attributes are of use. For an upstream whose stream
    can be opened again, call `release` where it has ended, `interrupt` where it broke off, and `go_on` where the next
    one begins.

    Args:
        dialect: how frames are spelled.
        shape: how to read the upstream.
        ids: what numbers the frames.
        max_frame_size: bytes of an upstream frame; see `FrameSplitter`.
        continuity: for an upstream whose stream can be opened again; else `None`.
    """

    __slots__ = (
        "_gap_end",
        "_ids",
        "_is_interrupted",
        "_mapper",
        "_most_at_once",
        "_release_at",
        "_splitter",
        "_twin",
        "continuity",
        "discards",
        "finished",
        "next",
        "unfinished",
    )

    def __init__(
        self,
        dialect: Dialect,
        shape: Shape,
        ids: FrameIds,
        max_frame_size: int | None,
        continuity: Continuity | None = None,
    ) -> None:
        self._splitter = FrameSplitter(max_frame_size, facts(shape))
        self._mapper = dialect.mapper(shape, numbered=ids.visible)
        self._twin = speedups.map_frames
        self._ids = ids
        #: Where the stream is, for an upstream whose stream can be opened again.
        self.continuity = continuity
        # Bytes of a chunk that the C twin may map where it stands: it looks for neither sizes nor repeats.
        self._most_at_once = 0 if continuity is not None else sys.maxsize if max_frame_size is None else max_frame_size
        self._gap_end = 0  # the number behind the last gap of unknown size
        self._is_interrupted = False
        self._release_at = inf  # when frames that may be repeats have waited long enough
        #: The number that the next frame gets.
        self.next = 1
        #: Characters of unfinished lines, and bytes of frames that may be repeats, that are held back.
        self.unfinished = 0
        #: The terminal frame has passed: `feed`, `flush` and `fail` stay empty from now on.
        self.finished = False
        #: Frames over the size limit that the last `feed` discarded.
        self.discards: Sequence[Discard] = ()

    @property
    def ending(self) -> Exit | Failure | None:
        """How the run ended, as far as its frames tell; `None` if it goes on, or its frames do not tell."""
        return self._mapper.ending

    @property
    def exited(self) -> bool:
        """Whether the frames so far say that the work itself has ended."""
        return isinstance(self._mapper.ending, Exit)

    @property
    def is_amid_frame(self) -> bool:
        """Whether the last chunk ended within a frame."""
        return bool(self._splitter.pending or self._splitter.lines)

    @property
    def discarded_frames(self) -> int:
        """Frames over the size limit that were discarded so far."""
        return self._splitter.discarded_frames

    @property
    def discarded_bytes(self) -> int:
        """Their bytes."""
        return self._splitter.discarded_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next chunk, and returns the frames that are whole now: canonical, numbered, perhaps zero.

        A gap stands where a discarded frame would have stood, and behind it the ending that this frame told of.
        """
        twin = self._twin
        if twin is None or len(chunk) > self._most_at_once or self.discards:
            return self._feed(chunk)
        splitter, start, before = self._splitter, 0, b""
        if not splitter.is_at_rest and b"\n\n" in chunk and splitter.fits(chunk):
            start = chunk.index(b"\n\n") + 2
            before = self._feed(chunk[:start])  # the frame that has begun; the others are not copied
        heads = self._mapper.heads
        if not (splitter.is_at_rest and heads):
            return before + self._feed(chunk[start:])
        numbered, count, end = twin(chunk, start, heads, self._ids.prefix, self.next, before)
        self.next += count
        return numbered if end == len(chunk) else numbered + self._feed(chunk[end:])

    def _feed(self, chunk: bytes) -> bytes:
        splitter = self._splitter
        frames = splitter.feed(chunk)
        if splitter.discards or self.discards:
            self.discards = splitter.discards
            if self.discards:
                return self._feed_around_discards(frames)
        if self.continuity is not None:
            frames = self.continuity.feed(frames)
            if self.continuity.apart:
                return self._take_apart() + self._number(self._mapper.map(frames))
            self._note_unfinished()
        if not frames:
            return b""
        heads = self._mapper.heads
        if heads and (twin := self._twin) is not None:
            numbered, count, end = twin(frames, 0, heads, self._ids.prefix, self.next, b"")
            self.next += count
            return numbered if end == len(frames) else numbered + self._map_rest(twin, frames, end)
        parts = map_plain(frames, heads) if heads else None
        if parts is None:
            return self._map(frames)
        first = self.next
        self.next = first + parts[1]
        return self._ids.number(parts, first)

    def _map_rest(self, twin: speedups.MapFrames, frames: bytes, start: int) -> bytes:
        """Maps frames of which the first is not plain: that one alone, but from a second in a row on all of them."""
        numbered, count = [], 1
        while count and start < len(frames):
            end = frames.index(b"\n\n", start) + 2
            numbered.append(self._map(frames[start:end]))
            plain, count, start = twin(frames, end, self._mapper.heads, self._ids.prefix, self.next, b"")
            numbered.append(plain)
            self.next += count
        numbered.append(self._map(frames[start:]))
        return b"".join(numbered)

    def _map(self, frames: bytes) -> bytes:
        """Maps any frames. Plain ones would leave the mapper as it is."""
        mapper, first = self._mapper, self.next
        parts = mapper.map(frames)
        self.unfinished = mapper.unfinished
        self.finished = mapper.finished
        self.next = first + parts[1]
        return self._ids.number(parts, first)

    def due(self, at: float) -> float:
        """When the next unfinished line is to be shown; infinity if there is none.

        Call this after each `feed` that leaves something `unfinished`: lines that have begun since the last call are
        due at `at`. So are frames that may be repeats.
        """
        if self.continuity is not None and self.continuity.withheld and not self._is_interrupted:
            self._release_at = min(self._release_at, at)
        return min(self._mapper.due(at), self._release_at)

    def flush(self, now: float = inf) -> bytes:
        """The unfinished lines that are due by now, or all of them, marked `partial`; and frames that were no repeats.

        Look at `finished` after each call.
        """
        released = self._release(goes_on=True) if now >= self._release_at else b""
        return released + self._number(self._mapper.flush(now))

    def release(self) -> bytes:
        """The frames that may be repeats, since no more will tell. Call it where a stream has ended.

        Look at `finished` after each call.
        """
        return self._release(goes_on=False)

    def _release(self, *, goes_on: bool) -> bytes:
        self._release_at = inf
        if self.continuity is None:
            return b""
        self.continuity.note_retry(self._splitter.lines)
        is_parted = goes_on and self.continuity.is_ahead
        frames = self.continuity.release()
        released = self._number(self._mapper.map(frames)) if frames else b""
        return released + self._tell_of_gap() if is_parted else released

    def interrupt(self) -> None:
        """The stream broke off. Frames that may be repeats wait for the next one."""
        self._is_interrupted = True
        self._release_at = inf
        if self.continuity is not None:
            self.continuity.note_retry(self._splitter.lines)

    def go_on(self, *, exactly: bool) -> bytes:
        """Another stream of the same upstream begins. What is left of a frame is dropped.

        Args:
            exactly: whether it goes on behind the last whole frame. Otherwise some may be missing, which the returned
                frames say, and it may repeat others, which are left out.
        """
        self._splitter.restart()
        self._is_interrupted = False
        if self.continuity is None:
            return b""
        self.continuity.begin(exactly=exactly)
        is_covered = self.next == self._gap_end and not self._mapper.unfinished  # one gap covers several cuts
        if exactly or is_covered:
            return b""
        return self._tell_of_gap()

    def _tell_of_gap(self) -> bytes:
        gap = self._number(self._mapper.missing())
        self._gap_end = self.next
        return gap

    def _take_apart(self) -> bytes:
        """See `Continuity.apart`."""
        assert self.continuity is not None, "the caller has asked it for these frames"
        frames, self.continuity.apart = self.continuity.apart, b""
        return self._number(self._mapper.map(frames)) + self._tell_of_gap()

    def fail(self, code: str, message: str) -> bytes:
        """The terminal frame of a run that failed; empty if `finished`.

        `verbatim` has none. It hands on the `retry` of an unfinished last frame.
        """
        released = self.release()
        return released + self._number(self._mapper.fail(code, message, self._splitter.lines))

    def finish(self) -> bytes:
        """The last frames of a stream that lacks a terminal one: its unfinished lines, or `verbatim`'s `retry`."""
        released = self.release()
        return released + self._number(self._mapper.finish(self._splitter.lines))

    def close(self) -> None:
        """Ends the run's frames: forgets the beginnings of lines and frames."""
        self._splitter.close()
        self._mapper.close()
        self.unfinished = 0

    def _number(self, parts: Parts) -> bytes:
        first = self.next
        self.next = first + parts[1]
        self._note_unfinished()
        self.finished = self._mapper.finished
        return self._ids.number(parts, first)

    def _note_unfinished(self) -> None:
        withheld = 0 if self.continuity is None else self.continuity.withheld
        self.unfinished = self._mapper.unfinished + withheld

    def _feed_around_discards(self, frames: bytes) -> bytes:
        numbered, start = [self._release(goes_on=True)], 0
        for discard in self.discards:
            numbered.append(self._feed_whole(frames[start : discard.offset]))
            numbered.append(self._number(self._mapper.discarded(discard.digest, discard.size)))
            if self.continuity is not None:
                self.continuity.skip(discard.digest)
            start = discard.offset
        numbered.append(self._feed_whole(frames[start:]))
        return b"".join(numbered)

    def _feed_whole(self, frames: bytes) -> bytes:
        apart = b""
        if self.continuity is not None:
            frames = self.continuity.feed(frames)
            apart = self._take_apart() if self.continuity.apart else b""
        return apart + self._number(self._mapper.map(frames))
