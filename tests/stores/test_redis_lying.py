"""What viewers see of a Redis that loses questions, answers, entries, streams and notices: no wrong line, and no hole
in silence. It also changes the order of notices.

Three bridges of one event loop share it, as three workers would.
"""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from sse_bridge import Block, Drop, RedisStore, SSEBridge
from tests.support.asgi import Page
from tests.support.lying_redis import LyingRedis
from tests.support.virtual_time import virtual
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio

COUNT = 300


@pytest.fixture
def anyio_backend() -> Any:
    """redis-py, and so the store, runs on asyncio only."""
    return virtual("asyncio")


class Watcher:
    """A viewer that moves from worker to worker, and remembers what it was told under which number."""

    def __init__(self) -> None:
        self.place = ""
        self.last = 0
        self.seen: dict[int, Any] = {}
        self.missed = 0
        self.end: Any = None

    def take(self, page: Page) -> None:
        """Takes what a page got. Each frame follows the one before, and a gap says exactly how many are missing."""
        for event, said in zip(page.events, page.objects, strict=True):
            place = str(event.id)
            if place.endswith(".gone"):
                self.end = said
                return
            number = int(place.rpartition(".")[2])
            if said["type"] == "gap":
                assert number == self.last + said["dropped"], (self.last, said, number)
                self.missed += said["dropped"]
            else:
                assert number == self.last + 1, (self.last, number)
                self.seen[number] = said
            self.last, self.place = number, place
            if said["type"] in ("exit", "error"):
                self.end = said


async def watch(watcher: Watcher, bridges: list[SSEBridge], rng: random.Random, token: str, most: float) -> None:
    """Follows a run to its end, on workers that it picks by chance, for a while each."""
    while watcher.end is None:
        bridge = rng.choice(bridges)
        headers = {"accept": "text/event-stream", **({"last-event-id": watcher.place} if watcher.place else {})}
        # A browser comes back to the path of the start, a client of ours to that of the run.
        path = rng.choice(("/", f"/{token}")) if watcher.place else f"/{token}"
        page = Page(path=path, headers=headers)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            with anyio.move_on_after(rng.uniform(0, most)):
                await page.until(lambda page=page: page.ended, timeout=1000)  # type: ignore[misc]
            page.leave()
        if page.status == 204:
            break
        if page.status == 200 and b"run_unknown" not in page.content:
            watcher.take(page)
        await anyio.sleep(0.05)


@pytest.mark.parametrize("losses", ["connections", "entries", "streams", "notices"])
@pytest.mark.parametrize("seed", range(12))
async def test_no_lie_reaches_a_viewer(
    seed: int, losses: str, anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever Redis loses, the lines of all viewers are those of the script, in order, with exact gaps."""
    rng = random.Random(f"{seed} {losses}")
    redis, work = LyingRedis(rng, rng.choice((0.0, 0.02, 0.1))), ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    replay = rng.choice((0, 2000, 1_000_000))
    policy = rng.choice((Block(), Drop(high_water=4000)))
    bridges = [
        SSEBridge(
            resolve=resolve,
            store=RedisStore(redis.client, lease=20.0, linger=0.005),
            replay=replay,
            grace=60.0,
            policy=policy,
        )
        for _ in range(3)
    ]
    watchers = [Watcher() for _ in range(4)]
    first = Page()
    with anyio.fail_after(600):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridges[0], first.scope, first.receive, first.send)
            await first.until(lambda: first.content)
            token = first.headers["sse-bridge-run"]
            for watcher in watchers:
                tasks.start_soon(watch, watcher, bridges, rng, token, rng.choice((0.3, 5.0)))
            for number in range(COUNT):
                work.feed(stdout(f"line {number}"))
                await anyio.sleep(rng.choice((0, 0, 0.001, 0.02)))
                if losses == "streams" and rng.random() < 0.01:
                    redis.lose_streams(":s")
                if losses == "notices" and rng.random() < 0.3:
                    redis.muddle(":in")
                if losses == "entries" and rng.random() < 0.02:
                    redis.lose_entries(":s", rng.randint(1, 3))
            redis.lies = 0.0
            work.feed(exit_frame())
            work.finish()
        for bridge in bridges:
            await bridge.shutdown()

    assert "a bug in the bridge" not in caplog.text  # to lose a connection is none
    expected: dict[int, Any] = {number + 1: {"type": "stdout", "line": f"line {number}"} for number in range(COUNT)}
    expected[COUNT + 1] = {"type": "exit", "code": 0}
    for watcher in watchers:
        assert watcher.seen.items() <= expected.items()
        assert watcher.end == {"type": "exit", "code": 0}
        if replay > 100_000 and isinstance(policy, Block) and losses in ("connections", "notices"):
            assert watcher.seen == expected
