"""Redis restarts, hangs, forgets, or is away: viewers that are served go on being served, and no run is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.redis.crew import LEASE, UNKNOWN, MakeCrew
from tests.redis.keeper import Keeper, away, keeper, numbers_in
from tests.redis.metered import Platform
from tests.redis.scripts import PACE, Flood, Ticker
from tests.redis.watching import NewViewer, all_more, come_back, finish, watch_on
from tests.support.waiting import eventually

#: Lines of a ticker that take longer than a lease and a beat.
LONGER = round(2 * LEASE / PACE)


@pytest.mark.slow
def test_a_redis_that_restarts_empty_is_filled_again(
    make_crew: MakeCrew, redis_server: Keeper, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """Row 8: viewers elsewhere see a pause and no gap, and a late one gets it all. No worker counts as dead."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    before = platform.cancels
    local, remote = watch_on(view, ticker, a, b, lines=10)
    with away(redis_server):
        local.until_more(LONGER)
    remote.until(lambda it: len(it.lines) >= len(local.lines))
    all_more((local, remote), LONGER)
    late = view().follow(c, local.token).until_more(10)
    assert not crew.is_sealed(local.token)

    finish(ticker, local, remote, late)
    numbers = numbers_in(redis_server, crew.stream(local.token))
    assert numbers == list(range(1, local.seen[-1].number + 1))
    assert platform.cancels == before


