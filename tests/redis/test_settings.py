"""What a store is told, and what it finds out about its Redis by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import anyio
import pytest

from sse_bridge import BridgeUnavailable, Cancelled, Upstream
from sse_bridge.upstream.reaping import add_reaper
from tests.redis.keeper import Keeper, away, run_name
from tests.redis.pairs import PATIENCE, Two, until
from tests.support.asgi import Page, ids
from tests.support.documentation import DOCS, only_block
from tests.support.work import ScriptedWork, stdout

pytestmark = pytest.mark.anyio

#: Lines of a run: several times what is kept of it.
COUNT = 30


@pytest.fixture
def anyio_backend() -> str:
    """redis-py runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"sse_bridge:{request.node.name}:"


@pytest.fixture
def lru(redis_server: Keeper) -> Iterator[None]:
    """The Redis of the file may evict keys, meanwhile."""
    redis_server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    yield
    redis_server.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level and "Redis" in record.message]


# -- replay


@pytest.mark.parametrize("replay", [0, 5000, None])
async def test_redis_keeps_less_than_the_owner(redis_server: Keeper, prefix: str, replay: int | None) -> None:
    """A viewer that comes late to another worker is told exactly how much it missed; one of the owner misses none."""
    two = Two(redis_server.url, prefix, replay=replay)
    async with two.running() as (token, page):
        for number in range(COUNT):
            two.work.feed(stdout("x" * 4000))
            await page.until(lambda number=number: page.content.count(b'xxxx"') > number)  # type: ignore[misc]
            await until(lambda number=number: two.owner.statistics().store.published > number)  # type: ignore[misc, union-attr]
        kept = redis_server.ask("XLEN", f"{prefix}{{{run_name(token)}}}:s")
        late = two.follow(token)
        await late.until(lambda: ids(late) and ids(late)[-1] == COUNT, timeout=PATIENCE)

    assert kept == COUNT if replay is None else 1 <= kept <= 4
    assert [each.get("dropped") for each in late.objects if each["type"] == "gap"] == (
        [] if kept == COUNT else [COUNT - kept]
    )
    assert ids(page) == list(range(1, COUNT + 2))


# -- when_down


async def test_without_redis_a_start_is_refused_if_that_is_wanted(redis_server: Keeper, prefix: str) -> None:
    """By a status to a program, by a time to come back to a browser. `start` raises what a caller can catch."""
    two = Two(redis_server.url, prefix, when_down="refuse")
    async with two.running():
        with away(redis_server):
            program, browser = two.ask(Page()), two.ask(Page(headers={"accept": "text/event-stream"}))
            await program.until(lambda: program.ended, timeout=PATIENCE)
            await browser.until(lambda: browser.ended, timeout=PATIENCE)
            with pytest.raises(BridgeUnavailable) as caught:
                await two.other.start(two.work)
        two.work = ScriptedWork()
        back = Page()
        with anyio.fail_after(PATIENCE):
            while back.status != 200:
                back = two.ask(Page())
                await back.until(lambda back=back: back.status is not None)  # type: ignore[misc]
        two.work.finish()
        await back.until(lambda: back.ended)

    assert program.status == 503
    assert int(program.headers["retry-after"]) >= 1
    assert program.error["code"] == caught.value.code == "busy"
    assert browser.status == 200
    assert browser.content.startswith(b"retry: ")


async def test_without_redis_a_run_starts_here_by_default(redis_server: Keeper, prefix: str) -> None:
    two = Two(redis_server.url, prefix)
    with away(redis_server):
        async with two.running() as (_, page):
            two.work.feed(stdout("a"))
            await page.until(lambda: b'"a"' in page.content, timeout=PATIENCE)


# -- what Redis is like


async def test_a_policy_that_evicts_is_warned_of(
    redis_server: Keeper, prefix: str, lru: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each worker, by the name of the setting."""
    two = Two(redis_server.url, prefix)
    async with two.running() as (token, _):
        page = two.follow(token)
        await page.until(lambda: page.content, timeout=PATIENCE)

    warnings = said(caplog, logging.WARNING)
    assert len(warnings) == 2
    assert all("maxmemory-policy allkeys-lru" in each and "noeviction" in each for each in warnings)


async def test_a_limit_without_eviction_is_fine(
    redis_server: Keeper, prefix: str, lru: None, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    two = Two(redis_server.url, prefix)
    async with two.running() as (_, page):
        await page.until(lambda: page.content)

    assert said(caplog, logging.WARNING) == []


# -- rights


def acl_line() -> list[str]:
    return only_block(DOCS / "many-workers.md", "").split()


@pytest.mark.slow
@pytest.mark.parametrize("has_info", [True, False])
async def test_the_documented_rights_are_enough(
    redis_server: Keeper, prefix: str, has_info: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """For a start with a key and without, a mirror, a DELETE, a burial, and a call for all workers."""
    caplog.set_level(logging.DEBUG, "sse_bridge")
    ended = []

    async def reap(upstream: Upstream, ticket: str, timeout: float, *, has_output: bool) -> Cancelled | None:
        if ticket != prefix:
            return None
        ended.append(ticket)
        return Cancelled.CONFIRMED

    add_reaper(reap)
    redis_server.ask("ACL", "DELUSER", "bridge")
    redis_server.ask(*(word for word in acl_line() if has_info or word != "+info"))
    redis_server.ask("ACL", "LOG", "RESET")
    redis_server.ask("HSET", f"{prefix}w", "dead", "1")
    redis_server.ask("HSET", f"{prefix}w:dead:runs", "run", prefix)
    two = Two(redis_server.url.replace("redis://", "redis://bridge:PASSWORD@"), prefix, when_down="refuse")
    async with two.running() as (token, first):
        two.work.feed(stdout("a"))
        mirror = two.follow(token)
        await mirror.until(lambda: b'"a"' in mirror.content, timeout=PATIENCE)
        two.work = ScriptedWork()
        keyed = two.ask(Page("POST", headers={"idempotency-key": "k" * 20}))
        await keyed.until(lambda: keyed.content, timeout=PATIENCE)
        two.work.finish()
        delete = two.ask(Page("DELETE", f"/{token}"))
        await first.until(lambda: first.ended, timeout=PATIENCE)
        await delete.until(lambda: delete.ended, timeout=PATIENCE)
        await until(lambda: ended)
        await until(lambda: not redis_server.ask("HEXISTS", f"{prefix}w", "dead"))
        workers = await two.other.everywhere()

    refused = {each[b"object"].lower() for each in redis_server.ask("ACL", "LOG")}
    assert refused - {b"client|setinfo", b"client"} == (set() if has_info else {b"info"})
    assert len(workers) == 2
    assert said(caplog, logging.ERROR) == said(caplog, logging.WARNING) == []
    assert any("refuses INFO" in each for each in said(caplog, logging.DEBUG)) is not has_info
