"""A Redis that is too old for runs counts as away, and the log says what to do."""

from __future__ import annotations

import logging
import random
from typing import Any

import anyio
import pytest
from redis.exceptions import NoPermissionError, ResponseError
from starlette.requests import Request

from sse_bridge import BridgeUnavailable, RedisStore, SSEBridge
from tests.support.asgi import Page
from tests.support.lying_redis import LyingRedis
from tests.support.virtual_time import virtual
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    """redis-py, and so the store, runs on asyncio only."""
    return virtual("asyncio")


def redis_of(version: str) -> LyingRedis:
    redis = LyingRedis(random.Random(1), 0.0)
    redis.info = {"server": {"redis_version": version}, "memory": {"maxmemory": 0, "maxmemory_policy": "noeviction"}}
    return redis


async def run_for(redis: LyingRedis, seconds: float) -> tuple[SSEBridge, Page]:
    """A run that lasts so long on a worker with that Redis, to its end."""
    work = ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    bridge = SSEBridge(resolve=resolve, store=RedisStore(redis.client))
    page = Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        work.feed(stdout("a"))
        await anyio.sleep(seconds)
        work.feed(exit_frame())
        work.finish()
    return bridge, page


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7"])
async def test_a_redis_that_is_too_old_counts_as_away(
    version: str, anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for nothing but what it is. Runs are served here."""
    redis = redis_of(version)
    bridge, page = await run_for(redis, 30)

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert f"Redis {version} is too old" in errors[0]
    assert "Use Redis 6.2 or newer, or Valkey" in errors[0]
    assert page.objects == [{"type": "stdout", "line": "a"}, {"type": "exit", "code": 0}]
    assert redis.streams == {}
    with pytest.raises(BridgeUnavailable):
        await bridge.everywhere()
    await bridge.shutdown()


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "8.1", "10.0.0", "", "unstable"])
async def test_a_redis_that_is_new_enough_is_used(
    version: str, anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that does not say."""
    redis = redis_of(version)
    bridge, _ = await run_for(redis, 1)

    assert any(name.endswith(":s") for name in redis.streams)
    assert not [record for record in caplog.records if record.levelno == logging.ERROR]
    await bridge.shutdown()


@pytest.mark.parametrize(
    "refusal",
    [
        NoPermissionError("this user has no permissions to run the 'info' command"),
        ResponseError("unknown command 'INFO', with args beginning with: 'server'"),
    ],
    ids=["forbidden", "renamed"],
)
async def test_a_redis_that_refuses_to_be_looked_at_is_used(
    refusal: ResponseError, anyio_backend: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with an access list, and where a provider or a proxy has no `INFO`."""
    redis = redis_of("7.2.4")
    asked: list[str] = []

    def refuse(section: str) -> dict[str, Any]:
        asked.append(section)
        raise refusal

    monkeypatch.setattr(redis, "_info", refuse)
    bridge, _ = await run_for(redis, 1)

    assert any(name.endswith(":s") for name in redis.streams)
    assert set(asked) == {"server"}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    await bridge.shutdown()


async def test_a_redis_that_was_replaced_is_used(anyio_backend: Any) -> None:
    """Without a restart of the worker."""
    redis = redis_of("6.0.16")

    async def replace() -> None:
        await anyio.sleep(5)
        redis.info["server"]["redis_version"] = "7.2.4"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replace)
        bridge, _ = await run_for(redis, 20)

    assert any(name.endswith(":s") for name in redis.streams)
    await bridge.shutdown()
