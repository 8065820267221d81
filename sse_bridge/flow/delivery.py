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
from .log import RunLog
from .pace import Pace, TokenBucket
from .policy import Policy

__all__ = ["BATCH", "Delivery", "ViewerStatistics"]

#: Bytes handed to `send` at once: where asyncio's transports and uvicorn begin to push back.
BATCH: Final = 64 * 1024
#: Bytes that become one event when they are merged: at sixty a second 30 MB, and less than the 1 MiB at which some
#: clients give up (httpx2's).
_MERGED_BATCH: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class ViewerStatistics:
    """Counts of everything a viewer was due, from the first frame it asked for on.

    At any time `frames_in == frames_out + frames_dropped + frames_pending`, and the same for bytes. Frames and bytes
    are those of the log: several that were merged into one event count as several.
    """

    #: Frames it was due, and their bytes. The bytes exclude frames that the log had forgotten before it came.
    frames_in: int
    bytes_in: int
    #: Handed to `send`.
    frames_out: int
    bytes_out: int
    #: Given up. A `gap` says so, in dialects that have frames of their own.
    frames_dropped: int
    bytes_dropped: int
    #: Waiting in the log.
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
        "_is_plain",
        "_lifted",
        "_log",
        "_merged",
        "_merges",
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
        self._merges = policy.merges
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

    @property
    def first(self) -> int:
        """The number of the frame that the viewer began with."""
        return self._first

    @property
    def finished(self) -> bool:
        """All frames were taken, and the log is closed."""
        return self.cursor.finished

    @property
    def stall_timeout(self) -> float | None:
        """Seconds that this viewer may hold the run, if it `holds` it at all; `None` if it may do so indefinitely.

        A wait for its pace comes on top: the bridge makes it, and a rate of one event a minute is no stall.
        """
        timeout = self.policy.stall_timeout
        return timeout if timeout is None or self._pace is None else timeout + self._pace.longest_wait

    def holds(self, held: bool) -> bool:
        """Whether the run has to wait for this viewer. `held` says whether it is waiting already."""
        return self.policy.holds(self.cursor.pending, held)

    @property
    def calm_until(self) -> float:
        """The size of the log up to which a run that is not held stays so. It only grows."""
        return inf if self.policy.may_lose else self.cursor.offset + self.policy.high_water

    def hurry(self) -> None:
        """Drops the pace: pending frames may go at once."""
        self._pace = None
        self.is_paced = False

    def take(self, now: float) -> bytes:
        """What goes out next: a notice of frames that were given up, then frames.

        Empty while the log has no more, or the pace allows none.
        """
        cursor = self.cursor
        if self._is_plain:
            return cursor.take(BATCH)
        most = None if self._pace is None else self._pace.available(now, self._lifted if self._is_behind else 0)
        if most == 0:
            return b""
        gap = cursor.gap()
        notice = b"" if gap is None else self._dialect.missed(self._ids, gap.frames, gap.size, gap.last)
        return notice + (cursor.take(BATCH) if most is None and not self._merges else self._take_some(most))

    @property
    def _is_behind(self) -> bool:
        return self.cursor.pending > self.policy.high_water

    def _take_some(self, most: int | None) -> bytes:
        cursor = self.cursor
        pending = cursor.peek(_MERGED_BATCH if self._merges else BATCH)
        if not pending:
            return b""
        if self._merges:
            taken = self._dialect.merge(self._ids, pending, cursor.next, most)
        else:
            taken = first_frames(pending, most)
        cursor.advance(taken.frames, taken.size)
        self._merged += taken.frames - taken.events
        if self._pace is not None:
            self._pace.spend(taken.events)
        return taken.data

    def ready_at(self, now: float) -> float:
        """When to ask `take` again after it was empty: infinity if only the log decides."""
        if self._pace is None or self.cursor.finished or not self.cursor.pending:
            return inf
        return self._pace.ready_at(now)

    def statistics(self) -> ViewerStatistics:
        """The count so far."""
        cursor, log = self.cursor, self._log
        cursor.settle()
        return ViewerStatistics(
            frames_in=log.next - self._first,
            bytes_in=log.size - self._start,
            frames_out=cursor.next - self._first - cursor.dropped,
            bytes_out=cursor.offset - self._start - cursor.dropped_bytes,
            frames_dropped=cursor.dropped,
            bytes_dropped=cursor.dropped_bytes,
            frames_pending=log.next - cursor.next,
            bytes_pending=cursor.pending,
            frames_merged=self._merged,
        )


def _bucket(max_rate: float) -> TokenBucket:
    """A bucket that spreads events evenly over the second, instead of allowing them all in its first moment."""
    return TokenBucket(max_rate, burst=1)
