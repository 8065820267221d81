"""`Rounds` wakes many readers in turns. It forgets none that comes, leaves or had its turn before the last news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import SSEBridge
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.rounds import TURN, Rounds
from sse_bridge.relay.signal import Signal
from sse_bridge.testing import Page, Script
from tests.support.clocks import HandClock

pytestmark = pytest.mark.anyio


class Reader:
    """Notes what it knew at each wake-up."""

    def __init__(self, news: list[str]) -> None:
        self.news = news
        #: What it does at its first wake-up.
        self.does: Callable[[], None] | None = None
        self.in_task: bool | None = None
        self.seen: list[str] = []
        self.wakes = 0
        self.now: float | None = None

    def notify(self, now: float) -> None:
        self.wakes += 1
        self.now = now
        with suppress(RuntimeError):  # on trio
            self.in_task = asyncio.current_task() is not None
        if self.does is not None:
            does, self.does = self.does, None
            does()
        self.seen = list(self.news)


async def rounds_to_end() -> None:
    """More rounds of the event loop than any test here takes."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


def rounds_of(count: int, news: list[str]) -> tuple[Rounds, list[Reader]]:
    """Rounds of so many readers, and these."""
    rounds = Rounds(Clock(), Signal())
    readers = [Reader(news) for _ in range(count)]
    rounds.readers.extend(readers)
    return rounds, readers


@pytest.fixture
def news() -> list[str]:
    return []


@pytest.mark.parametrize("count", [0, 1, TURN, TURN + 1, 5 * TURN])
async def test_all_readers_are_woken_once(anyio_backend: str, news: list[str], count: int) -> None:
    """However many they are."""
    rounds, readers = rounds_of(count, news)
    news.append("one")
    rounds.tell()
    await rounds_to_end()

    assert [reader.seen for reader in readers] == [["one"]] * count
    assert {reader.wakes for reader in readers} <= {1}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("begins", ["in a callback", "in a task"])
async def test_the_event_loop_gets_its_turn_between_them(anyio_backend: str, news: list[str], begins: str) -> None:
    """On asyncio. No reader is told within a task: it may do something in the place of another."""
    rounds, readers = rounds_of(3 * TURN, news)
    woken: list[int] = []

    def count() -> None:
        woken.append(sum(reader.wakes for reader in readers))

    def callback() -> None:
        rounds.tell()
        count()

    if begins == "in a task":
        rounds.tell()
        count()
    else:
        asyncio.get_running_loop().call_soon(callback)
        await anyio.lowlevel.checkpoint()
    while woken[-1] < len(readers):
        await anyio.lowlevel.checkpoint()
        count()

    assert woken == [*([0] if begins == "in a task" else []), TURN, 2 * TURN, 3 * TURN]
    assert {reader.in_task for reader in readers} == {False}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("count", [1, 3 * TURN])
async def test_news_that_come_before_the_first_turn_take_no_further_round(
    anyio_backend: str, news: list[str], count: int
) -> None:
    """All readers find them in the first."""
    rounds, readers = rounds_of(count, news)
    for text in "abc":
        news.append(text)
        rounds.tell()
    await rounds_to_end()

    assert [(reader.seen, reader.wakes) for reader in readers] == [(["a", "b", "c"], 1)] * count


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_that_brings_news_or_fails_stops_no_other(anyio_backend: str, news: list[str]) -> None:
    """Whether it is the first, in the midst of a round, or the last."""
    rounds, readers = rounds_of(3 * TURN, news)
    failed: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: failed.append(context["exception"]))

    def bring() -> None:
        news.append("more")
        rounds.tell()

    def fail() -> None:
        raise ValueError("a bug")

    for at in (0, TURN + 1, 3 * TURN - 1):
        readers[at].does = bring
    readers[TURN + 2].does = fail
    loop.call_soon(rounds.tell)
    await rounds_to_end()
    rounds.tell()
    await rounds_to_end()

    assert [reader.seen for reader in readers] == [["more"] * 3] * len(readers)
    assert len(failed) == 1


