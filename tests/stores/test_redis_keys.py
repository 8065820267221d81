"""One key, several workers, and a Redis that answers late or loses an answer: one command, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from sse_bridge import Cancelled, RedisStore, SSEBridge, UpstreamError
from tests.support.asgi import Page
from tests.support.lying_redis import LyingRedis
from tests.support.virtual_time import virtual
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, finished

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    """redis-py, and so the store, runs on asyncio only."""
    return virtual("asyncio")


class SlowRedis(LyingRedis):
    """A Redis that keeps some commands waiting."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, 0.0)
        #: Says whether commands that travel together wait, and for how many seconds.
        self.delay: Callable[[list[tuple[Any, ...]]], float] = lambda commands: 0.0

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        await anyio.sleep(self.delay(commands))
        return await super().ask(commands)


class Works:
    """Makes a work for each start, and knows them all."""

    def __init__(self, make: Callable[[], ScriptedWork] = ScriptedWork) -> None:
        self.all: list[ScriptedWork] = []
        self.make = make

    async def resolve(self, request: Request) -> ScriptedWork:
        self.all.append(self.make())
        return self.all[-1]

    @property
    def started(self) -> list[ScriptedWork]:
        return [work for work in self.all if work.started.is_set()]


def workers(works: Works, redis: LyingRedis, count: int, **options: Any) -> list[SSEBridge]:
    def store() -> RedisStore:
        return RedisStore(redis.client, lease=20.0, linger=0.005)

    return [SSEBridge(resolve=works.resolve, store=store(), **options) for _ in range(count)]


async def feed(request: Request) -> str:
    return "feed"


def post() -> Page:
    return Page("POST", headers={"idempotency-key": "one", "accept": "text/event-stream"})


async def ask_both(tasks: Any, *asked: tuple[SSEBridge, Page], seconds: float) -> None:
    """Sends each worker its request, with so many seconds between them."""
    for number, (bridge, page) in enumerate(asked):
        await anyio.sleep(seconds if number else 0)
        tasks.start_soon(bridge, page.scope, page.receive, page.send)


async def test_a_key_whose_run_is_slow_to_be_known_starts_no_second_command() -> None:
    """Between the claim of a key and the run behind it lies a question to Redis, which may take its time."""
    redis, works = SlowRedis(random.Random(1)), Works()
    redis.delay = lambda commands: 1.0 if commands[0][0] == "HSET" and commands[0][1].endswith(":m") else 0.0
    here, elsewhere = workers(works, redis, 2)
    first, second = post(), post()
    async with anyio.create_task_group() as tasks:
        await ask_both(tasks, (here, first), (elsewhere, second), seconds=0.1)
        await anyio.sleep(5)
        assert len(works.started) == 1
        await here.shutdown()
        await elsewhere.shutdown()


@pytest.mark.parametrize("seed", range(10))
async def test_a_feed_that_has_ended_starts_anew_once(seed: int) -> None:
    """All pages of a feed come back when it ends, to all workers at the same moment."""
    redis, works = LyingRedis(random.Random(seed), 0.0), Works(lambda: finished("one"))
    bridges = workers(works, redis, 3, key=feed)
    first = Page()
    await bridges[0](first.scope, first.receive, first.send)
    await anyio.sleep(3)
    works.make = ScriptedWork
    pages = [Page() for _ in bridges]
    async with anyio.create_task_group() as tasks:
        for bridge, page in zip(bridges, pages, strict=True):
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await anyio.sleep(5)
        assert len(works.started) == 2
        assert len({page.headers["sse-bridge-run"] for page in pages if page.status == 200}) == 1
        for bridge in bridges:
            await bridge.shutdown()


async def test_a_feed_whose_work_is_still_being_ended_starts_anew_once() -> None:
    redis, works = LyingRedis(random.Random(1), 0.0), Works(SlowToEnd)
    here, elsewhere = workers(works, redis, 2, key=feed, cancel_timeout=1000)
    first, second, third = Page(), Page(), Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here, first.scope, first.receive, first.send)
        await first.until(lambda: first.content)
        stop = Page("DELETE", f"/{first.headers['sse-bridge-run']}")
        tasks.start_soon(here, stop.scope, stop.receive, stop.send)
        await first.until(lambda: b"cancelled" in first.content)
        tasks.start_soon(here, second.scope, second.receive, second.send)
        await anyio.sleep(1)
        tasks.start_soon(elsewhere, third.scope, third.receive, third.send)
        await anyio.sleep(1)
        assert len(works.started) == 2
        for work in works.all:
            work.let_end.set()  # type: ignore[attr-defined]
        await here.shutdown()
        await elsewhere.shutdown()


