"""A Redis that comes back with less than it had acknowledged: after a power cut, or as a replica that was behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis.crew import MakeCrew
from tests.redis.keeper import Keeper, keeper, numbers_in
from tests.redis.metered import Platform
from tests.redis.scripts import Ticker
from tests.redis.switch import Switch, switch
from tests.redis.watching import NewViewer, all_more, finish, watch_on
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


def test_a_redis_that_lost_the_end_of_its_file_gets_it_again(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, tmp_path: Path, view: NewViewer
) -> None:
    """Row 9: the owner looks at the tail, and sends what is missing, no more. Viewers see a pause."""
    with keeper(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec") as redis:
        crew = make_crew(redis=redis)
        a, b, c = crew.hire(3)
        before = platform.cancels
        local = view().start(a, ticker.command).until_more(20)
        remote = view().follow(b, local.token).until_more(50)
        first = redis.ask("XRANGE", crew.stream(local.token), "-", "+", "COUNT", 10)
        redis.kill(lost=6000)
        local.until_more(50)
        redis.start()
        kept = redis.ask("XREVRANGE", crew.stream(local.token), "+", "-", "COUNT", 1)
        assert kept

        remote.until(lambda it: len(it.lines) >= len(local.lines))
        all_more((local, remote), 50)
        late = view().follow(c, local.token).until_more(10)
        assert not crew.is_sealed(local.token)
        finish(ticker, local, remote, late)
        assert numbers_in(redis, crew.stream(local.token)) == list(range(1, local.seen[-1].number + 1))
        # The entries of single lines are still those from before: it was not filled again from its beginning.
        assert redis.ask("XRANGE", crew.stream(local.token), "-", "+", "COUNT", 10) == first
        assert platform.cancels == before


class Pair:
    """A primary and its replica behind one port, as workers see them."""

    def __init__(self, primary: Keeper, replica: Keeper, port: Switch) -> None:
        self.replica = replica
        self.port = port
        self._primary = primary
        primary.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        eventually(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up", 20)

    def part(self) -> None:
        """The replica gets nothing from now on."""
        self.replica.ask("REPLICAOF", "NO", "ONE")

    def fail_over(self) -> None:
        """The primary dies, and the replica takes its place."""
        self._primary.kill()
        self.port.turn(self.replica.port)

    def acknowledged(self, key: str) -> int:
        """The number of the last frame that the primary has."""
        return _last(self._primary, key)

    def replicated(self, key: str) -> int:
        """The number of the last frame that the replica has."""
        return _last(self.replica, key)


def _last(redis: Keeper, key: str) -> int:
    entries: Any = redis.ask("XREVRANGE", key, "+", "-", "COUNT", 1)
    return int(entries[0][0].partition(b"-")[0]) if entries else 0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    folders = [tmp_path / "primary", tmp_path / "replica"]
    for folder in folders:
        folder.mkdir()
    with keeper(folders[0]) as primary, keeper(folders[1]) as replica, switch(primary.port) as port:
        yield Pair(primary, replica, port)


def test_a_replica_that_was_behind_is_filled_from_its_tail_on(
    make_crew: MakeCrew, platform: Platform, pair: Pair, ticker: Ticker, view: NewViewer
) -> None:
    """Row 10: it lacks what the primary had acknowledged. A mirror that has it keeps it."""
    crew = make_crew(redis=pair.replica)
    a, b, c = crew.hire(3, pair.port)
    before = platform.cancels
    local, remote = watch_on(view, ticker, a, b, lines=10)
    stream = crew.stream(local.token)
    eventually(lambda: pair.replicated(stream) > 5)
    pair.part()
    remote.until_more(50)
    behind = pair.replicated(stream)
    assert pair.acknowledged(stream) > behind + 25
    pair.fail_over()

    all_more((local, remote), 50)
    late = view().follow(c, local.token).until_more(10)
    assert not crew.is_sealed(local.token)
    finish(ticker, local, remote, late)
    assert numbers_in(pair.replica, stream) == list(range(1, local.seen[-1].number + 1))
    assert platform.cancels == before


def test_what_neither_the_replica_nor_the_owner_has_is_counted(
    make_crew: MakeCrew, platform: Platform, pair: Pair, ticker: Ticker, view: NewViewer
) -> None:
    """Row 11: the owner keeps less than the replica was behind. A mirror that has it keeps it; others are told."""
    crew = make_crew(redis=pair.replica, options={"replay": 500})
    a, b, c = crew.hire(3, pair.port)
    before = platform.cancels
    local, remote = watch_on(view, ticker, a, b, lines=10)
    moves = view().follow(b, local.token).until_more(20)
    stream = crew.stream(local.token)
    eventually(lambda: pair.replicated(stream) > 5)
    moves.cut()
    pair.part()
    remote.until_more(100)
    assert pair.acknowledged(stream) > pair.replicated(stream) + 50
    pair.fail_over()

    all_more((local, remote), 50)
    moves.resume(c).until_more(10)
    late = view().follow(c, local.token).until_more(10)
    finish(ticker, local, remote)
    for each in (moves, late):
        each.until_over()
        assert each.end == {"type": "exit", "code": 0}
        assert each.dropped > 25
        assert len(each.lines) + each.dropped == len(local.lines)
        (gap,) = [at for at, said in enumerate(each.seen) if said.object["type"] == "gap"]
        assert each.seen[gap + 1 :] == local.seen[-len(each.seen) + gap + 1 :]
    assert not crew.is_sealed(local.token)
    assert platform.cancels == before


@pytest.mark.parametrize("lacks", ["the end", "all"])
def test_an_end_that_redis_had_acknowledged_and_lost_is_sent_again(
    make_crew: MakeCrew, pair: Pair, ticker: Ticker, view: NewViewer, lacks: str
) -> None:
    """Row 10, with a run that is over: a worker that had not read its end waits for it."""
    crew = make_crew(redis=pair.replica)
    a, b = crew.hire(2, pair.port)
    local, remote = watch_on(view, ticker, a, b, lines=10)
    stream = crew.stream(local.token)
    eventually(lambda: pair.replicated(stream) > 5)
    b.freeze()
    pair.part()
    if lacks == "all":
        pair.replica.ask("FLUSHALL")
    ticker.stop()
    local.until_over().assert_complete()
    eventually(lambda: pair.acknowledged(stream) == local.seen[-1].number)
    pair.fail_over()
    b.thaw()
    remote.until_over().assert_complete()
    assert remote.seen == local.seen
