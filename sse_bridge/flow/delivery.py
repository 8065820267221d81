"""What one viewer gets next: its place in the log, its policy, its pace, and the count of all of it.

Nothing here waits. Whoever writes to the viewer asks `take`; if there is nothing, it waits for the log to grow
or for `ready_at`, whichever applies.
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
from .policy import Block, Coalesce, Policy

__all__ = ["BATCH", "Delivery", "ViewerStatistics"]

#: Bytes handed to `send` at once: where asyncio's transports and uvicorn begin to push back.
BATCH: Final = 64 * 1024
#: Bytes that become one event when they are merged: at sixty a second 30 MB, and less than the 1 MiB at which some
#: clients give up (httpx2's).
_MERGED_BATCH: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class ViewerStatistics:
    """What became of everything that one viewer was there for, from the first frame that it asked for on.

    At any time `frames_in == frames_out + frames_dropped + frames_pending`, and the same for bytes. Frames and bytes
    are those of the log: several that were merged into one event count as several.
    """

    #: Frames that were there for it, and their bytes. Bytes that were gone before it came are not known.
    frames_in: int
    bytes_in: int
    #: Handed to `send`.
    frames_out: int
    bytes_out: int
    #: Not given; a `gap` says so, in dialects that have a word for it.
    frames_dropped: int
    bytes_dropped: int
    #: In the log, and neither given nor given up yet.
    frames_pending: int
    bytes_pending: int
    #: Frames of those handed out that became part of another one's event.
    frames_merged: int


class Delivery:
    """What goes to one viewer of a run, and when.

    Args:
        log: the run's.
        dialect: the run's. It words the notice of missing frames, and merges.
        ids: the run's.
        policy: what happens when the viewer falls behind.
        rate: a limit on frames; `None` for none.
        number: of the frame it begins with.
        now: seconds, on the clock of all later calls.

    Raises:
        ValueError: no frame has that number, nor will the next one.
    """

    __slots__ = (
        "_dialect",
        "_first",
        "_ids",
        "_is_plain",
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
        self.cursor = log.attach(number, None if isinstance(policy, Block) else policy.high_water)
        self._log = log
        self._dialect = dialect
        self._ids = ids
        self._merges = isinstance(policy, Coalesce)
        buckets = [bucket for bucket in (rate, _bucket(policy)) if bucket is not None]
        self._pace = Pace(buckets, now) if buckets else None
        #: Whether time matters: `now` may be anything where it does not.
        self.is_paced = self._pace is not None
        # Nothing to tell, to pace, to merge, or to give up: then it is the cursor who gives what goes out.
        self._is_plain = isinstance(policy, Block) and not buckets and not self.cursor.dropped
        self._first = number
        self._start = self.cursor.offset
        self._merged = 0

    @property
    def first(self) -> int:
        """The number of the frame it began with."""
        return self._first

    @property
    def finished(self) -> bool:
        """All was taken, and nothing will follow."""
        return self.cursor.finished

    @property
    def stall_timeout(self) -> float | None:
        """Seconds for which the run may have to wait for this viewer; `None` if there is no limit, or no waiting."""
        return self.policy.stall_timeout if isinstance(self.policy, Block) else None

    def holds(self, held: bool) -> bool:
        """Whether the run has to wait for this viewer, which it does already if `held`."""
        return isinstance(self.policy, Block) and self.policy.holds(self.cursor.pending, held)

    @property
    def calm_until(self) -> float:
        """The size of the log up to which the run need not wait, if it does not wait already. It only grows."""
        return self.cursor.offset + self.policy.high_water if isinstance(self.policy, Block) else inf

    def hurry(self) -> None:
        """Time does not matter any more: what is there may go at once."""
        self._pace = None
        self.is_paced = False

    def take(self, now: float) -> bytes:
        """What goes out next: the notice of what was given up, then frames. Empty if nothing is there, or not yet."""
        cursor = self.cursor
        if self._is_plain:
            return cursor.take(BATCH)
        most = None if self._pace is None else self._pace.available(now)
        if most == 0:
            return b""
        gap = cursor.gap()
        notice = b"" if gap is None else self._dialect.missed(self._ids, gap.frames, gap.size, gap.last)
        return notice + (cursor.take(BATCH) if most is None and not self._merges else self._take_some(most))

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
        """When to ask `take` again after it gave nothing: infinity if that depends on the log, and not on the time."""
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


def _bucket(policy: Policy) -> TokenBucket | None:
    """Events spread evenly over the second, not as many as there may be in its first moment."""
    if isinstance(policy, Coalesce) and policy.max_rate is not None:
        return TokenBucket(policy.max_rate, burst=1)
    return None
