"""`SSEBridge.statistics` from other threads, as scrapes and exporters call it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from sse_bridge import BridgeStatistics, Drop, SSEBridge
from sse_bridge.asgi.looking import Look
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

pytestmark = pytest.mark.anyio

#: Counts that never go back.
RISING = ("frames_in", "bytes_in", "frames_out", "bytes_out", "frames_dropped", "bytes_dropped", "viewers_seen")


@contextmanager
def scraping(bridge: SSEBridge) -> Iterator[list[BridgeStatistics]]:
    """Takes snapshots in a thread, one after the other, until the block ends."""
    seen: list[BridgeStatistics] = []
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.is_set():
            seen.append(bridge.statistics())

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join(10)
        assert not thread.is_alive()


async def test_a_thread_gets_numbers_that_belong_together(anyio_backend: str) -> None:
    """While runs and viewers come and go, and viewers lose lines. No count goes back, and each viewer's add up."""
    async with site(policy=Drop(high_water=2000), replay=0, keep=0.0) as it:
        with scraping(it.bridge) as seen:
            runs = 0
            while len({now.frames_in for now in seen}) < 20:
                await _busy_run(it)
                runs += 1
            await anyio.to_thread.run_sync(_look_once_more, it.bridge, seen)

    for before, now in pairwise(seen):
        assert [getattr(now, name) >= getattr(before, name) for name in RISING] == [True] * len(RISING)
    for now in seen:
        for viewer in (viewer for run in now.runs for viewer in run.viewers):
            assert viewer.frames_in == viewer.frames_out + viewer.frames_dropped + viewer.frames_pending
            assert viewer.bytes_in == viewer.bytes_out + viewer.bytes_dropped + viewer.bytes_pending
    assert seen[-1].frames_dropped
    assert seen[-1].runs_ended["exit_zero"] == runs


def _look_once_more(bridge: SSEBridge, seen: list[BridgeStatistics]) -> None:
    count = len(seen)
    while len(seen) < count + 2:
        bridge.statistics()


async def _busy_run(it: Site) -> None:
    """A run with two viewers, one of which takes its lines late."""
    work = ScriptedWork()
    run = await it.bridge.start(work)
    slow, fast = it.open(path="/" + run.token), it.open(path="/" + run.token)
    await slow.until(lambda: slow.content)
    await fast.until(lambda: fast.content)
    slow.stall()
    for number in range(30):
        work.feed(stdout(*(f"line {number} {'x' * 50}" for _ in range(10))))
        await anyio.sleep(0.001)  # gives the thread a turn
    work.feed(exit_frame(0))
    work.finish()
    await fast.until(lambda: fast.ended)
    slow.resume()
    await slow.until(lambda: slow.ended)
    await run.wait()


async def test_a_thread_gets_the_last_snapshot_from_a_busy_event_loop(anyio_backend: str) -> None:
    """Rather than waiting for it without limit: the event loop may be waiting for that very thread."""
    async with site(finished("a")) as it:
        await it.answer()
        before = it.bridge.statistics()
        await it.answer("PUT")
        found: list[BridgeStatistics] = []
        thread = threading.Thread(target=lambda: found.append(it.bridge.statistics()))
        thread.start()
        thread.join(10)  # blocks the event loop

        assert found == [before]
        assert it.bridge.statistics().requests_refused == {405: 1}


async def test_the_first_event_loop_waits_for_a_thread_that_counts(anyio_backend: str) -> None:
    """Until a bridge has an event loop, a thread counts by itself. What it counts must not change meanwhile."""
    counting, may_go_on = threading.Event(), threading.Event()
    nothing = SSEBridge(None, lambda request: ScriptedWork()).statistics()

    def count() -> BridgeStatistics:
        counting.set()
        assert may_go_on.wait(10)
        return nothing

    may_go_on.set()  # for the one that it takes when it is made
    look = Look(count)
    counting.clear()
    may_go_on.clear()
    token = anyio.lowlevel.current_token()
    scrape, settle = threading.Thread(target=look.take), threading.Thread(target=look.settle_in, args=[token])
    scrape.start()
    assert counting.wait(10)
    settle.start()
    settle.join(0.1)
    waits = settle.is_alive()
    may_go_on.set()
    settle.join(10)
    scrape.join(10)

    assert waits
    assert not settle.is_alive()
    assert not scrape.is_alive()


def test_a_thread_looks_at_a_bridge_whose_event_loop_is_over() -> None:
    """It does not wait for it."""
    for backend in ("asyncio", "trio"):
        it = anyio.run(_visit_once, backend=backend)
        found: list[BridgeStatistics] = []
        began = time.monotonic()
        thread = threading.Thread(target=lambda it=it, found=found: found.append(it.bridge.statistics()))
        thread.start()
        thread.join(10)

        assert found[0].runs_ended["exit_zero"] == 1
        assert time.monotonic() - began < 0.9


async def _visit_once() -> Site:
    async with site(finished("a")) as it:
        await it.answer()
    return it


def test_a_bridge_that_has_seen_no_request() -> None:
    bridge = SSEBridge(None, lambda request: ScriptedWork())
    found: list[BridgeStatistics] = []
    thread = threading.Thread(target=lambda: found.append(bridge.statistics()))
    thread.start()
    thread.join(10)

    assert found[0].runs == ()
    assert set(found[0].runs_ended.values()) == {0}
