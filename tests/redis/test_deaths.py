"""Workers that die, and workers that stand still and wake up again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from tests.redis.crew import LEASE, NOTICE, MakeCrew
from tests.redis.keeper import Keeper
from tests.redis.metered import Platform
from tests.redis.scripts import PACE, Ticker
from tests.redis.watching import NewViewer, Viewer, all_more, finish, watch_on
from tests.support.waiting import eventually

#: Seconds that a worker has for ending a dead worker's run.
CLAIM = 15
#: Lines of a ticker that take longer than a lease and a beat.
LONGER = round(2 * LEASE / PACE)


def assert_lost(viewer: Viewer, within: float = NOTICE) -> None:
    """The viewer is told that its run's owner is gone, in place of the next frame."""
    viewer.until_over(within)
    assert viewer.end is not None, viewer.seen[-1:]
    assert viewer.end["code"] == "owner_lost"
    assert viewer.lines == list(range(1, len(viewer.lines) + 1))


def assert_fenced(keeper: Keeper, key: str) -> None:
    """Whatever comes late, Redis refuses it."""
    with pytest.raises(redis.ResponseError):
        keeper.ask("XADD", key, "NOMKSTREAM", "1000000-0", "f", "1000000", "b", "late")
    with pytest.raises(redis.ResponseError):
        keeper.ask("XADD", key, "*", "e", "owner_lost")


@pytest.mark.slow
def test_viewers_of_a_dead_worker_go_on_elsewhere(make_crew: MakeCrew, ticker: Ticker, view: NewViewer) -> None:
    """Row 1: the command goes on, and each gets every line once."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    first = view().start(a, ticker.command).until_more()
    others = [view().follow(b, first.token).until_more() for _ in range(5)]
    b.kill()
    for each in others:
        each.until_over()
        assert each.end is None
        each.resume(c)
    all_more((first, *others), LONGER)
    eventually(lambda: len(crew.alive()) == 2)
    finish(ticker, first, *others)


def test_the_death_of_the_owner_ends_the_run_and_its_command(
    make_crew: MakeCrew, redis_server: Keeper, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """Row 2: viewers elsewhere are told at once, those of the owner when they come back. The command is ended once."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    local = view().start(a, ticker.command).until_more()
    remote = [view().follow(each, local.token).until_more() for each in (b, c)]
    assert len(crew.runs()) == 1
    before = platform.cancels

    a.kill()
    for each in remote:
        assert_lost(each)
    assert remote[0].seen == remote[1].seen
    ticker.until_gone()
    local.until_over()
    assert local.end is None
    assert_lost(local.resume(b))

    assert crew.is_sealed(local.token)
    assert_fenced(redis_server, crew.stream(local.token))
    eventually(lambda: crew.runs() == [] and len(crew.alive()) == 2)
    assert platform.cancels == before + 1
    late = view().follow(c, local.token)
    assert_lost(late)
    assert late.seen == remote[0].seen
    assert late.resume(b).until_over().status == 204


