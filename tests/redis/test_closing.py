"""The store closes its connections to Redis when the event loop ends, even while it is closing one already."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from sse_bridge.stores.redis.connection import Connection, connector
from sse_bridge.stores.redis.counting import Counts
from sse_bridge.stores.redis.fitness import Fitness
from tests.redis.keeper import Keeper


@pytest.mark.parametrize("steps", range(8))
def test_the_event_loop_ends_while_a_connection_is_closed(redis_server: Keeper, steps: int) -> None:
    """At each step of it. asyncio cancels the store's task, and with it the tasks in which redis-py closes."""
    tasks = []

    async def use(connection: Connection) -> None:
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
            await connection.lost(OSError("a connection that broke"))
        finally:
            await connection.close()

    async def main() -> None:
        connection = Connection(connector(redis_server.url), Counts(), Fitness())
        client: Any = connection.client
        await client.execute_command("PING")
        tasks.append(asyncio.create_task(use(connection)))

    gc.collect()  # so that no warning is about what another test left open
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(main())
        cancelled = tasks.pop().cancelled()
        gc.collect()

    assert cancelled
    assert [str(each.message) for each in said] == []
