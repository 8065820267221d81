"""`Rounds` wakes many readers in turns. It forgets none that comes, leaves or had its turn before the last news."""

from __future__ import annotations

import anyio
import pytest

from sse_bridge import SSEBridge
from sse_bridge.relay.rounds import TURN, Rounds
from sse_bridge.testing import Page, Script

pytestmark = pytest.mark.anyio


class Reader:
    """Notes what it knew at each wake-up."""

    def __init__(self, news: list[str]) -> None:
        self.news = news
        self.seen: list[str] = []
        self.wakes = 0

    def notify(self) -> None:
        self.wakes += 1
        self.seen = list(self.news)


async def rounds_to_end() -> None:
    """More rounds of the event loop than any test here takes."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


def rounds_of(count: int, news: list[str]) -> tuple[Rounds, list[Reader]]:
    """Rounds of so many readers, and these."""
    rounds = Rounds()
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
    rounds.wake()
    await rounds_to_end()

    assert [reader.seen for reader in readers] == [["one"]] * count
    assert {reader.wakes for reader in readers} <= {1}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_event_loop_gets_its_turn_between_them(anyio_backend: str, news: list[str]) -> None:
    """On asyncio."""
    rounds, readers = rounds_of(3 * TURN, news)
    rounds.wake()
    woken = [sum(reader.wakes for reader in readers)]
    while woken[-1] < len(readers):
        await anyio.lowlevel.checkpoint()
        woken.append(sum(reader.wakes for reader in readers))

    assert woken == [TURN, 2 * TURN, 3 * TURN]


async def test_news_that_come_in_the_meantime_reach_those_that_had_their_turn(
    anyio_backend: str, news: list[str]
) -> None:
    """Several of them take one more round."""
    rounds, readers = rounds_of(3 * TURN, news)
    for text in "abc":
        news.append(text)
        rounds.wake()
    await rounds_to_end()

    assert [reader.seen for reader in readers] == [["a", "b", "c"]] * len(readers)
    assert max(reader.wakes for reader in readers) <= 3
    before = [reader.wakes for reader in readers]
    rounds.wake()
    await rounds_to_end()
    assert [reader.wakes for reader in readers] == [wakes + 1 for wakes in before]


async def test_readers_may_come_and_go_in_the_meantime(anyio_backend: str, news: list[str]) -> None:
    """The list changes, and each that stays is woken."""
    rounds, readers = rounds_of(3 * TURN, news)
    stays = readers[-1]
    rounds.wake()
    del rounds.readers[:TURN]
    newcomer = Reader(news)
    rounds.readers.append(newcomer)
    news.append("for all")
    rounds.wake()
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
