"""What is counted of a store, and what each worker says of all: bridges of one event loop share a real Redis."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from sse_bridge import BridgeUnavailable, Cancelled, SSEBridge, StoreStatistics, Upstream
from sse_bridge.metrics.prometheus import BridgeCollector
from sse_bridge.upstream.reaping import add_reaper
from tests.redis.keeper import SEAL, Keeper, away, run_name
from tests.redis.pairs import PATIENCE, Two, until
from tests.support.asgi import Page
from tests.support.work import ScriptedWork, stdout

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """redis-py runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def two(redis_server: Keeper, request: pytest.FixtureRequest) -> Two:
    return Two(redis_server.url, f"{request.node.name}:")


def store_of(bridge: SSEBridge) -> StoreStatistics:
    found = bridge.statistics().store
    assert found is not None
    return found


async def test_a_frame_counts_where_it_is_read_and_where_it_is_mirrored(two: Two) -> None:
    """Once each; and it is published once."""
    async with two.running() as (token, _):
        two.work.feed(*(stdout(f"line {number}") for number in range(10)))
        page = two.follow(token)
        await until(lambda: b"line 9" in page.content)
        await until(lambda: store_of(two.owner).published == 10)
        reads, follows = two.owner.statistics(), two.other.statistics()
        registry = CollectorRegistry()
        registry.register(BridgeCollector({"owner": two.owner, "other": two.other}))
        active = [registry.get_sample_value("sse_bridge_runs_active", {"bridge": name}) for name in ("owner", "other")]
        lag = registry.get_sample_value("sse_bridge_store_lag_seconds", {"bridge": "owner"})

    assert reads.store is not None
    assert follows.store is not None
    assert (reads.frames_in, reads.store.mirrors, reads.store.frames_mirrored) == (10, 0, 0)
    assert (follows.frames_in, follows.store.mirrors, follows.store.frames_mirrored) == (0, 1, 10)
    assert follows.store.published == 0
    assert (reads.store.publish_lag_frames, reads.store.publish_lag_seconds) == (0, 0.0)
    assert reads.store.reconnects == reads.store.refilled == reads.store.refused == 0
    assert active == [1, 0]
    assert lag == 0
    after = two.other.statistics()
    assert after.frames_in == 0
    assert after.store is not None
    assert after.store.frames_mirrored == 11


async def test_every_worker_tells_of_all(two: Two, redis_server: Keeper) -> None:
    """Also of those of another version, which say less, or more."""
    async with two.running() as (token, _):
        page = two.follow(token)
        await until(lambda: page.content)
        redis_server.ask("HSET", f"{two.prefix}w", "older", "17", "later", "3 1 2 3 4 5 6")

        async def told() -> dict[str, Any]:
            return {each.name: each for each in await two.other.everywhere()}

        with anyio.fail_after(PATIENCE):
            while len(all_ := await told()) < 4 or {each.viewers for each in all_.values()} != {1, 2, None}:
                pass
        from_owner = await two.owner.everywhere()

    older, later = all_.pop("older"), all_.pop("later")
    assert (older.beat, older.runs, older.viewers, older.mirrors, older.lag) == (17, None, None, None, None)
    assert (later.beat, later.runs, later.viewers, later.mirrors, later.lag) == (3, 1, 2, 3, 4)
    here = [each for each in all_.values() if each.is_here]
    there = [each for each in all_.values() if not each.is_here]
    assert [(each.runs, each.viewers, each.mirrors, each.lag) for each in here + there] == [(0, 1, 1, 0), (1, 1, 0, 0)]
    assert [each.name for each in from_owner if each.is_here] == [there[0].name]
    assert all(each.beat >= 1 for each in here + there)


async def test_redis_goes_and_comes_back_empty(two: Two, redis_server: Keeper) -> None:
    """The lag grows meanwhile. Then Redis is filled again, and that is counted."""
    async with two.running():
        two.work.feed(stdout("a"), stdout("b"))
        await until(lambda: store_of(two.owner).published == 2)
        with away(redis_server):
            two.work.feed(stdout("c"))
            await until(lambda: store_of(two.owner).publish_lag_seconds > 0.2)
            assert store_of(two.owner).publish_lag_frames == 1
            with pytest.raises(BridgeUnavailable, match="Redis does not answer") as caught:
                await two.owner.everywhere()
        await until(lambda: store_of(two.owner).publish_lag_frames == 0)
        after = store_of(two.owner)

    assert caught.value.retry_after > 0
    assert after.refilled == 2
    assert after.published == 2 + 3
    assert after.publish_lag_seconds == 0
    assert after.reconnects >= 1


async def test_a_run_that_was_ended_elsewhere(two: Two, redis_server: Keeper) -> None:
    """Its next frame is refused, which counts."""
    async with two.running() as (token, page):
        two.work.feed(stdout("a"))
        await until(lambda: store_of(two.owner).published == 1)
        redis_server.ask("XADD", f"{two.prefix}{{{run_name(token)}}}:s", SEAL.decode(), "e", "owner_lost")
        two.work.feed(stdout("b"))
        await page.until(lambda: page.ended, timeout=PATIENCE)
        refused = store_of(two.owner).refused

    assert refused == 1
    assert b"owner_lost" in page.content


async def test_work_of_a_dead_worker(two: Two, redis_server: Keeper) -> None:
    """It counts by how far ending it got."""

    async def reap(upstream: Upstream, ticket: str, timeout: float, *, has_output: bool) -> Cancelled | None:
        return Cancelled.ACKNOWLEDGED if ticket == two.prefix else None

    add_reaper(reap)
    redis_server.ask("HSET", f"{two.prefix}w", "dead", "1")
    redis_server.ask("HSET", f"{two.prefix}w:dead:runs", "run", two.prefix)
    async with two.running():
        await until(lambda: sum(store_of(two.owner).orphans_ended.values()))

    assert store_of(two.owner).orphans_ended == {"requested": 0, "acknowledged": 1, "confirmed": 0}


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_without_a_store_this_process_is_all_there_is(anyio_backend: str) -> None:
    work = ScriptedWork()
    bridge = SSEBridge(resolve=lambda request: work)
    page = Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.content)
        (alone,) = await bridge.everywhere()
        registry = CollectorRegistry()
        registry.register(BridgeCollector(bridge))
        names = [each.name for each in registry.collect() if each.samples]
        work.finish()

    assert (alone.runs, alone.viewers, alone.mirrors, alone.lag, alone.is_here) == (1, 1, 0, 0, True)
    assert bridge.statistics().store is None
    assert not any("sse_bridge_store" in name for name in names)
