"""The store's tasks end when asyncio cancels them, even if redis-py swallows the cancellation.

redis-py writes with `asyncio.wait_for`, which on Python 3.11 sometimes swallows one. asyncio waits for every task that
it has cancelled, so a task that goes on keeps the server from stopping.
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
    """Swallows the cancellation of a command. Then it answers the command, or is away for good."""

    def __init__(self, fails: bool) -> None:
        super().__init__(random.Random(1), 0.0)
        self._fails = fails
        self.is_slow = False
        self.is_deaf = True
        #: The first word of each question that it has yet to answer.
        self.asked: list[str] = []
        #: How many cancellations it has swallowed.
        self.swallowed = 0

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        word = str(commands[0][0])
        self.asked.append(word)
        try:
            if self.swallowed and self._fails:
                raise Broken("Redis is away")
            if self.is_slow and word != "XREAD":
                await anyio.sleep(SLOW)
            return await super().ask(commands)
        except asyncio.CancelledError:
            if not self.is_deaf:
                raise
            self.swallowed += 1
            if self._fails:
                raise Broken("Redis is away") from None
            return await super().ask([("PING",) for _ in commands])
        finally:
            self.asked.remove(word)


@pytest.fixture
def anyio_backend() -> Any:
    """redis-py, and so the store, runs on asyncio only."""
    return virtual("asyncio")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_ends_even_if_redis_py_swallows_its_cancellation(fails: bool, anyio_backend: Any) -> None:
    """asyncio cancels the four tasks of a worker while each waits for Redis to answer."""
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
    assert redis.swallowed >= 4
    assert all(request.cancelled() for request in requests)
