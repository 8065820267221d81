"""What is counted: immutable snapshots, and the totals they are taken from.

A snapshot is a tree of frozen dataclasses, tuples, dicts, texts and numbers, so `dataclasses.asdict` and `json.dumps`
take it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from ..flow.delivery import ViewerStatistics
from ..upstream.base import Cancelled
from .info import Outcome
from .kinds import KINDS
from .watching import Watchers

__all__ = ["BridgeStatistics", "CancelStatistics", "RunStatistics", "StoreStatistics", "Totals", "WorkerStatistics"]


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """One run at one moment. Sizes are in bytes."""

    #: The first six characters of its token, as in logs. The whole token lets its holder follow and cancel it.
    name: str
    #: Whether its terminal frame is out.
    is_over: bool
    #: Frames the run has had so far, as the dialect spells them, and their bytes.
    frames_in: int
    bytes_in: int
    #: Bytes of these frames that are held in memory.
    bytes_kept: int
    #: Upstream frames larger than `max_frame_size`, and their bytes.
    frames_discarded: int
    bytes_discarded: int
    #: How often reading had to wait for a slow viewer.
    stalls: int
    #: The viewers that follow it now.
    viewers: tuple[ViewerStatistics, ...]
    #: Whether another worker reads it. Its frames count there, and its viewers here.
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True)
class CancelStatistics:
    """Execs that the bridge had to end, by how far that got. Each counts once."""

    #: The platform gave no answer, or refused.
    requested: int
    #: The platform took the request, but the exec was not seen to end.
    acknowledged: int
    #: The exec was seen to be gone.
    confirmed: int


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What this process shares with other workers. `mirrors` and the lag describe the present."""

    #: Other workers' runs that are followed here.
    mirrors: int
    #: Frames of other workers' runs that came here. They are not part of `BridgeStatistics.frames_in`.
    frames_mirrored: int
    #: Frames that Redis has taken, those that it took anew included.
    published: int
    #: Frames of all runs of this process that Redis has yet to take.
    publish_lag_frames: int
    #: Seconds that Redis has lacked the oldest of them.
    publish_lag_seconds: float
    #: Connections to Redis that were made again and answered, after one broke. A worker has four.
    reconnects: int
    #: Runs whose frames Redis refused, because another worker took this one for dead and ended them.
    refused: int
    #: Frames that Redis lost, and that were written again.
    refilled: int
    #: The work of dead workers that was ended here, by how far that got, as in `CancelStatistics`.
    orphans_ended: dict[str, int]


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """What one worker said of itself with its last beat, a second ago at most. `None`: it did not say.

    Workers of an older version say nothing but the beat.
    """

    #: Random, for each process and event loop; empty without a store.
    name: str
    #: Whether it is the one that answers.
    is_here: bool
    #: How often it has beaten: once a second.
    beat: int
    #: Runs that it reads.
    runs: int | None
    #: Viewers that it serves.
    viewers: int | None
    #: Other workers' runs that it follows.
    mirrors: int | None
    #: Frames of its runs that Redis has yet to take.
    lag: int | None


