"""`Totals`: each run and each viewer is counted once, whether it is still there or not."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from sse_bridge.flow.delivery import ViewerStatistics
from sse_bridge.relay.statistics import CancelStatistics, RunStatistics, Totals
from sse_bridge.upstream.base import Cancelled


def viewer(frames: int) -> ViewerStatistics:
    return ViewerStatistics(frames, 10 * frames, frames - 2, 10 * (frames - 2), 2, 20, 0, 0, 1)


def run(frames: int, *viewers: ViewerStatistics, is_over: bool = False) -> RunStatistics:
    return RunStatistics("tokent", is_over, frames, 10 * frames, 10 * frames, 1, 100, 3, viewers)


def test_runs_that_go_on_are_in_the_totals() -> None:
    """With what is known of them now."""
    now = Totals().snapshot((run(5), run(7)))

    assert (now.frames_in, now.bytes_in, now.frames_discarded, now.bytes_discarded, now.stalls) == (12, 120, 2, 200, 6)


def test_a_run_that_is_over_counts_once() -> None:
    """It was added to the totals when it ended, and may still be followed."""
    totals = Totals()
    totals.add_run(run(5, is_over=True))

    assert totals.snapshot((run(5, is_over=True),)).frames_in == 5


def test_viewers_count_while_they_are_there_and_after_they_have_left() -> None:
    """Of runs that go on and of runs that are over."""
    totals = Totals()
    totals.add_viewer(viewer(10))
    now = totals.snapshot((run(5, viewer(4)), run(5, viewer(3), viewer(3), is_over=True)))

    assert (now.frames_out, now.bytes_out) == (8 + 2 + 1 + 1, 120)
    assert (now.frames_dropped, now.bytes_dropped, now.frames_merged) == (8, 80, 4)
    assert now.viewers == 3


def test_execs_that_were_ended_count_by_how_far_that_got() -> None:
    """A snapshot keeps its counts when more are ended."""
    totals = Totals()
    totals.add_cancel(Cancelled.CONFIRMED)
    before = totals.snapshot(())
    totals.add_cancel(Cancelled.REQUESTED)

    assert before.cancels == CancelStatistics(requested=0, acknowledged=0, confirmed=1)
    assert totals.snapshot(()).cancels == CancelStatistics(requested=1, acknowledged=0, confirmed=1)


def test_a_snapshot_is_made_of_values_that_json_knows() -> None:
    """Its whole tree, viewers of runs included."""
    totals = Totals()
    totals.add_cancel(Cancelled.ACKNOWLEDGED)
    now = totals.snapshot((run(5, viewer(4), viewer(3)),))
    read = json.loads(json.dumps(asdict(now)))

    assert read["cancels"] == {"requested": 0, "acknowledged": 1, "confirmed": 0}
    assert [viewer["frames_in"] for viewer in read["runs"][0]["viewers"]] == [4, 3]
    assert read["frames_dropped"] == 4


def test_a_snapshot_cannot_be_changed() -> None:
    """That goes for every part of it."""
    now = Totals().snapshot((run(5, viewer(4)),))
    for part, name in [
        (now, "stalls"),
        (now.cancels, "confirmed"),
        (now.runs[0], "stalls"),
        (now.runs[0].viewers[0], "bytes_in"),
    ]:
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 7)