def test_a_stream_that_is_deleted_is_filled_again(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 12: a mirror has it in memory, and a new one waits for the owner to send it again."""
    crew = make_crew()
    a, b, c = crew.hire(3)
    local, remote = watch_on(view, ticker, a, b, lines=10)
    for _ in range(3):
        redis_server.ask("DEL", crew.stream(local.token))
        remote.until_more(10)
    late = view().follow(c, local.token).until(lambda it: len(it.lines) >= len(remote.lines))
    finish(ticker, local, remote, late)
    assert numbers_in(redis_server, crew.stream(local.token)) == list(range(1, local.seen[-1].number + 1))


@pytest.mark.slow
@pytest.mark.parametrize("forgets", ["all", "a stream"])
def test_a_run_that_redis_has_forgotten_while_it_was_idle_is_found_again(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer, forgets: str
) -> None:
    """Row 12, without a next frame: a worker that never had it asks in vain at most until the owner's next beats."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    command = f"echo 1; while [ ! -e {ticker.folder}/stop-{ticker.mark} ]; do sleep 0.05; done"
    local = view().start(a, command).until_more()
    b.enlist()
    eventually(lambda: redis_server.ask("EXISTS", crew.stream(local.token)))
    if forgets == "all":
        with away(redis_server):  # for so short that it need not be noticed
            pass
    else:
        redis_server.ask("DEL", crew.stream(local.token))
    late = view()
    while not late.lines:  # until then it is told to come back
        late.follow(b, local.token).until(lambda it: it.lines or it.is_over)
        assert late.end is None
    finish(ticker, local, late)


@pytest.mark.slow
def test_a_redis_that_hangs_holds_no_local_viewer_up(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 14: those of other workers wait, and get everything afterwards. No worker counts as dead."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    local, remote = watch_on(view, ticker, a, b)
    hang = 3 * LEASE
    redis_server.ask("CLIENT", "PAUSE", round(1000 * hang), "ALL")
    until = time.monotonic() + hang

    local.until_more(round(hang / 2 / PACE) // 2)
    assert time.monotonic() < until
    remote.until(lambda it: len(it.lines) >= len(local.lines)).until_more(LONGER)
    local.until_more()
    assert not crew.is_sealed(local.token)
    finish(ticker, local, remote)


@pytest.mark.slow
def test_a_key_stands_for_its_run_although_redis_has_lost_it(
    make_crew: MakeCrew, redis_server: Keeper, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """Row 8, with a key: a client that repeats its request elsewhere gets the run that it has started."""
    a, b, _ = make_crew().hire(3)
    b.enlist()
    local = view().start(a, ticker.command, "k").until_more(5)
    before = platform.starts
    with away(redis_server):
        local.until_more()
    again = view()
    while not again.lines:  # until then it is told to come back
        again.start(b, ticker.command, "k").until(lambda it: it.lines or it.is_over)
        assert again.end is None
    finish(ticker, local, again)
    assert again.token == local.token
    assert platform.starts == before


@pytest.mark.slow
def test_a_script_that_prints_much_waits_for_no_redis(
    make_crew: MakeCrew, redis_server: Keeper, tmp_path: Path, view: NewViewer
) -> None:
    """Row 8, faster: what viewers elsewhere cannot get now holds no local viewer up for longer than a lease."""
    a, b, _ = make_crew().hire(3)
    flood = Flood(tmp_path / "place", 60_000)
    local = view()
    local.start(a, flood.command).until_more()
    remote = view().follow(b, local.token).until_more()
    with away(redis_server):
        local.until_over(60).assert_complete()
    remote.until_over(60)
    come_back(remote, b)
    assert remote.end == {"type": "exit", "code": 0}
    assert len(remote.lines) + remote.dropped == len(local.lines)


@pytest.mark.slow
@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_viewers_elsewhere_have_not_left_because_redis_is_away(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer, grace: float
) -> None:
    """Row 8, with viewers elsewhere only: an outage for longer than lease and grace together costs no run."""
    crew = make_crew(options={"grace": grace})
    a, b, _ = crew.hire(3)
    local, remote = watch_on(view, ticker, a, b)
    remote.until_more(100)  # its worker has reported it with two beats
    local.cut()
    remote.until_more(10)
    with away(redis_server):
        time.sleep(2 * LEASE + grace)
        assert ticker.is_running()
    remote.until_more(LONGER)
    ticker.stop()
    remote.until_over().assert_complete()


@pytest.mark.slow
def test_what_is_asked_while_redis_is_away(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Rows 15 and 16: programs get 503; a page, which would give up on that, gets a stream that ends, and a time."""
    a, b, _ = make_crew(options={"commit_after": 1.0}).hire(3)
    local, mirrored = watch_on(view, ticker, a, b)
    moves = view().follow(b, local.token).until_more()
    moves.cut()
    b_alone = make_crew()  # a crew of its own: its worker has never seen this run
    (stranger,) = b_alone.hire(1)
    stranger.enlist()
    with away(redis_server):
        for method in ("GET", "DELETE"):
            answer = stranger.ask(method, f"/{UNKNOWN}")
            assert answer.status_code == 503, method
            assert int(answer.headers["Retry-After"]) > 0
        page = view().follow(stranger, UNKNOWN).until_over()
        assert (page.status, page.seen) == (200, [])
        assert page.retry is not None
        moves.resume(a).until_more()  # the owner needs no Redis for that
        mirrored.check()
        assert mirrored.end is None
    eventually(lambda: stranger.ask("GET", f"/{UNKNOWN}").status_code == 404)
    mirrored.until(lambda it: len(it.lines) >= len(local.lines))
    finish(ticker, local, mirrored, moves)


@pytest.mark.slow
def test_a_run_that_starts_while_redis_is_away_is_shared_later(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, platform: Platform, view: NewViewer
) -> None:
    """Row 17: its worker serves it alone meanwhile. With a key it is refused, since it must not start twice."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    for each in (a, b):
        each.enlist()
    with away(redis_server):
        before = platform.starts
        answer = a.ask("POST", headers={"Idempotency-Key": "k"}, command="seq 3")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert platform.starts == before
        viewer = view().start(a, ticker.command).until_more(10)
    eventually(lambda: redis_server.ask("EXISTS", crew.stream(viewer.token)))
    viewer.cut()
    viewer.resume(b).until_more(10)
    ticker.stop()
    viewer.until_over().assert_complete()


@pytest.mark.slow
def test_a_viewer_that_is_ahead_of_redis_waits(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 19: it has seen what Redis lacks, and comes back elsewhere. 204 would end it for good."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    local, mirrored = watch_on(view, ticker, a, b)
    redis_server.ask("CLIENT", "PAUSE", 1500, "ALL")
    local.until_more(30).cut()
    local.resume(b).until_begun()
    assert local.status == 200
    ahead = len(local.lines)
    local.until_more(30)
    assert len(local.lines) > ahead
    finish(ticker, local, mirrored)


@pytest.mark.slow
def test_a_redis_that_is_full_holds_no_local_viewer_up(
    make_crew: MakeCrew, redis_server: Keeper, tmp_path: Path, view: NewViewer
) -> None:
    """Row 13: viewers elsewhere wait, and get the rest once there is room, or are told how much they missed."""
    crew = make_crew()
    a, b, _ = crew.hire(3)
    flood = Flood(tmp_path / "place", 20_000)
    local, remote = watch_on(view, flood, a, b)
    used = redis_server.ask("INFO", "memory")["used_memory"]
    redis_server.ask("CONFIG", "SET", "maxmemory", used + 2 * 2**20)
    try:
        local.until_over(60).assert_complete()
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory", 0)
    remote.until_over(60)
    come_back(remote, b)
    assert remote.end == {"type": "exit", "code": 0}
    assert len(remote.lines) + remote.dropped == 20_000


@pytest.mark.slow
def test_a_run_that_is_larger_than_redis_goes_on_everywhere(
    make_crew: MakeCrew, tmp_path: Path, view: NewViewer
) -> None:
    """Row 13, when no room comes: Redis gives up the run's oldest frames, and later viewers are told how many."""
    with keeper(tmp_path, "--maxmemory", "4mb", "--maxmemory-policy", "noeviction") as redis:
        a, b, c = make_crew(redis=redis).hire(3)
        flood = Flood(tmp_path / "place", 20_000)
        local, remote = watch_on(view, flood, a, b)
        local.until_over(60).assert_complete()
        for each, worker in ((remote, b), (view().follow(c, local.token), c)):
            each.until_over(60)
            come_back(each, worker)
            assert each.end == {"type": "exit", "code": 0}
            assert len(each.lines) + each.dropped == 20_000