@dataclass(frozen=True, slots=True)
class BridgeStatistics:
    """A bridge at one moment. Sizes are in bytes.

    `runs` describes the present; everything else is counted since the bridge was made, present runs and viewers
    included. A viewer's own numbers add up (`ViewerStatistics`). Those of the bridge need not: one frame may go to many
    viewers, and a viewer that leaves may have frames pending.
    """

    #: Runs that are active or followed now.
    runs: tuple[RunStatistics, ...]
    #: Runs whose upstream has said yes.
    runs_started: int
    #: Runs that have left no work running, or have stopped waiting for its end, by `Outcome.kind`. Refused ones count.
    runs_ended: dict[str, int]
    #: Viewers so far. One that comes back counts again.
    viewers_seen: int
    #: Viewers disconnected because they stopped reading: `send_timeout`, or their policy's `stall_timeout`.
    viewers_stalled: int
    #: Requests that got 503 because of `max_runs` or `max_viewers`.
    requests_turned_away: int
    #: Requests that got no stream, by HTTP status, whether the refusal went out as a status or as a frame.
    requests_refused: dict[int, int]
    #: What came from upstreams, as the dialect spells it. Another worker's run counts there.
    frames_in: int
    bytes_in: int
    #: What was handed to viewers, before merging.
    frames_out: int
    bytes_out: int
    #: What viewers lost to their policy, or to coming late.
    frames_dropped: int
    bytes_dropped: int
    #: Frames that became part of another one's event.
    frames_merged: int
    #: Upstream frames larger than `max_frame_size`, and their bytes.
    frames_discarded: int
    bytes_discarded: int
    #: How often reading had to wait for a slow viewer.
    stalls: int
    #: Execs the bridge had to end.
    cancels: CancelStatistics
    #: What is shared with other workers; `None` without a store.
    store: StoreStatistics | None = None

    @property
    def viewers(self) -> int:
        """How many viewers there are now."""
        return sum(len(run.viewers) for run in self.runs)


_FROM_VIEWERS: Final = ("frames_out", "bytes_out", "frames_dropped", "bytes_dropped", "frames_merged")
_FROM_RUNS: Final = ("frames_in", "bytes_in", "frames_discarded", "bytes_discarded", "stalls")


class Totals:
    """What a bridge has counted of viewers that have left and of runs that are over."""

    def __init__(self) -> None:
        self.runs_started = 0
        self.viewers_seen = 0
        self.viewers_stalled = 0
        self.requests_turned_away = 0
        #: Told of every run.
        self.watchers = Watchers()
        self._runs_ended = dict.fromkeys(KINDS, 0)
        self._requests_refused: Counter[int] = Counter()
        self._cancels: Counter[Cancelled] = Counter()
        self._sums = dict.fromkeys((*_FROM_VIEWERS, *_FROM_RUNS), 0)

    def add_viewer(self, viewer: ViewerStatistics) -> None:
        """Adds the count of a viewer that has left."""
        _add(self._sums, viewer, _FROM_VIEWERS)

    def add_run(self, run: RunStatistics) -> None:
        """Adds the count of a run of this process that is over. Its viewers are counted on their own."""
        _add(self._sums, run, _FROM_RUNS)

    def add_end(self, outcome: Outcome) -> None:
        """Counts a run that has left no work running."""
        self._runs_ended[outcome.kind] += 1

    def add_refusal(self, status: int) -> None:
        """Counts a request that gets no stream."""
        self._requests_refused[status] += 1

    def add_cancel(self, outcome: Cancelled) -> None:
        """Counts an exec that the bridge had to end."""
        self._cancels[outcome] += 1

    def snapshot(self, runs: tuple[RunStatistics, ...], store: StoreStatistics | None = None) -> BridgeStatistics:
        """All counts, those of present runs and viewers included."""
        sums = dict(self._sums)
        for run in runs:
            if not run.is_over and not run.is_mirrored:
                _add(sums, run, _FROM_RUNS)
            for viewer in run.viewers:
                _add(sums, viewer, _FROM_VIEWERS)
        return BridgeStatistics(
            runs=runs,
            runs_started=self.runs_started,
            runs_ended=dict(self._runs_ended),
            viewers_seen=self.viewers_seen,
            viewers_stalled=self.viewers_stalled,
            requests_turned_away=self.requests_turned_away,
            requests_refused=dict(self._requests_refused),
            cancels=CancelStatistics(**{outcome.value: self._cancels[outcome] for outcome in Cancelled}),
            store=store,
            **sums,
        )


def _add(sums: dict[str, int], counted: ViewerStatistics | RunStatistics, names: tuple[str, ...]) -> None:
    for name in names:
        sums[name] += getattr(counted, name)
