"""Viewers of other workers count as viewers: the last one that leaves ends the command, and a slow one holds it up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.redis.crew import LEASE, NOTICE, MakeCrew
from tests.redis.scripts import PACE, Flood, Ticker
from tests.redis.watching import NewViewer, watch_on
from tests.support.waiting import eventually

GRACE = 3.0
#: Lines of a ticker that take longer than the grace period.
LONGER = round(1.5 * GRACE / PACE)


@pytest.mark.slow
def test_the_last_viewer_that_leaves_ends_the_command_wherever_it_was(
    make_crew: MakeCrew, ticker: Ticker, view: NewViewer
) -> None:
    """Row 22: the viewer of another worker keeps it running; once that has gone, too, the owner ends it."""
    crew = make_crew(options={"grace": GRACE})
    a, b, c = crew.hire(3)
    first, other = watch_on(view, ticker, a, c)
    first.cut()
    other.until_more(LONGER)
    assert ticker.is_running()

    other.cut()
    left_at = time.monotonic()
    ticker.until_gone(GRACE + LEASE + 10)
    assert time.monotonic() - left_at > GRACE / 2
    other.resume(b).until_over()
    assert other.end is not None
    assert other.end["code"] == "abandoned"


@pytest.mark.slow
def test_a_viewer_that_moves_within_the_grace_period_has_not_left(
    make_crew: MakeCrew, ticker: Ticker, view: NewViewer
) -> None:
    """Row 22, the other half: from the owner to C, and from C to B."""
    a, b, c = make_crew(options={"grace": GRACE}).hire(3)
    viewer = view().start(a, ticker.command).until_more()
    for worker in (c, b):
        viewer.cut()
        viewer.resume(worker).until_more(LONGER)
    ticker.stop()
    viewer.until_over().assert_complete()


MARK = 256 * 1024
#: A line of the flood, as a frame.
FRAME = 1100
#: 60 MB: more than all buffers on the way hold.
LINES = 60_000
#: What pipes, sockets, clients and servers hold between the script and the owner, and between a mirror and its viewer.
ELSEWHERE = 16 * 2**20


def waits(flood: Flood) -> bool:
    """Whether the script has printed nothing for a while."""
    before = flood.printed()
    time.sleep(1)
    return flood.printed() == before > 0


@pytest.mark.slow
def test_a_slow_viewer_elsewhere_makes_the_script_wait(make_crew: MakeCrew, tmp_path: Path, view: NewViewer) -> None:
    """Row 20: `Block` holds the script in its `print`, over Redis and all. Nothing is lost."""
    policies = {"patient": ("Block", {"high_water": MARK, "stall_timeout": None})}
    crew = make_crew(policies=policies, options={"send_timeout": None})
    a, _, c = crew.hire(3)
    flood = Flood(tmp_path / "place", LINES)
    slow = view()
    slow.hold()
    fast = view().start(a, flood.command).until_begun()
    slow.follow(c, fast.token, policy="patient")

    eventually(lambda: waits(flood), 60)
    assert flood.printed() * FRAME < ELSEWHERE
    assert len(fast.lines) < LINES
    slow.release()
    for each in (fast, slow):
        each.until_over(90).assert_complete()
    assert slow.lines == fast.lines == list(range(1, LINES + 1))


@pytest.mark.slow
def test_a_viewer_that_stalls_elsewhere_is_let_go_by_its_worker(
    make_crew: MakeCrew, tmp_path: Path, view: NewViewer
) -> None:
    """Row 20, the end of patience: the run goes on, and the viewer may come back."""
    policies = {"stalls": ("Block", {"high_water": MARK, "stall_timeout": 2.0})}
    crew = make_crew(policies=policies)
    a, _, c = crew.hire(3)
    flood = Flood(tmp_path / "place", LINES)
    slow = view()
    slow.hold()
    fast = view().start(a, flood.command).until_begun()
    slow.follow(c, fast.token, policy="stalls")

    fast.until_over(90).assert_complete()
    slow.release()
    slow.until_over()
    assert slow.end is None


@pytest.mark.slow
def test_a_script_that_waits_for_a_dead_workers_viewer_goes_on(
    make_crew: MakeCrew, tmp_path: Path, view: NewViewer
) -> None:
    """Row 21: a worker that is silent for a lease holds nothing up any more."""
    policies = {"patient": ("Block", {"high_water": MARK, "stall_timeout": None})}
    crew = make_crew(policies=policies, options={"send_timeout": None})
    a, _, c = crew.hire(3)
    flood = Flood(tmp_path / "place", LINES)
    slow = view()
    slow.hold()
    fast = view().start(a, flood.command).until_begun()
    slow.follow(c, fast.token, policy="patient")
    eventually(lambda: waits(flood), 60)
    printed = flood.printed()

    c.kill()
    eventually(lambda: flood.printed() > printed, NOTICE)
    fast.until_over(90).assert_complete()


def test_a_late_viewer_elsewhere_is_told_exactly_what_it_missed(
    make_crew: MakeCrew, tmp_path: Path, view: NewViewer
) -> None:
    """Redis keeps what the owner keeps. A gap counts what both have forgotten, for viewers of either."""
    crew = make_crew(options={"replay": 200_000})
    a, b, _ = crew.hire(3)
    flood = Flood(tmp_path / "place", 3000)
    first = view().start(a, flood.command).until_over()
    first.assert_complete()
    for worker in (a, b):
        late = view().follow(worker, first.token).until_over()
        assert [each.object["type"] for each in late.seen[:3]] == ["start", "gap", "stdout"]
        assert late.seen[2:] == first.seen[-len(late.seen) + 2 :]


@pytest.mark.slow
def test_a_viewer_elsewhere_that_may_lose_frames_holds_nothing_up(
    make_crew: MakeCrew, tmp_path: Path, view: NewViewer
) -> None:
    """`Drop` works at the viewer's own worker: the script goes on, and the gap is exact."""
    crew = make_crew(policies={"drops": ("Drop", {"high_water": MARK})}, options={"send_timeout": None})
    a, _, c = crew.hire(3)
    flood = Flood(tmp_path / "place", LINES)
    slow = view()
    slow.hold()
    fast = view().start(a, flood.command).until_begun()
    slow.follow(c, fast.token, policy="drops")
    fast.until_over(90).assert_complete()
    slow.release()
    slow.until_over(90)
    assert slow.end == {"type": "exit", "code": 0}
    assert slow.dropped > 0
    assert len(slow.lines) + slow.dropped == LINES
