"""What one viewer gets next: its place in the log, its policy, its pace, and the count of all of it.

Sans-IO: a `Delivery` never waits. The viewer's writer asks `take`, and if that is empty it waits for the log to grow
or for `ready_at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from ..wire.dialects import Dialect
from ..wire.ids import FrameIds
from ..wire.merging import first_frames
from .log import Cursor, RunLog
from .pace import Pace, TokenBucket
from .policy import Policy

__all__ = ["BATCH", "Delivery", "ViewerStatistics"]

#: The most bytes handed to `send` at once: where asyncio's transports and uvicorn begin to push back. A client's
#: progress shows when a `send` returns, so each one is small. Merged events are no larger, unless one line is.
BATCH: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ViewerStatistics:
    """Counts of everything a viewer was due, from the first frame it asked for on.

    At any time `frames_in == frames_out + frames_dropped + frames_pending`, and the same for bytes. Frames and bytes
    are those of the log: several that were merged into one event count as several.
    """

    #: Frames it was due, and their bytes. The bytes exclude frames that the log had forgotten before it came.
    frames_in: int
    bytes_in: int
    #: Handed to `send`. A frame of several pieces counts with its last one.
    frames_out: int
    bytes_out: int
    #: Given up. A `gap` says so, in dialects that have frames of their own.
    frames_dropped: int
    bytes_dropped: int
    #: Waiting in the log, or sent in part.
    frames_pending: int
    bytes_pending: int
    #: Frames among those handed out that share another frame's event.
    frames_merged: int


class Delivery:
    """Decides what goes to one viewer of a run, and when.

    Args:
        log: the run's.
        dialect: the run's. It words the notice of missing frames, and merges.
        ids: the run's.
        policy: what happens when the viewer falls behind.
        rate: a limit on frames; `None` for unlimited.
        number: the frame that the viewer begins with.
        now: seconds, on the clock of all later calls.

    Raises:
        ValueError: `number` is below 1 or beyond the next frame.
    """

    __slots__ = (
        "_dialect",
        "_first",
        "_ids",
        "_is_held",
        "_is_plain",
        "_large",
        "_lifted",
        "_log",
        "_merged",
        "_pace",
        "_start",
        "cursor",
        "is_paced",
        "policy",
    )

    def __init__(
        self,
        log: RunLog,
        dialect: Dialect,
        ids: FrameIds,
        policy: Policy,
        rate: TokenBucket | None,
        number: int,
        now: float,
    ) -> None:
        self.policy = policy
        self.cursor = log.attach(number, policy.high_water if policy.may_lose else None)
        self._log = log
        self._dialect = dialect
        self._ids = ids
        own = [] if policy.max_rate is None else [_bucket(policy.max_rate)]
        buckets = own if rate is None else [*own, rate]
        # While the run waits for the viewer, `max_rate` would slow the script, so its bucket is not asked.
        self._lifted = 0 if policy.may_lose else len(own)
        self._pace = Pace(buckets, now) if buckets else None
        #: Whether time matters. Otherwise `now` may be anything.
        self.is_paced = self._pace is not None
        # Without gaps, pace and merging the cursor's bytes go out as they are.
        self._is_plain = not (policy.may_lose or policy.merges or buckets or self.cursor.dropped)
        self._first = number
        self._start = self.cursor.offset
        self._merged = 0
        self._large: _LargeFrame | None = None  # a part of it is out
        self._is_held = False  # whether the run waited for the viewer at the last look

    @property
    def finished(self) -> bool:
        """All frames were taken, and the log is closed."""
        return self.cursor.finished and self._large is None

    @property
    def is_within_frame(self) -> bool:
        """Whether the last `take` ended inside a frame. Only the next `take` may follow then."""
        return self._large is not None

    @property
    def pending(self) -> int:
        """Bytes that have not been taken. Policies measure this."""
        return self.cursor.pending + self._left

    @property
    def stall_timeout(self) -> float | None:
        """Seconds that this viewer may hold the run, if it `holds` it at all; `None` if it may do so indefinitely.

        A wait for its pace comes on top: the bridge makes it, and a rate of one event a minute is no stall.
        """
        timeout = self.policy.stall_timeout
        return timeout if timeout is None or self._pace is None else timeout + self._pace.longest_wait

    def holds(self, held: bool) -> bool:
        """Whether the run has to wait for this viewer. `held` says whether it is waiting already."""
        return self.policy.holds(self.pending, held)

    @property
    def calm_until(self) -> float:
        """The size of the log up to which a run that is not held stays so. It only grows."""
        return inf if self.policy.may_lose else self.cursor.offset - self._left + self.policy.high_water

    @property
    def plain(self) -> Cursor | None:
        """The cursor, if all frames go out as they are. `None` if some may be missing, merged or kept back.

        Between two frames, a caller may take from the cursor instead of calling `take`.
        """
        return self.cursor if self._is_plain else None

    def hurry(self) -> None:
        """Drops the pace: pending frames may go at once."""
        self._pace = None
        self.is_paced = False

    def is_idle(self) -> bool:  # a property would take twice as long before Python 3.12
        """After a `take` that was not empty: whether there is nothing more to take before the log grows or ends."""
        log = self._log
        return self.cursor.offset == log.size and not log.closed and self._large is None

    def take(self, now: float) -> bytes:
        """What goes out next, `BATCH` bytes at most: a notice of frames that were given up, then frames.

        It ends with a frame, unless that frame alone is larger. Empty while the log has no more, or the pace allows
        none.
        """
        if self._large is not None:
            return self._take_piece(self._large)
        if self._is_plain:
            frames = self.cursor.take(BATCH)
            return frames if len(frames) <= BATCH else self._begin(_LargeFrame(b"", frames, len(frames)))
        return self._take_with_care(now)

    def _take_with_care(self, now: float) -> bytes:
        """Takes where frames may be missing, merged or kept back."""
        cursor = self.cursor
        most = None
        if self._pace is not None:
            self._look()
            most = self._pace.available(now, self._lifted if self._is_held else 0)
        if most == 0:
            return b""
        gap = cursor.gap()
        notice = b"" if gap is None else self._dialect.missed(self._ids, gap.frames, gap.size, gap.last)
        before, room = cursor.offset, BATCH - len(notice)
        is_whole = most is None and not self.policy.merges
        frames = cursor.take(room) if is_whole else self._take_some(room, most)
        if len(frames) <= room:
            return notice + frames
        return self._begin(_LargeFrame(notice, frames, cursor.offset - before))

    def _look(self) -> None:
        """Looks whether the run waits for the viewer."""
        self._is_held = self.holds(self._is_held)

    def _take_some(self, room: int, most: int | None) -> bytes:
        cursor = self.cursor
        pending = cursor.peek(room)
        if not pending:
            return b""
        if self.policy.merges:
            taken = self._dialect.merge(self._ids, pending, cursor.next, most)
        else:
            taken = first_frames(pending, most)
        cursor.advance(taken.frames, taken.size)
        self._merged += taken.frames - taken.events
        if self._pace is not None:
            self._pace.spend(taken.events)
            self._look()
        # Viewers that get the same large frame share the log's copy of it.
        return pending if taken.size > BATCH and taken.data == pending else taken.data

    def _begin(self, frame: _LargeFrame) -> bytes:
        self._large = frame
        return self._take_piece(frame)

    def _take_piece(self, frame: _LargeFrame) -> bytes:
        piece = frame.take()
        if not frame.left:
            self._large = None
        return piece

    @property
    def _left(self) -> int:
        return 0 if self._large is None else self._large.left

    def ready_at(self, now: float) -> float:
        """When to ask `take` again after it was empty: infinity if only the log decides."""
        if self._pace is None or self.cursor.finished or not self.cursor.pending:
            return inf
        return self._pace.ready_at(now)

    def statistics(self) -> ViewerStatistics:
        """The count so far."""
        cursor, log = self.cursor, self._log
        cursor.settle()
        partly, partly_bytes = (0, 0) if self._large is None else (1, self._large.size)
        return ViewerStatistics(
            frames_in=log.next - self._first,
            bytes_in=log.size - self._start,
            frames_out=cursor.next - self._first - cursor.dropped - partly,
            bytes_out=cursor.offset - self._start - cursor.dropped_bytes - partly_bytes,
            frames_dropped=cursor.dropped,
            bytes_dropped=cursor.dropped_bytes,
            frames_pending=log.next - cursor.next + partly,
            bytes_pending=cursor.pending + partly_bytes,
            frames_merged=self._merged,
        )


class _LargeFrame:
    """A frame that goes out in pieces. The cursor has passed it, so that the log may give up what comes next.

    Args:
        notice: goes out before it.
        frame: its bytes, which viewers may share.
        size: its bytes in the log. Merging may leave fewer of them.
    """

    __slots__ = ("_frame", "_notice", "left", "size")

    def __init__(self, notice: bytes, frame: bytes, size: int) -> None:
        self._notice = notice
        self._frame = frame
        self.size = size
        #: Bytes of it that have not been taken.
        self.left = len(frame)

    def take(self) -> bytes:
        """The next piece."""
        start = len(self._frame) - self.left
        piece = self._frame[start : start + BATCH - len(self._notice)]
        self.left -= len(piece)
        notice, self._notice = self._notice, b""
        return notice + piece


def _bucket(max_rate: float) -> TokenBucket:
    """A bucket that spreads events evenly over the second, instead of allowing them all in its first moment."""
    return TokenBucket(max_rate, burst=1)
