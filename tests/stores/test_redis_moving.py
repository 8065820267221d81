"""Viewers of another worker's run that come and go at awkward moments."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from sse_bridge import Block, Cancelled, RedisStore, RunInfo, SSEBridge
from sse_bridge.relay.mirror import ANOTHER
from sse_bridge.stores.redis.names import run_name
from tests.support.asgi import Page, lines
from tests.support.lying_redis import LyingRedis
from tests.support.virtual_time import virtual
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, stdout

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    """redis-py, and so the store, runs on asyncio only."""
    return virtual("asyncio")


class Pair:
    """A run, the bridge that reads it, and another one."""

    def __init__(self, work: ScriptedWork, here: SSEBridge, elsewhere: SSEBridge, redis: LyingRedis) -> None:
        self.work = work
        self.here = here
        self.elsewhere = elsewhere
        self.redis = redis
        self.first = Page()
        self.tasks: Any = None

    @property
    def token(self) -> str:
        return self.first.headers["sse-bridge-run"]

    def ask(self, bridge: SSEBridge, page: Page) -> Page:
        self.tasks.start_soon(bridge, page.scope, page.receive, page.send)
        return page

    def follow(self, bridge: SSEBridge, seen: int | None = None) -> Page:
        """A client follows the run, behind the frame that it has seen."""
        headers = {"accept": "text/event-stream"}
        if seen is not None:
            headers["last-event-id"] = f"{self.token}.{seen}"
        return self.ask(bridge, Page(path="/" if seen is not None else f"/{self.token}", headers=headers))


@asynccontextmanager
async def a_pair(work: ScriptedWork | None = None, first: Page | None = None, **options: Any) -> AsyncGenerator[Pair]:
    redis, work = LyingRedis(random.Random(1), 0.0), work or ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    def bridge() -> SSEBridge:
        return SSEBridge(resolve=resolve, store=RedisStore(redis.client, lease=20.0), **options)

    pair = Pair(work, bridge(), bridge(), redis)
    pair.first = first or pair.first
    async with anyio.create_task_group() as pair.tasks:
        pair.ask(pair.here, pair.first)
        await pair.first.until(lambda: pair.first.content)
        yield pair
        await pair.here.shutdown()
        await pair.elsewhere.shutdown()


@pytest.mark.parametrize("function", ["authorize", "policy"])
async def test_a_client_comes_back_while_its_mirror_is_put_away(function: str) -> None:
    """The application takes its time for the question whether it may, and the mirror has had no viewer for a while."""
    seconds = 0.0

    async def decide(request: Request, run: object = None) -> Any:
        await anyio.sleep(seconds)
        return Block() if function == "policy" else True

    async def choose(request: Request) -> Any:
        return await decide(request)

    options: dict[str, Any] = {function: choose if function == "policy" else decide}
    async with a_pair(**options) as pair:
        pair.work.feed(stdout("one"))
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: lines(page) == ["one"])
        page.leave()
        await anyio.sleep(9.5)
        seconds = 3.0
        again = pair.follow(pair.elsewhere, 1)
        await anyio.sleep(5)
        pair.work.feed(stdout("two"))
        await again.until(lambda: again.content)
        assert again.status == 200
        await again.until(lambda: lines(again) == ["two"])


async def test_a_viewer_elsewhere_whose_time_is_up_has_time_to_come_back() -> None:
    async with a_pair(grace=1.0, max_viewer_time=20.0) as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        await anyio.sleep(1)
        pair.first.leave()
        await page.until(lambda: page.ended, timeout=30)
        await anyio.sleep(3)
        again = pair.follow(pair.elsewhere, 0)
        pair.work.feed(stdout("one"))
        await again.until(lambda: lines(again) == ["one"])
        assert not pair.work.cancels


async def test_viewers_of_a_worker_that_stops_have_time_to_come_back() -> None:
    """The worker tells them to come back, which may take them seven seconds."""
    async with a_pair(grace=1.0) as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        await anyio.sleep(1)
        pair.first.leave()
        await anyio.sleep(1)
        await pair.elsewhere.shutdown()
        assert page.ended
        await anyio.sleep(6)
        again = pair.follow(pair.here, 0)
        pair.work.feed(stdout("one"))
        await again.until(lambda: lines(again) == ["one"])
        assert not pair.work.cancels


async def test_a_client_ahead_of_a_mirror_gets_an_answer_in_time() -> None:
    """Proxies give a response half a minute to begin. Redis may be away for longer."""
    async with a_pair() as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        pair.redis.lies = 1.0
        await anyio.sleep(5)
        pair.work.feed(stdout("one", "two"))
        await pair.first.until(lambda: lines(pair.first) == ["one", "two"])
        ahead = pair.follow(pair.elsewhere, 2)
        await anyio.sleep(25)
        assert ahead.status == 200
        assert lines(ahead) == []
        pair.redis.lies = 0.0
        await anyio.sleep(10)
        if ahead.ended:
            ahead = pair.follow(pair.elsewhere, 2)
        pair.work.feed(stdout("three"))
        await ahead.until(lambda: lines(ahead) == ["three"])


async def test_a_client_ahead_of_a_mirror_is_a_viewer_once_the_mirror_is_there() -> None:
    """Also while the script is silent: else it gets no answer, and the run counts as abandoned."""
    async with a_pair() as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        page.leave()
        pair.redis.lies = 1.0
        await anyio.sleep(1)
        pair.work.feed(stdout("one"))
        await pair.first.until(lambda: lines(pair.first) == ["one"])
        pair.first.leave()
        ahead = pair.follow(pair.elsewhere, 1)
        await anyio.sleep(1)
        pair.redis.lies = 0.0
        await anyio.sleep(3)
        assert ahead.status == 200
        await anyio.sleep(20)
        assert not pair.work.cancels
        pair.work.feed(stdout("two"))
        await ahead.until(lambda: lines(ahead) == ["two"])


@pytest.mark.parametrize("pause", [0.3, 0.9, 1.1])
async def test_a_lost_connection_ends_no_run_that_is_followed_elsewhere(pause: float) -> None:
    """What the worker had heard is heard again then, and viewers have come and gone."""
    async with a_pair(grace=0.0) as pair:
        for number in range(150):
            page = pair.follow(pair.elsewhere)
            await page.until(lambda page=page: page.content)  # type: ignore[misc]
            await anyio.sleep(0.0 if number else pause)  # what is told each second stands between
            page.leave()
            await anyio.sleep(0.1)
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        await anyio.sleep(1)
        pair.first.leave()
        await anyio.sleep(2)
        assert not pair.work.cancels
        ask = pair.redis.ask

        async def slowly(commands: list[tuple[Any, ...]]) -> list[Any]:
            if "BLOCK" in commands[0]:
                await anyio.sleep(0.2)
            return await ask(commands)

        pair.redis.ask = slowly  # type: ignore[method-assign]
        pair.redis.lose_entries(":none", 0)  # a failover that loses nothing
        await anyio.sleep(20)
        assert not pair.work.cancels
        pair.work.feed(exit_frame())
        await page.until(lambda: lines(page) == ["exit"])


async def test_a_delete_that_nobody_has_heard_is_not_confirmed() -> None:
    async with a_pair() as pair:
        state = pair.ask(pair.elsewhere, Page(path=f"/{pair.token}", headers={"accept": "application/json"}))
        await state.until(lambda: state.ended)
        await anyio.sleep(8)
        hear = pair.redis.ask

        async def deaf(commands: list[tuple[Any, ...]]) -> list[Any]:
            if "BLOCK" in commands[0]:
                await anyio.sleep_forever()
            return await hear(commands)

        pair.redis.ask = deaf  # type: ignore[method-assign]
        pair.redis.lose_entries(":none", 0)
        delete = pair.ask(pair.elsewhere, Page("DELETE", path=f"/{pair.token}"))
        await delete.until(lambda: delete.ended)
        assert not pair.work.cancels
        assert delete.status == 202


@pytest.mark.parametrize("how_far", Cancelled)
async def test_a_delete_elsewhere_says_how_far_ending_the_work_got(how_far: Cancelled) -> None:
    """As on the worker that reads the run, and as late: the last frame is there before the command is gone."""
    work = SlowToEnd(outcome=how_far)
    async with a_pair(work) as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        delete = pair.ask(pair.elsewhere, Page("DELETE", path=f"/{pair.token}"))
        await page.until(lambda: page.ended)
        await anyio.sleep(1)
        assert not delete.sent
        work.let_end.set()
        await delete.until(lambda: delete.ended)
        here, again = (
            pair.ask(bridge, Page("DELETE", path=f"/{pair.token}")) for bridge in (pair.here, pair.elsewhere)
        )
        await here.until(lambda: here.ended)
        await again.until(lambda: again.ended)

    assert work.cancels == 1
    assert delete.status == (204 if how_far is Cancelled.CONFIRMED else 202)
    assert (delete.status, delete.content) == (here.status, here.content) == (again.status, again.content)


@pytest.mark.parametrize(
    "said",
    [
        ("t", "report", "r", "RUN", "a", "worker", "b", "many", "c", "", "d", "1"),
        ("t", "leave", "r", "RUN", "a", "worker", "b", "soon"),
        ("t", "news", "r", b"\xff"),
        ("r", "RUN"),
    ],
    ids=lambda said: said[1],
)
async def test_a_worker_that_cannot_be_understood_makes_no_other_deaf(
    said: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """One of another version, while a deploy goes on. What comes behind is heard."""
    async with a_pair() as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        await anyio.sleep(3)
        entry = [run_name(pair.token) if each == "RUN" else each for each in said]
        inboxes = [name for name in pair.redis.streams if name.endswith(":in")]
        await pair.redis.ask([("XADD", inbox, "*", *entry) for inbox in inboxes])
        delete = pair.ask(pair.elsewhere, Page("DELETE", path=f"/{pair.token}"))
        await delete.until(lambda: delete.ended)

    assert pair.work.cancels == 1
    assert delete.status == 204
    assert "a bug in the bridge" not in caplog.text


async def test_another_workers_run_takes_no_place_of_a_command_here() -> None:
    """`max_runs` counts commands that this worker reads."""
    async with a_pair(max_runs=1) as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        start = pair.ask(pair.elsewhere, Page())
        await start.until(lambda: start.content)
        assert start.status == 200


async def test_viewers_that_wait_for_a_mirror_are_counted_when_they_come_in() -> None:
    """They all find room for one while they wait."""
    async with a_pair(max_viewers=1) as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        page.leave()
        await anyio.sleep(1)
        pair.redis.lies = 1.0
        await anyio.sleep(1)
        pair.work.feed(stdout("one"))
        await pair.first.until(lambda: lines(pair.first) == ["one"])
        ahead = [pair.follow(pair.elsewhere, 1) for _ in range(3)]
        await anyio.sleep(1)
        pair.redis.lies = 0.0
        await anyio.sleep(5)
        assert pair.elsewhere.statistics().viewers == 1
        assert sorted(each.status or 0 for each in ahead) == [200, 503, 503]


async def test_no_identity_is_that_of_another_workers_run() -> None:
    """Applications compare the owner in `authorize`. One whose users choose their names may have this one."""

    async def who(request: Request) -> str | None:
        return request.headers.get("x-user")

    async def may(request: Request, run: RunInfo) -> bool:
        return request.headers.get("x-user") == run.owner

    async with a_pair(first=Page(headers={"x-user": "ann"}), identify=who, authorize=may) as pair:
        owners: list[int | None] = []
        for user in ("(another identity)", "", "ann"):
            page = pair.ask(
                pair.elsewhere, Page(path=f"/{pair.token}", headers={"x-user": user, "accept": "text/json"})
            )
            await page.until(lambda page=page: page.content)  # type: ignore[misc]
            owners.append(page.status)
            page.leave()
        assert owners == [404, 404, 200]
        assert str(ANOTHER) == "(another identity)"


async def test_a_run_without_viewers_ends_also_while_redis_is_away() -> None:
    """Those of another worker had left before."""
    async with a_pair(grace=30.0) as pair:
        page = pair.follow(pair.elsewhere)
        await page.until(lambda: page.content)
        await anyio.sleep(1)
        page.leave()
        await anyio.sleep(1)
        pair.first.leave()
        pair.redis.lies = 1.0
        await anyio.sleep(60)
        assert pair.work.cancels
        pair.redis.lies = 0.0