async def test_a_key_outlives_the_memory_of_redis() -> None:
    """A run that is over keeps its key for as long as it is kept, also where an empty Redis has taken its place."""
    redis, works = LyingRedis(random.Random(1), 0.0), Works(lambda: finished("one"))
    here, elsewhere = workers(works, redis, 2)
    first, second = post(), post()
    await here(first.scope, first.receive, first.send)
    await anyio.sleep(3)
    redis.lose_all()
    await anyio.sleep(10)
    await elsewhere(second.scope, second.receive, second.send)
    assert len(works.started) == 1
    assert second.headers["sse-bridge-run"] == first.headers["sse-bridge-run"]
    assert b'"code":0' in second.content
    await here.shutdown()
    await elsewhere.shutdown()


async def test_a_key_that_no_run_came_of_is_free_at_once() -> None:
    """A bridge that is busy has claimed the key by then."""
    redis, works = LyingRedis(random.Random(1), 0.0), Works()
    here, elsewhere = workers(works, redis, 2, max_runs=1)
    other, first, second = Page(), post(), post()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here, other.scope, other.receive, other.send)
        await other.until(lambda: other.content)
        await here(first.scope, first.receive, first.send)
        assert first.status == 503
        await anyio.sleep(1)
        tasks.start_soon(elsewhere, second.scope, second.receive, second.send)
        await second.until(lambda: second.content)
        assert second.status == 200
        again = post()
        tasks.start_soon(here, again.scope, again.receive, again.send)
        await again.until(lambda: again.content)
        assert again.headers["sse-bridge-run"] == second.headers["sse-bridge-run"]
        assert len(works.started) == 2
        await here.shutdown()
        await elsewhere.shutdown()


async def test_a_key_that_is_freed_is_freed_once() -> None:
    """The upstream has refused, and Redis' answer to the one who frees the key is lost. Another run has it by then."""
    redis = SlowRedis(random.Random(1))
    works = Works(lambda: ScriptedWork(refusal=UpstreamError("No.", code="busy", status=503, started_nothing=True)))
    here, elsewhere, third = workers(works, redis, 3)
    pages = [post() for _ in range(3)]
    lost: list[Any] = []

    async def lose_an_answer(commands: list[tuple[Any, ...]]) -> list[Any]:
        answers = await SlowRedis.ask(redis, commands)
        if not lost and any(command[0] == "DEL" for command in commands):
            lost.append(commands)
            await anyio.sleep(0.5)
            raise ConnectionError("the answer is lost")
        return answers

    redis.ask = lose_an_answer  # type: ignore[method-assign]
    await here(pages[0].scope, pages[0].receive, pages[0].send)
    works.make = ScriptedWork
    async with anyio.create_task_group() as tasks:
        await anyio.sleep(0.2)
        assert lost
        for bridge, page in zip((elsewhere, third), pages[1:], strict=True):
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await anyio.sleep(5)
        assert len(works.started) == 2
        for bridge in (here, elsewhere, third):
            await bridge.shutdown()


@pytest.mark.parametrize("seed", range(12))
async def test_a_key_that_is_sent_again_starts_one_command(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """A client sends its start to any worker until it is answered, while Redis loses questions and answers."""
    rng = random.Random(seed)
    redis, works = LyingRedis(rng, rng.choice((0.005, 0.02, 0.05))), Works(lambda: ScriptedWork(answers=False))
    bridges = workers(works, redis, 3, grace=60.0)
    tokens = set()

    async def start() -> None:
        await anyio.sleep(rng.uniform(0, 2))
        while True:
            page, bridge = post(), rng.choice(bridges)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bridge, page.scope, page.receive, page.send)
                with anyio.move_on_after(rng.uniform(0, 20)):
                    await page.until(lambda page=page: page.ended, timeout=1000)  # type: ignore[misc]
                page.leave()
            if page.status == 200 and page.headers.get("sse-bridge-run"):
                tokens.add(page.headers["sse-bridge-run"])
            if b'"exit"' in page.content:
                return
            await anyio.sleep(rng.uniform(0, 0.5))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(start)
            await anyio.sleep(10)
            redis.lies = 0.0
            while not works.started:  # noqa: ASYNC110
                await anyio.sleep(1)
            await anyio.sleep(rng.uniform(0, 15))
            for work in works.started:
                work.answer()
            await anyio.sleep(rng.uniform(0, 5))
            for work in works.started:
                work.feed(exit_frame())
                work.finish()
    for bridge in bridges:
        await bridge.shutdown()
    assert len(works.started) == 1
    assert "a bug in the bridge" not in caplog.text