@pytest.mark.slow
def test_an_owner_that_wakes_up_changes_nothing(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 3: it stood still for longer than a lease, so it was buried. Its own viewers are told when it wakes."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    local, remote = watch_on(view, ticker, a, b)
    a.freeze()
    assert_lost(remote)
    ticker.until_gone()
    said = redis_server.ask("XRANGE", crew.stream(local.token), "-", "+")

    a.thaw()
    assert_lost(local)
    assert redis_server.ask("XRANGE", crew.stream(local.token), "-", "+") == said
    assert crew.is_sealed(local.token)
    assert_fenced(redis_server, crew.stream(local.token))
    again = view().start(a, "seq 3").until_over()  # it works as before
    again.assert_complete()


@pytest.mark.slow
def test_an_idle_owner_that_wakes_up_ends_its_run(
    make_crew: MakeCrew, ticker: Ticker, tmp_path: Path, view: NewViewer
) -> None:
    """Row 3, with a command that says nothing: no frame of its is refused, and its viewers are told all the same."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    local = view().start(a, f"sleep {ticker.mark}").until(lambda it: it.seen)
    remote = view().follow(b, local.token).until(lambda it: it.seen)
    eventually(ticker.is_running)
    a.freeze()
    assert_lost(remote)
    ticker.until_gone()
    a.thaw()
    local.until_over()
    assert local.end is not None
    assert local.end["type"] == "error"


@pytest.mark.slow
def test_a_judge_that_stood_still_accuses_nobody(make_crew: MakeCrew, ticker: Ticker, view: NewViewer) -> None:
    """Row 4: it has seen no beat for longer than a lease, and knows why. Its own viewers go on, too."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    viewers = [view().start(a, ticker.command).until_more()]
    viewers += [view().follow(each, viewers[0].token).until_more() for each in (b, c)]
    c.freeze()
    viewers[0].until_more(LONGER)
    c.thaw()
    all_more(viewers, LONGER)
    assert not crew.is_sealed(viewers[0].token)
    ticker.stop()
    for each in viewers:
        each.until_over().assert_complete()


@pytest.mark.slow
def test_many_judges_end_a_run_once(make_crew: MakeCrew, platform: Platform, tmp_path: Path, view: NewViewer) -> None:
    """Row 5: four workers see the same death, and each of its commands is asked to end once."""
    crew = make_crew()
    a, *others = crew.hire(5)
    tickers = [Ticker.new(tmp_path) for _ in range(3)]
    owned = [view().start(a, each.command).until_more() for each in tickers]
    remote = [[view().follow(each, mine.token).until_more() for each in others] for mine in owned]
    before = platform.cancels

    a.kill()
    for watchers in remote:
        for each in watchers:
            assert_lost(each)
            assert each.seen == watchers[0].seen
    for ticker in tickers:
        ticker.until_gone()
    eventually(lambda: crew.runs() == [])
    assert platform.cancels == before + len(tickers)


@pytest.mark.slow
def test_a_burial_that_is_cut_short_is_finished_by_another_worker(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """Row 6: the worker that buries dies behind its seal, while the platform does not answer it."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    names = {}
    for each in (b, c):
        before = crew.alive()
        each.enlist()
        (names[each],) = eventually(lambda before=before: crew.alive() - before)  # type: ignore[misc]
    local = view().start(a, ticker.command).until_more()
    remote = {each: view().follow(each, local.token).until_more() for each in (b, c)}
    cancels = platform.cancels
    with platform.hanging():
        a.kill()
        name = eventually(lambda: crew.buries(local.token), NOTICE)
        (digger,) = [each for each in (b, c) if names[each] == name]
        (heir,) = {b, c} - {digger}
        assert_lost(remote[heir])
        eventually(lambda: platform.cancels == cancels + 1)
        digger.kill()
    assert crew.is_sealed(local.token)
    assert crew.runs() != []
    assert ticker.is_running()

    ticker.until_gone(CLAIM + NOTICE)
    eventually(lambda: crew.runs() == [] and crew.alive() == {names[heir]}, NOTICE)
    for lost in (local, remote[digger]):
        lost.until_over()
        if lost.end is None:  # else its worker has told it before it died
            assert_lost(lost.resume(heir))


@pytest.mark.slow
def test_work_that_could_not_be_ended_is_ended_later(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """The platform answers neither the first call nor the second."""
    crew = make_crew()
    a, b = crew.hire(2)
    watch_on(view, ticker, a, b)
    cancels = platform.cancels
    with platform.hanging():
        a.kill()
        eventually(lambda: platform.cancels == cancels + 2, NOTICE + CLAIM + 10)
        assert crew.runs() != []

    ticker.until_gone(2 * CLAIM)
    eventually(lambda: crew.runs() == [])


@pytest.mark.slow
def test_workers_that_start_later_end_what_all_have_left(make_crew: MakeCrew, ticker: Ticker, view: NewViewer) -> None:
    """Row 7: a fleet that lost its power ends its orphans when it is back."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    viewer, remote = watch_on(view, ticker, a, b)
    for each in (a, b, c):
        each.kill()
    assert ticker.is_running()

    (d,) = crew.hire(1)
    begun = time.monotonic()
    d.enlist()
    ticker.until_gone(NOTICE + 10)
    assert time.monotonic() - begun > LEASE / 2  # it has waited for a sign of life
    eventually(lambda: crew.runs() == [] and len(crew.alive()) == 1)
    for lost in (viewer, remote):
        lost.until_over()
        assert_lost(lost.resume(d))
