"""The log keeps a run's frames, numbered and in order; each reader has a cursor.

Writing and reading cost per batch of frames, however many frames a batch holds. This module is synchronous: tasks that
wait for the log to grow or shrink do so elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from ..wire.frames import cut

__all__ = ["LARGEST_BATCH", "Cursor", "Gap", "RunLog"]

#: Bytes. Larger appends are cut at frame ends, so that a reader that takes one batch, or gives one up, handles little
#: at a time. One frame may be larger. A notice of missing frames still fits into the 64 KiB that one `send` takes.
LARGEST_BATCH: Final = 63 * 1024
#: Bytes from which on a batch is kept as it came.
_BATCH_SIZE: Final = 4096
#: Smaller appends are joined, this many at a time. An upstream that sends one frame a chunk would otherwise cost 170
#: bytes of bookkeeping for a frame of 70, and a third of a microsecond for list entries that are rarely read.
_APPENDS_PER_BATCH: Final = 32
#: Forgotten batches may stand at the head of the lists until there are more than this. Cutting the lists rarely keeps
#: the cost of forgetting a batch constant.
_FORGOTTEN_BATCHES: Final = 1024
_BLANK_LINE: Final = b"\n\n"


class Gap(NamedTuple):
    """Frames that a reader missed."""

    frames: int
    #: Their bytes; `None` (unknown) if the log had forgotten some of them before the reader attached.
    size: int | None
    #: The number of the last missed frame.
    last: int


class RunLog:
    """The frames of one run: those that a cursor still needs, and some that all cursors have passed.

    Frames are numbered consecutively. Memory is bounded by `replay` plus the backlog of the slowest cursor, and
    by a batch. A cursor with a mark limits its own backlog; for a cursor without one, the policy must (see
    `Cursor.pending`).

    Args:
        replay: bytes to keep after every cursor has passed them, for late viewers. The last batch is kept anyway.
        first: the number of the first frame: above 1 for the copy of a run whose beginning is gone.

    Raises:
        ValueError: `replay` is negative.
    """

    __slots__ = (
        "_cursors",
        "_ends",
        "_first",
        "_forget_at",
        "_frames",
        "_head",
        "_newest",
        "_newest_at",
        "_nexts",
        "_start",
        "_tail",
        "closed",
        "next",
        "replay",
        "size",
    )

    def __init__(self, replay: int = 0, first: int = 1) -> None:
        if replay < 0:
            raise ValueError(f"replay must be a number of bytes, not {replay}")
        self.replay = replay
        #: The number of the next frame to be appended.
        self.next = first
        #: Bytes appended since the run began.
        self.size = 0
        #: Whether the run has ended: the log takes no further frame.
        self.closed = False
        # Three parallel lists, one entry a batch, valid from `_head` on: the frames, the offset in the run at which
        # they end, and the number of the frame after them. Where an append was cut, that number is unknown until it is
        # asked for, because counting frames costs a tenth of everything else: it is stored as minus the number after
        # the whole append.
        self._frames: list[bytes] = []
        self._ends: list[int] = []
        self._nexts: list[int] = []
        self._head = 0
        self._first = first  # number of the oldest frame in memory, unless it is unknown as above
        self._start = 0  # offset of the oldest byte in memory
        self._forget_at = 0  # the `size` from which on there may be a batch to forget
        self._tail: list[bytes] = []  # recent small appends, joined into a batch before anything reads the lists
        self._newest = b""  # the latest append: all that most cursors need while the log grows
        self._newest_at = -1  # its offset in the run
        self._cursors: list[Cursor] = []

    @property
    def kept(self) -> int:
        """Bytes held in memory."""
        return self.size - self._start

    @property
    def first(self) -> int:
        """The number of the oldest frame in memory, or `next` if the log holds none."""
        if self._first < 0:
            self._first = self._number_at(self._start)
        return self._first

    def append(self, frames: bytes, next_number: int) -> None:
        """Adds whole frames. The first gets the number `next`; `next_number` follows the last.

        Raises:
            ValueError: the log is closed, or `next_number` is at most `next`.
        """
        if self.closed:
            raise ValueError("the log is closed: the terminal frame is the last")
        if next_number <= self.next:
            raise ValueError(f"expected frames from number {self.next} on, got frames up to {next_number - 1}")
        self.next = next_number
        self._newest, self._newest_at = frames, self.size
        self.size += (size := len(frames))
        self._tail.append(frames)
        if size >= _BATCH_SIZE or len(self._tail) == _APPENDS_PER_BATCH:
            self._put_away()
        if self.size >= self._forget_at:
            self._forget()

    def _put_away(self) -> None:
        """Moves the tail into the lists: joins it to the last batch if both are small, else adds a batch."""
        if not self._tail:
            return
        frames = self._tail[0] if len(self._tail) == 1 else b"".join(self._tail)
        self._tail.clear()
        if len(self._frames) > self._head and len(self._frames[-1]) + len(frames) < _BATCH_SIZE:
            self._frames[-1] += frames
            self._ends[-1], self._nexts[-1] = self.size, self.next
        elif len(frames) <= LARGEST_BATCH:
            self._frames.append(frames)
            self._ends.append(self.size)
            self._nexts.append(self.next)
        else:
            self._put_away_in_pieces(frames)

    def _put_away_in_pieces(self, frames: bytes) -> None:
        end = self.size - len(frames)
        for piece in cut(frames, LARGEST_BATCH):
            end += len(piece)
            self._frames.append(piece)
            self._ends.append(end)
            self._nexts.append(-self.next)
        self._nexts[-1] = self.next
        self._newest, self._newest_at = b"", -1  # too much to be taken at once, and the batches are copies

    def close(self) -> None:
        """Ends the log. Cursors can still take the frames that are pending; then they are `finished`."""
        self.closed = True
        self._newest_at = -1

    def attach(self, number: int = 1, mark: int | None = None) -> Cursor:
        """A new cursor. It begins at frame `number`, or at the oldest in memory if that is later (see `Cursor.gap`).

        Call the cursor's `close` when its reader is done.

        Args:
            number: the frame that the reader needs next.
            mark: bytes the cursor may be behind; beyond that, it gives up its oldest frames. With `None` the log keeps
                every frame until the cursor takes it. A reader that comes late may have all that is kept for replay;
                the mark applies once the cursor has caught up.

        Raises:
            ValueError: `number` is beyond `next` or below 1, or the mark is below 1.
        """
        if not 1 <= number <= self.next:
            raise ValueError(f"expected one of the frame numbers 1 to {self.next}, got {number}")
        if mark is not None and mark < 1:
            raise ValueError(f"mark must be a positive number of bytes or None, not {mark}")
        missed = max(0, self.first - number)
        cursor = Cursor(self, number + missed, self._offset(number + missed), missed, mark)
        self._cursors.append(cursor)
        return cursor

    def _offset(self, number: int) -> int:
        """The offset in the run of a frame in memory, or of the next frame to be appended."""
        self._put_away()
        index = bisect_right(self._nexts, number, self._head, key=abs)
        if index == len(self._nexts):
            return self.size
        while self._number_after(index) <= number:
            index += 1
        frames, offset = self._frames[index], 0
        first = self._number_after(index - 1) if index > self._head else self.first
        for _ in range(number - first):
            offset = frames.index(_BLANK_LINE, offset) + 2
        return self._ends[index] - len(frames) + offset

    def _number_at(self, offset: int) -> int:
        """The number of the frame at an offset at which a batch in memory begins."""
        index = bisect_right(self._ends, offset, self._head)
        return self._number_after(index) - self._frames[index].count(_BLANK_LINE)

    def _number_after(self, index: int) -> int:
        """The number of the frame after a batch. Where it is unknown, the frames of the append are counted, once."""
        nexts = self._nexts
        if nexts[index] < 0:
            last = index
            while nexts[last] < 0:
                last += 1
            while last > self._head and nexts[last - 1] < 0:
                nexts[last - 1] = nexts[last] - self._frames[last].count(_BLANK_LINE)
                last -= 1
        return nexts[index]

    def _read(self, offset: int, limit: int) -> tuple[list[bytes], int, int]:
        """Batches from `offset` on, the offset at which they end, and what `_nexts` says of the frame after them.

        As many batches as fit into `limit` bytes, and at least one.
        """
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
        """Offset and first number of the first batch that begins at `floor` or later.

        The last batch, which holds the terminal frame, stays: it is the answer if every batch begins before `floor`.
        """
        self._put_away()
        before = min(bisect_left(self._ends, floor, self._head), len(self._ends) - 2)
        if before < self._head or floor <= self._start:
            return self._start, self.first
        return self._ends[before], self._number_after(before)

    def _forget(self) -> None:
        """Drops frames that every cursor has passed or given up, apart from the last `replay` bytes and batch."""
        self._put_away()
        passed = min([cursor.needed for cursor in self._cursors], default=self.size)
        last = len(self._ends) - 1  # stays: a viewer that comes late gets the terminal frame in any case
        if self._head < last and self._ends[self._head] + self.replay <= passed:
            for cursor in self._cursors:
                if cursor.offset < passed:
                    cursor.know_number()
        while self._head < last and self._ends[self._head] + self.replay <= passed:
            self._start, self._first = self._ends[self._head], self._nexts[self._head]
            self._frames[self._head] = b""
            self._head += 1
        self._forget_at = self._ends[self._head] + self.replay if self._head < len(self._ends) else 0
        if self._head > _FORGOTTEN_BATCHES and self._head > len(self._ends) // 2:
            for parallel in (self._frames, self._ends, self._nexts):
                del parallel[: self._head]
            self._head = 0

    def _detach(self, cursor: Cursor) -> None:
        if cursor in self._cursors:
            cursor.know_number()
            self._cursors.remove(cursor)
            self._forget()


class Cursor:
    """One reader's place in a `RunLog`. `RunLog.attach` makes them."""

    __slots__ = (
        "_allowed",
        "_gap",
        "_log",
        "_mark",
        "_next",
        "dropped",
        "dropped_bytes",
        "offset",
    )

    def __init__(self, log: RunLog, number: int, offset: int, missed: int, mark: int | None) -> None:
        self._log = log
        self._next = number  # unknown if negative, see `RunLog`
        #: The offset of that frame in the run, in bytes.
        self.offset = offset
        #: Frames that the reader missed: forgotten before the cursor was attached, or given up since.
        self.dropped = missed
        #: Bytes of the frames given up. The size of the forgotten ones is unknown.
        self.dropped_bytes = 0
        self._mark = mark
        # Bytes it may be behind at present: the mark, or the backlog it began with.
        self._allowed = 0 if mark is None else max(mark, min(self.pending, log.replay))
        self._gap: Gap | None = Gap(missed, None, number - 1) if missed else None

    @property
    def next(self) -> int:
        """The number of the next frame to take."""
        self.know_number()
        return self._next

    def know_number(self) -> None:
        """Works `next` out, as long as the log has what that takes."""
        if self._next < 0:
            self._next = self._log._number_at(self.offset)

    @property
    def pending(self) -> int:
        """Bytes in the log that the reader has yet to take. Policies measure this."""
        return self._log.size - self.offset

    @property
    def needed(self) -> int:
        """The offset in the run of the oldest byte that the reader can still take."""
        return self.offset if self._mark is None else max(self.offset, self._log.size - self._allowed)

    @property
    def finished(self) -> bool:
        """Whether the log is closed, every frame taken or given up, and every gap told."""
        return self._log.closed and not self.pending and self._gap is None

    def settle(self) -> None:
        """Gives up frames that are further behind than allowed. `gap`, `peek` and `take` do so themselves."""
        if self._mark is not None and self.pending > self._allowed:
            self._give_up(*self._log._skip(self._log.size - self._allowed))

    def _give_up(self, offset: int, number: int) -> None:
        frames, size = number - self.next, offset - self.offset
        if frames <= 0:  # the cursor is in the last batch already
            return
        self.dropped += frames
        self.dropped_bytes += size
        told = self._gap or Gap(0, 0, 0)
        self._gap = Gap(told.frames + frames, None if told.size is None else told.size + size, number - 1)
        self.offset, self._next = offset, number

    def gap(self) -> Gap | None:
        """What the reader missed since the last call. Tell it before the frames that are taken next."""
        self.settle()
        gap, self._gap = self._gap, None
        return gap

    def peek(self, limit: int) -> bytes:
        """The frames that `take` would return. Call `advance` with the part that was used."""
        self.settle()
        if not self.pending:
            return b""
        batch, _, _ = self._log._read(self.offset, limit)
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def advance(self, frames: int, size: int) -> None:
        """Takes the next `frames` frames, which have `size` bytes in all."""
        self._next = self.next + frames
        self.offset += size
        self._forget_backlog()

    def take(self, limit: int) -> bytes:
        """Takes the next frames and returns them joined; empty if none is pending.

        As many batches as fit into `limit` bytes, and at least one, even if that is larger. A batch above
        `LARGEST_BATCH` is a single frame.
        """
        log = self._log
        if self.offset == log.size:
            return b""
        if newest := self.take_newest():
            return newest
        self.settle()
        batch, self.offset, self._next = log._read(self.offset, limit)
        self._forget_backlog()
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def take_newest(self) -> bytes:
        """Takes the latest append if that is all there is to take. Empty if it is not, and once the log is closed."""
        log = self._log
        if self.offset != log._newest_at:
            return b""
        self.offset, self._next = log.size, log.next
        if self._mark is not None:
            self._allowed = self._mark
        return log._newest

    def _forget_backlog(self) -> None:
        """Applies the mark once the cursor has caught up to it."""
        if self._mark is not None and self.pending <= self._mark:
            self._allowed = self._mark

    def move_to(self, other: Cursor) -> None:
        """Goes to the place of another cursor of the same log. The log forgets what both have passed."""
        self.offset, self._next = other.offset, other._next
        self._log._forget()

    def close(self) -> None:
        """Detaches the cursor. The log forgets frames that only this reader needed. May be called again."""
        self._log._detach(self)