@pytest.mark.parametrize("count", [2, TURN, 3 * TURN])
async def test_the_failure_of_a_reader_is_passed_on_once_the_others_were_told(
    anyio_backend: str, news: list[str], count: int
) -> None:
    rounds, readers = rounds_of(count, news)
    news.append("one")

    def fail() -> None:
        raise ValueError("a bug")

    readers[0].does = readers[-2].does = fail
    failed = []
    try:
        rounds.tell()
    except ValueError as error:
        failed.append(error)
    if anyio_backend == "asyncio":  # it tells them in callbacks
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context["exception"]))
    await rounds_to_end()

    told = [reader for reader in readers if reader not in (readers[0], readers[-2])]
    assert [reader.seen for reader in told] == [["one"]] * len(told)
    assert failed


async def test_news_that_come_in_the_meantime_reach_those_that_had_their_turn(
    anyio_backend: str, news: list[str]
) -> None:
    """Several of them take one more round."""
    rounds, readers = rounds_of(3 * TURN, news)
    for text in "abc":
        news.append(text)
        rounds.tell()
        await anyio.lowlevel.checkpoint()
    await rounds_to_end()

    assert [reader.seen for reader in readers] == [["a", "b", "c"]] * len(readers)
    assert max(reader.wakes for reader in readers) <= 3
    before = [reader.wakes for reader in readers]
    rounds.tell()
    await rounds_to_end()
    assert [reader.wakes for reader in readers] == [wakes + 1 for wakes in before]


@pytest.mark.parametrize("count", [1, TURN, 3 * TURN])
@pytest.mark.parametrize("fails", [False, True])
async def test_who_waits_for_readers_to_take_something_looks_after_each_turn(
    anyio_backend: str, news: list[str], count: int, fails: bool
) -> None:
    """Also if a reader fails. All readers of a turn are told the time at which the turn began."""
    clock, taken = HandClock(), Signal()
    rounds, looks, began = Rounds(clock, taken), [], clock.now()
    readers = [Reader(news) for _ in range(count)]
    rounds.readers.extend(readers)

    async def look() -> None:
        while True:
            await taken.wait()
            looks.append(sum(reader.wakes for reader in readers))

    def does() -> None:
        clock.advance(1)
        if fails:
            raise ValueError("a bug")

    for reader in readers:
        reader.does = does
    if anyio_backend == "asyncio":
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await wait_all_tasks_blocked()
        with suppress(ValueError):
            rounds.tell()
        await rounds_to_end()
        tasks.cancel_scope.cancel()

    turn = TURN if anyio_backend == "asyncio" else count
    assert looks[-1] == count
    assert [reader.now for reader in readers] == [began + at // turn * turn for at in range(count)]


async def test_readers_may_come_and_go_in_the_meantime(anyio_backend: str, news: list[str]) -> None:
    """The list changes, and each that stays is woken."""
    rounds, readers = rounds_of(3 * TURN, news)
    stays = readers[-1]
    rounds.tell()
    del rounds.readers[:TURN]
    newcomer = Reader(news)
    rounds.readers.append(newcomer)
    news.append("for all")
    rounds.tell()
    await rounds_to_end()

    assert stays.seen == newcomer.seen == ["for all"]


async def test_each_of_many_viewers_gets_each_line(anyio_backend: str) -> None:
    """Of a run whose lines come faster than a round ends, and its end."""
    lines = [f"line {number}" for number in range(20)]
    bridge = SSEBridge(resolve=lambda request: Script([]))
    try:
        run = await bridge.start(Script(lines, exit=3))
        got: list[list[str]] = []

        async def follow() -> None:
            async with Page(bridge, f"/{run.token}") as page:
                events = [event.json() async for event in page]
            got.append([event.get("line", event["type"]) for event in events])

        async with anyio.create_task_group() as tasks:
            for _ in range(3 * TURN):
                tasks.start_soon(follow)
    finally:
        await bridge.shutdown()

    assert got == [["start", *lines, "exit"]] * 3 * TURN
