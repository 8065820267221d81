"""Workers that are told to stop, as each deploy does."""

from __future__ import annotations

import signal
import time

import pytest

from tests.redis.crew import LEASE, MakeCrew
from tests.redis.metered import Platform
from tests.redis.scripts import Ticker
from tests.redis.watching import NewViewer, finish, watch_on
from tests.support.waiting import eventually


def test_an_owner_that_stops_ends_its_runs_at_once(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """Viewers elsewhere wait for no lease, and hear the same as its own."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    local, remote = watch_on(view, ticker, a, b)
    before = platform.cancels
    stopped_at = time.monotonic()
    a.process.send_signal(signal.SIGTERM)
    for each in (local, remote):
        each.until_over()
        assert each.end is not None
        assert each.end["code"] == "server_stopped"
    ticker.until_gone()
    a.process.wait(10)
    assert time.monotonic() - stopped_at < LEASE + 1 + 3
    assert not crew.is_sealed(local.token)
    assert remote.seen == local.seen
    eventually(lambda: crew.runs() == [])  # a worker that has no time to say so at its end is buried by another one
    assert platform.cancels == before + 1


def test_viewers_of_a_worker_that_stops_go_on_elsewhere(make_crew: MakeCrew, ticker: Ticker, view: NewViewer) -> None:
    """It is not their run's owner, so the run goes on: they are told to come back, and are not told of an end."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    local, moves = watch_on(view, ticker, a, b)
    b.process.send_signal(signal.SIGTERM)
    moves.until_over()
    assert moves.end is None
    moves.resume(c).until_more()
    local.until_more()
    finish(ticker, local, moves)


def test_a_deploy_moves_viewers_and_leaves_the_run_alone(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """Row 27: with `drain` the owner goes on reading, while its viewers go on elsewhere. It ends with its run."""
    crew = make_crew(options={"drain": 30.0})
    a, b, _ = crew.hire(3)
    local = view().start(a, ticker.command).until_more()
    before = platform.cancels
    a.process.send_signal(signal.SIGTERM)
    local.until_over()
    assert local.end is None
    assert local.retry is not None
    local.resume(b).until_more(10)
    assert a.process.poll() is None
    ticker.stop()
    local.until_over().assert_complete()
    a.process.wait(10)
    assert platform.cancels == before


@pytest.mark.slow
def test_a_run_that_outlasts_the_drain_is_ended(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """The worker has to stop at some time."""
    crew = make_crew(options={"drain": 1.0})
    a, b, _ = crew.hire(3)
    local = view().start(a, ticker.command).until_more()
    before = platform.cancels
    a.process.send_signal(signal.SIGTERM)
    local.until_over()
    local.resume(b).until_over()
    assert local.end is not None
    assert local.end["code"] == "server_stopped"
    a.process.wait(10)
    ticker.until_gone()
    assert platform.cancels == before + 1
