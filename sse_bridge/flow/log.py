"""The log: a run's frames, numbered, in order, once; and the cursors that read it.

Writing and reading cost per batch of frames, never per frame. Whoever waits for the log to grow or to shrink does
so elsewhere: there is no `async` here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

__all__ = ["Cursor", "Gap", "RunLog"]

#: Bytes of a batch that is large enough to be kept as it came.
_LARGE: Final = 4096
#: Smaller ones are put together, so many at a time: an upstream that sends one frame a chunk would otherwise cost more
#: for keeping it than for the frame (170 bytes for 70, and a third of a microsecond for lists nobody has looked at).
_MANY: Final = 32
#: Forgotten segments that may stand at the head of the lists before these are cut: so that forgetting costs O(1).
_SLACK: Final = 1024


class Gap(NamedTuple):
    """Frames that a reader did not get."""

    #: How many.
    frames: int
    #: Their bytes; `None` if some of them were gone before the reader came, and nobody knows any more.
    size: int | None
    #: The number of the last of them.
    last: int


class RunLog:
    """The frames of one run: those that a cursor still needs, and some that all have passed.

    Frames are numbered from 1 without holes. Memory is bounded by `replay` and by how far cursors may be behind: those
    that keep everything as far as a policy lets them (`Cursor.pending`), the others as far as their own mark.

    Args:
        replay: bytes that every cursor has passed and that are kept for those who come late or come back.

    Raises:
        ValueError: `replay` is negative.
    """

    __slots__ = (
        "_cursors",
        "_ends",
        "_forget_at",
        "_frames",
        "_head",
        "_newest",
        "_newest_at",
        "_nexts",
        "_start",
        "_tail",
        "closed",
        "first",
        "next",
        "replay",
        "size",
    )

    def __init__(self, replay: int = 0) -> None:
        if replay < 0:
            raise ValueError(f"replay must be a number of bytes, not {replay}")
        self.replay = replay
        #: The number that the next frame will have.
        self.next = 1
        #: The number of the oldest frame that is kept, or `next` if there is none.
        self.first = 1
        #: Bytes appended since the beginning.
        self.size = 0
        #: No frame will follow.
        self.closed = False
        # Three lists side by side, from `_head` on: the bytes, where they end in the run, what number follows them.
        self._frames: list[bytes] = []
        self._ends: list[int] = []
        self._nexts: list[int] = []
        self._head = 0
        self._start = 0  # where the oldest kept byte stands in the run
        self._forget_at = 0  # the size at which it may be possible to forget something
        self._tail: list[bytes] = []  # what came last; in the lists it stands once there is more, or somebody looks
        self._newest = b""  # what was appended last: most cursors need that and nothing else
        self._newest_at = 0  # where it begins in the run
        self._cursors: list[Cursor] = []

    @property
    def kept(self) -> int:
        """Bytes held in memory."""
        return self.size - self._start

    def append(self, frames: bytes, next_number: int) -> None:
        """Adds whole frames; the first is number `next`, and `next_number` is what follows the last.

        Raises:
            ValueError: the log is closed, or the numbers do not go up.
        """
        if self.closed:
            raise ValueError("the log is closed: nothing follows a terminal frame")
        if next_number <= self.next:
            raise ValueError(f"frames up to number {self.next - 1} are there already, got {next_number - 1}")
        self.next = next_number
        self._newest, self._newest_at = frames, self.size
        self.size += len(frames)
        self._tail.append(frames)
        if len(self._tail) == _MANY or len(frames) >= _LARGE:
            self._put_away()
        if self.size >= self._forget_at:
            self._forget()

    def _put_away(self) -> None:
        """Makes a batch of the tail, or makes it a part of the last batch if both are small."""
        if not self._tail:
            return
        frames = self._tail[0] if len(self._tail) == 1 else b"".join(self._tail)
        self._tail.clear()
        if len(self._frames) > self._head and len(self._frames[-1]) + len(frames) < _LARGE:
            self._frames[-1] += frames
            self._ends[-1], self._nexts[-1] = self.size, self.next
        else:
            self._frames.append(frames)
            self._ends.append(self.size)
            self._nexts.append(self.next)

    def close(self) -> None:
        """No frame will follow. Cursors take what is there and then are at the end for good."""
        self.closed = True

    def attach(self, number: int = 1, mark: int | None = None) -> Cursor:
        """A new cursor whose next frame is `number`, or the oldest that is kept if that is gone (see `Cursor.gap`).

        Call its `close` when nobody reads with it any more.

        Args:
            number: of the frame it needs next.
            mark: bytes it may be behind; beyond, it gives up its oldest frames. `None`: it gives up nothing, and the
                log keeps whatever it has not taken. Who comes late may have what is kept for replay, and is held
                to the mark once it has caught up.

        Raises:
            ValueError: there is no such frame yet, nor will it be the next; or the mark is not positive.
        """
        if not 1 <= number <= self.next:
            raise ValueError(f"frames have the numbers 1 to {self.next - 1}, and {number} is not the next one")
        if mark is not None and mark < 1:
            raise ValueError(f"mark must be a positive number of bytes or None, not {mark}")
        missed = max(0, self.first - number)
        cursor = Cursor(self, number + missed, self._offset(number + missed), missed, mark)
        self._cursors.append(cursor)
        return cursor

    def _offset(self, number: int) -> int:
        """Where a kept frame, or the next one to come, begins in the run."""
        self._put_away()
        index = bisect_right(self._nexts, number, self._head)
        if index == len(self._nexts):
            return self.size
        frames, offset = self._frames[index], 0
        first = self._nexts[index - 1] if index > self._head else self.first
        for _ in range(number - first):
            offset = frames.index(b"\n\n", offset) + 2
        return self._ends[index] - len(frames) + offset

    def _read(self, offset: int, limit: int) -> tuple[list[bytes], int, int]:
        """Frames from `offset` on: as many batches as fit into `limit` bytes, one at least; where they end."""
        self._put_away()
        index = bisect_right(self._ends, offset, self._head)
        frames = self._frames[index]
        skip = offset - self._ends[index] + len(frames)
        batch = [frames[skip:] if skip else frames]
        limit -= len(batch[0])
        while index + 1 < len(self._frames) and (limit := limit - len(self._frames[index + 1])) >= 0:
            index += 1
            batch.append(self._frames[index])
        return batch, self._ends[index], self._nexts[index]

    def _skip(self, floor: int) -> tuple[int, int]:
        """The first batch that begins at `floor` or later, or the last one: where it begins, and its first number.

        The last batch is never skipped, because the terminal frame stands in it.
        """
        self._put_away()
        before = min(bisect_left(self._ends, floor, self._head), len(self._ends) - 2)
        if before < self._head or floor <= self._start:
            return self._start, self.first
        return self._ends[before], self._nexts[before]

    def _forget(self) -> None:
        """Drops what every cursor has passed or given up, except for the last `replay` bytes of it."""
        self._put_away()
        passed = min([cursor.needed for cursor in self._cursors], default=self.size)
        while self._head < len(self._ends) and self._ends[self._head] + self.replay <= passed:
            self._start, self.first = self._ends[self._head], self._nexts[self._head]
            self._frames[self._head] = b""
            self._head += 1
        self._forget_at = self._ends[self._head] + self.replay if self._head < len(self._ends) else 0
        if self._head > _SLACK and self._head > len(self._ends) // 2:
            for parallel in (self._frames, self._ends, self._nexts):
                del parallel[: self._head]
            self._head = 0

    def _detach(self, cursor: Cursor) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)
            self._forget()


class Cursor:
    """One reader's place in a `RunLog`. Made by `RunLog.attach`."""

    __slots__ = (
        "_allowed",
        "_gap",
        "_log",
        "_mark",
        "dropped",
        "dropped_bytes",
        "next",
        "offset",
    )

    def __init__(self, log: RunLog, number: int, offset: int, missed: int, mark: int | None) -> None:
        self._log = log
        #: The number of the next frame it needs.
        self.next = number
        #: Where that frame begins in the run, in bytes.
        self.offset = offset
        #: Frames that it never gave since it was attached: gone before it came, or given up. And their bytes, as far as
        #: they are known.
        self.dropped = missed
        self.dropped_bytes = 0
        self._mark = mark
        self._allowed = 0 if mark is None else max(mark, min(self.pending, log.replay))
        self._gap: Gap | None = Gap(missed, None, number - 1) if missed else None

    @property
    def pending(self) -> int:
        """Bytes that are there and not yet taken: what policies measure."""
        return self._log.size - self.offset

    @property
    def needed(self) -> int:
        """Where the oldest byte that it may still take begins in the run."""
        return self.offset if self._mark is None else max(self.offset, self._log.size - self._allowed)

    @property
    def finished(self) -> bool:
        """All was taken and all gaps were told, and nothing will follow."""
        return self._log.closed and not self.pending and self._gap is None

    def settle(self) -> None:
        """Gives up what is older than its mark allows. `gap`, `peek` and `take` do it, too."""
        if self._mark is not None and self.pending > self._allowed:
            self._give_up(*self._log._skip(self._log.size - self._allowed))

    def _give_up(self, offset: int, number: int) -> None:
        frames, size = number - self.next, offset - self.offset
        if frames <= 0:  # it is in the last batch already
            return
        self.dropped += frames
        self.dropped_bytes += size
        told = self._gap or Gap(0, 0, 0)
        self._gap = Gap(told.frames + frames, None if told.size is None else told.size + size, number - 1)
        self.offset, self.next = offset, number

    def gap(self) -> Gap | None:
        """What it did not give since this was last asked. To be told before the frames that are taken next."""
        self.settle()
        gap, self._gap = self._gap, None
        return gap

    def peek(self, limit: int) -> bytes:
        """What `take` would give; say with `advance` how much of it was used."""
        self.settle()
        if not self.pending:
            return b""
        batch, _, _ = self._log._read(self.offset, limit)
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def advance(self, frames: int, size: int) -> None:
        """The next so many frames, of `size` bytes in all, are taken."""
        self.next += frames
        self.offset += size
        self._forget_backlog()

    def take(self, limit: int) -> bytes:
        """The next frames, joined: `limit` bytes at most, but one batch at least if one is there (may be larger).

        Empty bytes mean that nothing is pending. What was taken is not given again.
        """
        log = self._log
        if self.offset == log.size:
            return b""
        if self.offset == log._newest_at:
            self.offset, self.next = log.size, log.next
            if self._allowed != self._mark:
                self._forget_backlog()
            return log._newest
        self.settle()
        batch, self.offset, self.next = log._read(self.offset, limit)
        self._forget_backlog()
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def _forget_backlog(self) -> None:
        """Who has caught up is held to its mark."""
        if self._mark is not None and self.pending <= self._mark:
            self._allowed = self._mark

    def close(self) -> None:
        """Nobody reads with this cursor any more; what only it needed is forgotten. May be called again."""
        self._log._detach(self)
