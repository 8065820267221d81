"""What is counted: snapshots that do not change, and the totals from which they are taken (`design.md` §7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..flow.delivery import ViewerStatistics
from ..upstream.base import Cancelled

__all__ = ["BridgeStatistics", "RunStatistics", "Totals"]


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """One run at one moment. Sizes are in bytes."""

    #: The first six characters of its token, as in logs: who knows all of it may follow and cancel the run.
    name: str
    #: Whether its terminal frame is out.
    is_over: bool
    #: Frames that it has had so far, in the dialect's form, and their bytes.
    frames_in: int
    bytes_in: int
    #: Bytes of them that are held in memory.
    bytes_kept: int
    #: Frames of the upstream's that were larger than `max_frame_size`, and their bytes.
    frames_discarded: int
    bytes_discarded: int
    #: How many times reading had to wait for a slow viewer.
    stalls: int
    #: Those who follow it now.
    viewers: tuple[ViewerStatistics, ...]


@dataclass(frozen=True, slots=True)
class BridgeStatistics:
    """A bridge at one moment. What is not said to be now is counted since the bridge was made. Sizes are in bytes.

    The totals of viewers include those who are there now. A viewer's own numbers add up (`ViewerStatistics`); those of
    the bridge need not, since a frame may go to many viewers, and who leaves may have frames pending.
    """

    #: Runs that go on now, or are followed now.
    runs: tuple[RunStatistics, ...]
    #: Runs that were started.
    runs_started: int
    #: Viewers there were, those who came back counted again.
    viewers_seen: int
    #: Viewers that were disconnected because they took nothing: `send_timeout` or `Block.stall_timeout`.
    viewers_stalled: int
    #: Requests that got 503 because of `max_runs` or `max_viewers`.
    requests_turned_away: int
    #: What came from upstreams, in the dialect's form.
    frames_in: int
    bytes_in: int
    #: What was handed to viewers, before merging.
    frames_out: int
    bytes_out: int
    #: What viewers did not get.
    frames_dropped: int
    bytes_dropped: int
    #: Frames that became part of another one's event.
    frames_merged: int
    #: Frames of upstreams that were larger than `max_frame_size`.
    frames_discarded: int
    bytes_discarded: int
    #: How many times reading had to wait for a slow viewer.
    stalls: int
    #: Execs that had to be ended, by how far that got: `confirmed` (seen gone), `acknowledged`, `requested`.
    cancels: Mapping[str, int]

    @property
    def viewers(self) -> int:
        """Viewers that are there now."""
        return sum(len(run.viewers) for run in self.runs)


_FROM_VIEWERS: Final = ("frames_out", "bytes_out", "frames_dropped", "bytes_dropped", "frames_merged")
_FROM_RUNS: Final = ("frames_in", "bytes_in", "frames_discarded", "bytes_discarded", "stalls")


class Totals:
    """What a bridge has counted of viewers that have left and of runs that are forgotten."""

    def __init__(self) -> None:
        self.runs_started = 0
        self.viewers_seen = 0
        self.viewers_stalled = 0
        self.requests_turned_away = 0
        self._cancels = {outcome.value: 0 for outcome in Cancelled}
        self._sums = dict.fromkeys((*_FROM_VIEWERS, *_FROM_RUNS), 0)

    def add_viewer(self, viewer: ViewerStatistics) -> None:
        """One that has left."""
        _add(self._sums, viewer, _FROM_VIEWERS)

    def add_run(self, run: RunStatistics) -> None:
        """One that is over, and of which nothing is counted any more but viewers."""
        _add(self._sums, run, _FROM_RUNS)

    def add_cancel(self, outcome: Cancelled) -> None:
        """An exec had to be ended."""
        self._cancels[outcome.value] += 1

    def snapshot(self, runs: tuple[RunStatistics, ...]) -> BridgeStatistics:
        """Everything, with what goes on now."""
        sums = dict(self._sums)
        for run in runs:
            if not run.is_over:
                _add(sums, run, _FROM_RUNS)
            for viewer in run.viewers:
                _add(sums, viewer, _FROM_VIEWERS)
        return BridgeStatistics(
            runs=runs,
            runs_started=self.runs_started,
            viewers_seen=self.viewers_seen,
            viewers_stalled=self.viewers_stalled,
            requests_turned_away=self.requests_turned_away,
            cancels=MappingProxyType(dict(self._cancels)),
            **sums,
        )


def _add(sums: dict[str, int], counted: ViewerStatistics | RunStatistics, names: tuple[str, ...]) -> None:
    for name in names:
        sums[name] += getattr(counted, name)
