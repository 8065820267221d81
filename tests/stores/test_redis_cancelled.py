"""The tasks of a store end when the event loop cancels them, also if redis-py loses that cancellation.

On Python 3.11 it does so now and then, as `asyncio.wait_for` does. The event loop would wait for such a task for ever.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import pytest
from redis.exceptions import ConnectionError as Broken
from starlette.requests import Request

from sse_bridge import RedisStore, SSEBridge
from tests.support.asgi import Page
from tests.support.lying_redis import LyingRedis
from tests.support.virtual_time import virtual
from tests.support.work import ScriptedWork, stdout

pytestmark = pytest.mark.anyio

#: The most that a command takes here.
SLOW = 1.0


class Deaf(LyingRedis):
    """Loses the cancellation of a command, and returns its answer, or breaks for good."""

    def __init__(self, fails: bool) -> None:
        super().__init__(random.Random(1), 0.0)
        self._fails = fails
        self.is_slow = False
        self.is_deaf = True
        #: What is asked at the moment, by the first words.
        self.asked: list[str] = []
        #: How often it has lost one.
        self.lost = 0

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        words = str(commands[0][0])
        self.asked.append(words)
        try:
            if self.lost and self._fails:
                raise Broken("Redis is away")
            if self.is_slow and words != "XREAD":
                await anyio.sleep(SLOW)
            return await super().ask(commands)
        except asyncio.CancelledError:
            if not self.is_deaf:
                raise
            self.lost += 1
            if self._fails:
                raise Broken("Redis is away") from None
            return await super().ask([("PING",) for _ in commands])
        finally:
            self.asked.remove(words)


@pytest.fixture
def anyio_backend() -> Any:
    """redis-py, and so the store, runs on asyncio only."""
    return virtual("asyncio")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_whose_cancellation_was_lost_ends_all_the_same(fails: bool, anyio_backend: Any) -> None:
    """The four tasks of a worker, in the midst of a command: what the inbox waits for, a beat, frames, a question."""
    redis, work, before = Deaf(fails), ScriptedWork(), asyncio.all_tasks()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    bridge = SSEBridge(resolve=resolve, store=RedisStore(redis.client))
    page, keyed = Page(), Page("POST", headers={"idempotency-key": "k" * 20})
    requests = [asyncio.create_task(bridge(page.scope, page.receive, page.send))]
    await page.until(lambda: page.content)
    redis.is_slow = True
    work.feed(stdout("a"))
    requests.append(asyncio.create_task(bridge(keyed.scope, keyed.receive, keyed.send)))
    with anyio.fail_after(10):
        while len(redis.asked) < 4:  # noqa: ASYNC110 (nothing tells of them)
            await anyio.sleep(0.01)
    cancelled = asyncio.all_tasks() - before
    for task in cancelled:
        task.cancel()
    _, left = await asyncio.wait(cancelled, timeout=60)
    redis.is_deaf = False
    for task in left:  # so that a test that fails ends
        task.cancel()

    assert left == set()
    assert redis.lost >= 4
    assert all(request.cancelled() for request in requests)
