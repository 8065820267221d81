"""What happens between a worker and Redis: an answer that is lost, and entries that are trimmed under a reader."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis.crew import MakeCrew
from tests.redis.keeper import Keeper, numbers_in
from tests.redis.scripts import Ticker
from tests.redis.switch import Switch, switch
from tests.redis.watching import NewViewer, come_back, finish, watch_on


@pytest.fixture
def way(redis_server: Keeper) -> Iterator[Switch]:
    with switch(redis_server.port) as made:
        yield made


@pytest.mark.slow
def test_an_entry_whose_acknowledgement_is_lost_is_there_once(
    make_crew: MakeCrew, redis_server: Keeper, way: Switch, ticker: Ticker, view: NewViewer
) -> None:
    """Row 18: Redis has it, and the worker does not know. No viewer sees a line twice, or another one in its place."""
    crew = make_crew()
    (a,), (b,) = crew.hire(1, way), crew.hire(1)
    local, remote = watch_on(view, ticker, a, b)
    key = crew.stream(local.token).encode()
    for _ in range(10):
        way.lose_answer(b"XADD\r\n$%d\r\n%s\r\n" % (len(key), key))
        remote.until_more()
    finish(ticker, local, remote)
    assert numbers_in(redis_server, crew.stream(local.token)) == list(range(1, local.seen[-1].number + 1))


@pytest.mark.slow
@pytest.mark.parametrize("is_mirrored", [False, True], ids=["found", "mirrored"])
def test_what_is_trimmed_before_it_is_fetched_is_counted(
    make_crew: MakeCrew, redis_server: Keeper, way: Switch, ticker: Ticker, view: NewViewer, is_mirrored: bool
) -> None:
    """Row 25: a worker has found the run, and its next question for frames comes too late for some of them."""
    crew = make_crew()
    (a,), (b,) = crew.hire(1), crew.hire(1, way)
    b.enlist()
    local = view().start(a, ticker.command).until_more(10)
    stream = crew.stream(local.token)
    remote = view()
    if is_mirrored:
        remote.follow(b, local.token).until_more()
    way.hold(stream.encode())
    if not is_mirrored:
        remote.follow(b, local.token)
    assert way.is_holding.wait(10)
    local.until_more(20)
    redis_server.ask("XTRIM", stream, "MAXLEN", 3)
    way.release()

    if is_mirrored:
        remote.until_over()
        come_back(remote, b, until=lambda: remote.dropped)
    remote.until_more()
    ticker.stop()
    for each in (local, remote):
        each.until_over()
    local.assert_complete()
    assert remote.end == {"type": "exit", "code": 0}
    (gap,) = [at for at, said in enumerate(remote.seen) if said.object["type"] == "gap"]
    assert remote.seen[gap].object["dropped"] > 5
    assert remote.seen[:gap] == local.seen[:gap]
    assert remote.seen[gap + 1 :] == local.seen[-len(remote.seen) + gap + 1 :]