async def test_a_run_whose_registration_was_lost_is_known_before_the_upstream_answers() -> None:
    """The connection broke in that moment, and Redis is there again."""
    redis, works = SlowRedis(random.Random(1)), Works(lambda: ScriptedWork(answers=False))
    here, elsewhere = workers(works, redis, 2)
    broken: list[Any] = []
    ask = redis.ask

    async def break_once(commands: list[tuple[Any, ...]]) -> list[Any]:
        if not broken and commands[0][0] == "HSET" and commands[0][1].endswith(":m"):
            broken.append(commands)
            raise ConnectionError("the connection is lost")
        return await ask(commands)

    redis.ask = break_once  # type: ignore[method-assign]
    first = Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here, first.scope, first.receive, first.send)
        await first.until(lambda: first.content, timeout=20)
        assert broken
        token = first.headers["sse-bridge-run"]
        second = Page(path="/", headers={"accept": "text/event-stream", "last-event-id": f"{token}.0"})
        tasks.start_soon(elsewhere, second.scope, second.receive, second.send)
        await anyio.sleep(1)
        works.all[0].answer()
        works.all[0].feed(exit_frame())
        await second.until(lambda: second.content)
        assert b"run_unknown" not in second.content
        await here.shutdown()
        await elsewhere.shutdown()


def post_apart() -> Page:
    return Page("POST", headers={"idempotency-key": "one", "prefer": "respond-async"})


@pytest.mark.parametrize("seconds", [1, 15, 40])
async def test_a_start_elsewhere_is_answered_however_long_the_upstream_takes(seconds: float) -> None:
    """No viewer holds the copy of the run that the second worker has meanwhile."""
    redis, works = LyingRedis(random.Random(1), 0.0), Works(lambda: ScriptedWork(answers=False))
    here, elsewhere = workers(works, redis, 2)
    first, second = post_apart(), post_apart()
    async with anyio.create_task_group() as tasks:
        await ask_both(tasks, (here, first), (elsewhere, second), seconds=1)
        await anyio.sleep(seconds)
        assert not second.sent
        works.started[0].answer()
        await second.until(lambda: second.ended)
        await first.until(lambda: first.ended)
        assert (first.status, second.status) == (201, 201)
        assert first.content == second.content
        await here.shutdown()
        await elsewhere.shutdown()


async def test_a_stop_waits_for_no_answer_to_another_workers_start() -> None:
    redis, works = LyingRedis(random.Random(1), 0.0), Works(lambda: ScriptedWork(answers=False))
    here, elsewhere = workers(works, redis, 2)
    first, second = post_apart(), post_apart()
    async with anyio.create_task_group() as tasks:
        await ask_both(tasks, (here, first), (elsewhere, second), seconds=1)
        await anyio.sleep(1)
        await elsewhere.shutdown()
        await second.until(lambda: second.ended, timeout=20)
        assert second.status == 503
        assert not works.started[0].cancels
        await here.shutdown()


async def test_a_run_that_another_worker_reads_is_waited_for_to_its_end() -> None:
    """`start` has found it by its key. The copy here has no viewer."""
    redis, work = LyingRedis(random.Random(1), 0.0), ScriptedWork()
    here, elsewhere = workers(Works(), redis, 2)
    await here.start(work, key="k", grace=None)
    run = await elsewhere.start(ScriptedWork(), key="k")
    codes: list[int | None] = []

    async def wait() -> None:
        codes.append((await run.wait()).exit_code)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(60)
        assert codes == []
        work.feed(exit_frame(3))
        work.finish()
    assert codes == [3]
    await here.shutdown()
    await elsewhere.shutdown()


@pytest.mark.parametrize("how_far", Cancelled)
@pytest.mark.parametrize("seconds", [1, 30])
async def test_a_run_that_another_worker_reads_is_cancelled_as_there(how_far: Cancelled, seconds: float) -> None:
    """Also once the copy here was put away. A command that is slow to end is not called gone before."""
    redis, work = LyingRedis(random.Random(1), 0.0), SlowToEnd(outcome=how_far)
    here, elsewhere = workers(Works(), redis, 2)
    await here.start(work, key="k", grace=None)
    run = await elsewhere.start(SlowToEnd(), key="k")
    await anyio.sleep(seconds)
    said: list[Cancelled | None] = []

    async def cancel() -> None:
        said.append(await run.cancel())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        await anyio.sleep(1)
        assert said == []
        work.let_end.set()
    assert said == [how_far]
    assert work.cancels == 1
    await here.shutdown()
    await elsewhere.shutdown()


async def test_a_key_is_free_if_the_source_cannot_be_used() -> None:
    """As where its iterator is used up."""
    redis, works = LyingRedis(random.Random(1), 0.0), Works()
    here, elsewhere = workers(works, redis, 2)

    class Unusable(ScriptedWork):
        def work(self, upstream: Any, last_event_id: str | None) -> Any:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await here.start(Unusable(), key="one")
    await anyio.sleep(1)
    works.make = Unusable
    page = post()
    with pytest.raises(RuntimeError):
        await here(page.scope, page.receive, page.send)
    await anyio.sleep(1)
    works.make = ScriptedWork
    page = post()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(elsewhere, page.scope, page.receive, page.send)
        await page.until(lambda: page.content)
        assert page.status == 200
        assert (await elsewhere.start(ScriptedWork(), key="other", owner="ann")).info.state == "running"
        await here.shutdown()
        await elsewhere.shutdown()
