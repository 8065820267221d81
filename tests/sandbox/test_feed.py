"""What is kept of a sandbox's events, and how readers follow them: `sse_bridge.sandbox.feed`."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sse_bridge.sandbox.feed import Feed
from sse_bridge.sandbox.processes import Outcome
from sse_bridge.sandbox.ulids import from_text

pytestmark = pytest.mark.anyio

Event = tuple[str, dict[str, Any]]


def events_of(frames: bytes) -> list[Event]:
    events = []
    for frame in frames.decode().removesuffix("\n\n").split("\n\n"):
        name, data, id = frame.split("\n")
        assert from_text(id.removeprefix("id: "))
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def ids_of(frames: bytes) -> list[int]:
    return [from_text(line[4:]) or 0 for line in frames.decode().split("\n") if line.startswith("id: ")]


async def read(feed: Feed, after: int = 0) -> list[Event]:
    """All events from there to the end."""
    events = []
    while (batch := await feed.next(after)) is not None:
        events += events_of(batch.frames)
        after = batch.last
    return events


def lines(events: list[Event]) -> list[str]:
    return [facts["line"] for _, facts in events if "line" in facts]


async def test_a_command_is_told_from_its_start_to_its_end() -> None:
    """In whole lines; what is unfinished comes before the end."""
    feed = Feed()
    with feed.reporting("make") as command:
        command.printed("stdout", b"a\nb")
        command.printed("stderr", b"w\n")
        command.printed("stdout", b"c\nd")
        command.ended(Outcome(3, False, 12))
    feed.close()

    (_, started), *rest = await read(feed)
    exec_id = started["exec_id"]
    assert started == {"exec_id": exec_id, "command": "make"}
    assert rest == [
        ("sandbox.exec.stdout", {"exec_id": exec_id, "line": "a"}),
        ("sandbox.exec.stderr", {"exec_id": exec_id, "line": "w"}),
        ("sandbox.exec.stdout", {"exec_id": exec_id, "line": "bc"}),
        ("sandbox.exec.stdout", {"exec_id": exec_id, "line": "d"}),
        ("sandbox.exec.completed", {"exec_id": exec_id, "exit_code": 3, "duration_ms": 12}),
    ]


async def test_a_command_that_is_given_up_has_an_end() -> None:
    """Its server was told to stop, and kills it."""
    feed = Feed()
    with pytest.raises(KeyError), feed.reporting("make"):
        raise KeyError
    feed.close()

    assert [(name, facts.get("exit_code")) for name, facts in await read(feed)] == [
        ("sandbox.exec.started", None),
        ("sandbox.exec.completed", 137),
    ]


async def test_readers_get_what_is_kept_and_then_what_is_new() -> None:
    """Each from its own place, until the end."""
    feed = Feed()
    feed.publish("one")
    first = feed.newest
    early: list[Event] = []

    async def follow() -> None:
        early.extend(await read(feed))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        feed.publish("two", state="é\u2028")
        await anyio.wait_all_tasks_blocked()
        feed.close()

    assert early == [("one", {}), ("two", {"state": "é\u2028"})]
    assert await read(feed, first) == early[1:]
    assert await read(feed, feed.newest) == []
    feed.publish("late")
    assert await read(feed) == early


async def test_any_event_can_be_resumed_behind() -> None:
    """Also one in the midst of lines that were read together."""
    feed = Feed()
    with feed.reporting("seq") as command:
        command.printed("stdout", b"".join(b"%d\n" % number for number in range(2500)))
    feed.close()
    batches = []
    after = 0
    while (batch := await feed.next(after)) is not None:
        batches.append(batch)
        after = batch.last
    ids = [id for batch in batches for id in ids_of(batch.frames)]

    assert ids == sorted(set(ids))
    assert len(ids) == 2502
    assert len(batches) == 3
    assert [batch.last for batch in batches] == [ids_of(batch.frames)[-1] for batch in batches]
    for place in (0, 7, 999, 1000, 2499):
        assert lines(await read(feed, ids[place]))[:1] == [str(place)]


async def test_only_the_end_is_kept() -> None:
    """A reader that comes late, or is too slow, misses the beginning."""
    feed = Feed(limit=40_000)
    with feed.reporting("seq") as command:
        for number in range(100):
            command.printed("stdout", b"%999d\n" % number)
        place = feed.newest
        for number in range(100, 200):
            command.printed("stdout", b"%999d\n" % number)
    feed.close()

    kept = [int(line) for line in lines(await read(feed))]

    assert 35 <= len(kept) <= 40
    assert kept == list(range(200 - len(kept), 200))
    assert lines(await read(feed, place)) == lines(await read(feed))


async def test_many_small_events_are_bounded_too() -> None:
    """Their number, since each is an object."""
    feed = Feed()
    for _ in range(10_000):
        feed.publish("tick")
    feed.close()

    assert len(await read(feed)) == 4096


async def test_a_start_is_told_once() -> None:
    """By whichever request finds it out first."""
    feed = Feed()
    for _ in range(2):
        feed.publish_start(region="local")
    feed.close()

    assert await read(feed) == [("sandbox.started", {"region": "local"})]


async def test_invalid_text_is_shown() -> None:
    """As U+FFFD, as in every stream of this server."""
    feed = Feed()
    with feed.reporting("cat") as command:
        command.printed("stdout", b'\xff"\\\r\n\n')
    feed.close()

    assert lines(await read(feed)) == ['\ufffd"\\\r', ""]
