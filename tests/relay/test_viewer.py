"""`Viewer`: heartbeats only in silence, one writer, and an end for sends that hang."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from math import inf
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.types import Message

from sse_bridge.flow.delivery import BATCH, Delivery
from sse_bridge.flow.log import RunLog
from sse_bridge.flow.pace import TokenBucket
from sse_bridge.flow.policy import Block, Coalesce, Drop, Policy
from sse_bridge.relay import viewer as viewer_module
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.options import ViewerOptions
from sse_bridge.relay.rounds import Rounds
from sse_bridge.relay.signal import Latch, Signal
from sse_bridge.relay.standin import StandIn
from sse_bridge.relay.viewer import HEARTBEAT, Gone, Viewer
from sse_bridge.wire.dialects import DIALECTS
from sse_bridge.wire.ids import FrameIds
from tests.support.viewers import write

pytestmark = pytest.mark.anyio


class Sink:
    """A response that records what it is given; `hold` makes it hang."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended = False
        #: Bodies that came after the last.
        self.late = 0
        self.hold: anyio.Event | None = None

    async def __call__(self, message: Message) -> None:
        content, more = message["body"], message["more_body"]
        assert message["type"] == "http.response.body"
        if self.hold is not None:
            await self.hold.wait()
        self.bodies.append(content)
        self.late += self.ended
        self.ended = not more


def viewer_of(
    log: RunLog,
    *,
    heartbeat: float = 10.0,
    send_timeout: float = 30.0,
    max_viewer_time: float = inf,
    policy: Policy = Block(),  # noqa: B008 (an immutable value)
    rate: TokenBucket | None = None,
    kind: type[Delivery] = Delivery,
    clock: Clock | None = None,
) -> Viewer:
    clock = clock or Clock()
    delivery = kind(log, DIALECTS["typed"], FrameIds(None), policy, rate, 1, clock.now())
    options = ViewerOptions(heartbeat, send_timeout, inf, None, max_viewer_time)
    return Viewer(delivery, Signal(), options, clock)


def tell(viewer: Viewer) -> None:
    """Tells the viewer that the log has grown or has ended, as its run does."""
    rounds = rounds_of(viewer)
    rounds.tell()


def rounds_of(viewer: Viewer) -> Rounds:
    rounds = Rounds(viewer.clock, viewer.took)
    rounds.readers.append(viewer)
    return rounds


async def test_pending_batches_are_sent_as_one(anyio_backend: str) -> None:
    """Batching joins what is there without waiting for more. The end is a body of its own."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    for number in range(5):
        log.append(b"data: %d\n\n" % number, number + 2)
    log.close()

    await write(viewer, sink)

    assert sink.bodies == [b"first", b"".join(b"data: %d\n\n" % number for number in range(5)), b""]
    assert sink.ended
    assert sink.late == 0


async def test_a_batch_is_bounded(anyio_backend: str) -> None:
    """A backlog is sent in pieces of about 64 KiB, so that the server holds little of it."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    for number in range(20):
        log.append(b"x" * (BATCH // 4), number + 2)
    log.close()

    await write(viewer, sink, b"")

    assert max(map(len, sink.bodies)) <= BATCH
    assert sum(map(len, sink.bodies)) == 5 * BATCH


async def test_a_heartbeat_is_due_only_after_silence(anyio_backend: str) -> None:
    """One heartbeat goes after a silent interval, and the next after the next one."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        sent_at = viewer.took_at

        assert viewer.tick(sent_at + 9) == pytest.approx(sent_at + 10)
        await wait_all_tasks_blocked()
        assert sink.bodies == [b"first"]

        viewer.tick(sent_at + 10)
        viewer.tick(sent_at + 10)
        await wait_all_tasks_blocked()
        assert sink.bodies == [b"first", HEARTBEAT]

        log.append(b"data: 1\n\n", 2)
        tell(viewer)
        await wait_all_tasks_blocked()
        viewer.tick(viewer.took_at + 9)
        await wait_all_tasks_blocked()
        assert sink.bodies == [b"first", HEARTBEAT, b"data: 1\n\n"]
        tasks.cancel_scope.cancel()


def test_a_heartbeat_is_a_line_and_no_block() -> None:
    """Some clients deliver an empty event for each block without data."""
    assert HEARTBEAT == b": heartbeat\n"


async def test_heartbeats_never_pile_up_behind_a_stalled_viewer(anyio_backend: str) -> None:
    """While a send hangs, heartbeats wait. Frames that are pending then go first, and the silence starts anew."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log, send_timeout=inf)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        sink.hold = anyio.Event()
        log.append(b"data: 1\n\n", 2)
        tell(viewer)
        await wait_all_tasks_blocked()
        for beat in range(1, 100):
            viewer.tick(viewer.took_at + 10 * beat)
        log.append(b"data: 2\n\n", 3)
        sink.hold.set()
        await wait_all_tasks_blocked()

        assert sink.bodies == [b"first", b"data: 1\n\n", b"data: 2\n\n"]
        tasks.cancel_scope.cancel()


async def test_a_due_heartbeat_gives_way_to_frames(anyio_backend: str) -> None:
    """Frames that arrive before the writer wakes up are the sign of life."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        viewer.tick(viewer.took_at + 10)
        log.append(b"data: 1\n\n", 2)
        tell(viewer)
        await wait_all_tasks_blocked()

        assert sink.bodies == [b"first", b"data: 1\n\n"]
        tasks.cancel_scope.cancel()


async def test_a_send_that_hangs_ends_the_viewer_at_its_timeout(anyio_backend: str) -> None:
    """The viewer lasts until then, whatever the send is waiting for."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    sink.hold = anyio.Event()
    done = anyio.Event()

    async def write_to_the_end() -> None:
        with viewer.scope:
            await write(viewer, sink)
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write_to_the_end)
        await wait_all_tasks_blocked()
        since = viewer.took_at

        assert viewer.tick(since + 29) == pytest.approx(since + 30)
        assert viewer.gone is None
        assert viewer.tick(since + 30) == inf
        assert viewer.gone is Gone.STALLED
        await done.wait()


async def test_a_viewer_without_limits_is_never_asked_again(anyio_backend: str) -> None:
    """Infinity switches heartbeats and the send timeout off."""
    viewer = viewer_of(RunLog(), heartbeat=inf, send_timeout=inf)

    assert viewer.tick(anyio.current_time() + 10**6) == inf


async def test_an_idle_viewer_is_looked_at_again_before_a_send_could_time_out(anyio_backend: str) -> None:
    """Early enough to see whether its client reads meanwhile."""
    viewer = viewer_of(RunLog(), heartbeat=inf, send_timeout=3.0)
    now = anyio.current_time()

    assert viewer.tick(now) == now + 3 / 4


async def test_the_first_reason_to_leave_is_kept(anyio_backend: str) -> None:
    """Leaving twice is leaving once."""
    viewer = viewer_of(RunLog())

    viewer.end(Gone.STALLED)
    viewer.end(Gone.DISCONNECTED)

    assert viewer.gone is Gone.STALLED


class CountingDelivery(Delivery):
    """A delivery that counts how often it is asked."""

    takes = 0

    def take(self, now: float) -> bytes:
        self.takes += 1
        return super().take(now)


async def test_a_pace_delays_frames_and_news_does_not_wake_the_viewer(anyio_backend: str) -> None:
    """What the bucket holds goes at once, and the rest when there are tokens again."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log, rate=TokenBucket(20, burst=2), kind=CountingDelivery)
    assert isinstance(viewer.delivery, CountingDelivery)
    for number in range(4):
        log.append(b"data: %d\n\n" % number, number + 2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        assert b"".join(sink.bodies) == b"firstdata: 0\n\ndata: 1\n\n"
        bodies, takes = len(sink.bodies), viewer.delivery.takes
        tell(viewer)
        await wait_all_tasks_blocked()
        assert viewer.delivery.takes == takes
        log.close()
    assert b"".join(sink.bodies[bodies:]) == b"data: 2\n\ndata: 3\n\n"
    assert sink.ended


async def test_heartbeats_go_out_while_a_pace_keeps_frames_back(anyio_backend: str) -> None:
    """A pace of a frame an hour is silence."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log, rate=TokenBucket(1 / 3600, burst=1))
    log.append(b"data: 1\n\ndata: 2\n\n", 3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        viewer.tick(viewer.took_at + 10)
        await wait_all_tasks_blocked()
        assert sink.bodies == [b"first", b"data: 1\n\n", HEARTBEAT]
        tasks.cancel_scope.cancel()


async def test_every_message_counts_as_sending(anyio_backend: str) -> None:
    """The response's head counts, too: a client that does not take it is stalled."""
    viewer, hang = viewer_of(RunLog()), anyio.Event()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(viewer.timed, hang.wait())
        await wait_all_tasks_blocked()
        since = viewer.took_at
        viewer.tick(since + 30)
        assert viewer.gone is Gone.STALLED
        hang.set()


# -- the server stops ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("farewell", [b"retry: 5000\n\n", b""])
async def test_a_viewer_that_is_stopped_gets_what_is_pending_and_a_farewell(
    anyio_backend: str, farewell: bytes
) -> None:
    """The end itself waits for the run to be done, however long that takes."""
    log, sink, done = RunLog(), Sink(), Latch()
    viewer = viewer_of(log)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(written, viewer, sink)
            await wait_all_tasks_blocked()
            log.append(b"data: 1\n\n", 2)
            log.close()
            tell(viewer)
            viewer.stop(farewell, anyio.current_time() + 5, done)
            await wait_all_tasks_blocked()

            assert sink.bodies == [b"first", b"data: 1\n\n", *([farewell] if farewell else [])]
            assert not sink.ended
            assert viewer.scope.deadline == inf
            done.set()

    assert sink.ended
    assert viewer.gone is None


@pytest.mark.parametrize("is_done", [False, True])
async def test_a_viewer_that_takes_nothing_is_left_at_the_deadline(
    anyio_backend: str, is_done: bool, monkeypatch: Any
) -> None:
    """Whether it is the farewell that hangs, or the very last body."""
    monkeypatch.setattr(viewer_module, "LAST_SEND", 0.01)
    log, sink, done = RunLog(), Sink(), Latch()
    viewer = viewer_of(log)
    log.close()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            viewer.stop(b"retry: 5000\n\n", anyio.current_time() + 0.05, done)
            if not is_done:
                sink.hold = anyio.Event()
            tasks.start_soon(written, viewer, sink)
            await wait_all_tasks_blocked()
            sink.hold = sink.hold or anyio.Event()
            done.set()

    assert viewer.scope.cancelled_caught
    assert not sink.ended


async def test_a_stopped_viewer_has_a_moment_for_its_last_body_although_its_deadline_has_passed(
    anyio_backend: str,
) -> None:
    """Its run took longer to end than the viewer had; the end is then still sent."""
    log, sink, done = RunLog(), Sink(), Latch()
    viewer = viewer_of(log)
    log.close()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            viewer.stop(b"", anyio.current_time() + 0.01, done)
            tasks.start_soon(written, viewer, sink)
            await wait_all_tasks_blocked()
            await anyio.sleep_until(anyio.current_time() + 0.02)
            done.set()

    assert sink.ended


async def test_a_viewer_with_a_heartbeat_due_is_asked_again_an_interval_later(anyio_backend: str) -> None:
    """The heartbeat may have to wait behind frames, and the next one is due after it."""
    viewer = viewer_of(RunLog(), send_timeout=inf)
    now = viewer.took_at + 10

    assert viewer.tick(now) == pytest.approx(now + 10)
    assert viewer.tick(now + 1) == pytest.approx(now + 11)


async def written(viewer: Viewer, sink: Sink) -> None:
    with viewer.scope:
        await write(viewer, sink)


# -- a frame that takes long ---------------------------------------------------------------------------------------


class SlowSink(Sink):
    """A response whose client reads at a steady pace.

    Args:
        speed: bytes a second.
        limit: bytes after which it stops reading.
    """

    def __init__(self, speed: float, limit: float = inf) -> None:
        super().__init__()
        self._speed = speed
        self._left = limit

    async def __call__(self, message: Message) -> None:
        content = message["body"]
        assert len(content) <= BATCH
        self._left -= len(content)
        await anyio.sleep(inf if self._left < 0 else len(content) / self._speed)
        await super().__call__(message)


def line(size: int) -> bytes:
    return b'data: {"type":"stdout","line":"%b"}\n\n' % (b"x" * size)


@contextmanager
def timed(viewer: Viewer, clock: Clock) -> Any:
    """The clock ticks for the viewer."""
    timer = clock.start(viewer)
    try:
        yield
    finally:
        timer.stop()


POLICIES: list[Policy] = [
    Block(),
    Drop(64 * 1024),
    Coalesce(max_rate=None),
    Coalesce(64 * 1024, beyond="drop"),
]


@pytest.mark.virtual_time
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("speed", [3_000, 30_000, 10**6])
@pytest.mark.parametrize("sizes", [[2**20], [4 * 2**20], [10, 2**20, 10, 200_000]], ids=repr)
async def test_a_client_that_reads_steadily_is_never_cut(
    anyio_backend: str, policy: Policy, speed: float, sizes: list[int]
) -> None:
    """Whatever a frame's size: `send_timeout` counts from the last piece that went through."""
    clock, log, sink = Clock(), RunLog(), SlowSink(speed)
    viewer = viewer_of(log, policy=policy, clock=clock)
    for number, size in enumerate(sizes):
        log.append(line(size), number + 2)
    log.close()
    with timed(viewer, clock):
        await written(viewer, sink)

    assert viewer.gone is None
    assert sink.ended
    assert b"".join(sink.bodies).endswith(line(sizes[-1]))


@pytest.mark.virtual_time
@pytest.mark.parametrize("limit", [0, 10, 100_000, 700_000])
async def test_a_client_that_stops_reading_within_a_frame_is_cut(anyio_backend: str, limit: int) -> None:
    """After `send_timeout`, wherever it stopped; the frame's number has not counted as sent, so it is sent again."""
    clock, log, sink = Clock(), RunLog(), SlowSink(10**6, limit)
    viewer = viewer_of(log, clock=clock)
    log.append(line(2**20), 2)
    began = clock.now()
    with timed(viewer, clock):
        await written(viewer, sink)

    assert viewer.gone is Gone.STALLED
    assert 30 <= clock.now() - began < 33
    assert not sink.ended
    assert viewer.delivery.statistics().frames_out == 0


@pytest.mark.virtual_time
async def test_nothing_is_sent_within_a_frame_but_the_frame(anyio_backend: str) -> None:
    """Heartbeats are due and the viewer's time is up while a frame goes out; the response ends behind it."""
    clock, log, sink = Clock(), RunLog(), SlowSink(BATCH / 20)
    viewer = viewer_of(log, heartbeat=15, max_viewer_time=60, clock=clock)
    log.append(line(2**20), 2)
    log.append(line(10), 3)
    with timed(viewer, clock):
        await written(viewer, sink)

    assert b"".join(sink.bodies) == b"first" + line(2**20)
    assert sink.ended
    assert viewer.gone is None


@pytest.mark.virtual_time
@pytest.mark.parametrize("patience", [10.0, 1000.0])
async def test_a_stop_within_a_frame_says_farewell_behind_it_or_not_at_all(anyio_backend: str, patience: float) -> None:
    """A client discards a frame that is cut off, and comes back for it."""
    clock, log, sink, done = Clock(), RunLog(), SlowSink(BATCH / 20), Latch()
    viewer = viewer_of(log, clock=clock)
    log.append(line(2**20), 2)
    done.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(written, viewer, sink)
        await anyio.sleep(50)
        log.close()
        viewer.stop(b"retry: 5000\n", anyio.current_time() + patience, done)

    sent, whole = b"".join(sink.bodies), b"first" + line(2**20)
    assert sent == whole + b"retry: 5000\n" if patience > 100 else whole.startswith(sent)
    assert sink.ended == (patience > 100)


@pytest.mark.virtual_time
@pytest.mark.parametrize("send_timeout", [30.0, 300.0])
async def test_the_time_of_a_viewer_ends_while_a_send_hangs(anyio_backend: str, send_timeout: float) -> None:
    """The response ends as soon as that `send` has gone through, and not a heartbeat later."""
    clock, log, sink = Clock(), RunLog(), Sink()
    viewer = viewer_of(log, heartbeat=1000, send_timeout=send_timeout, max_viewer_time=10, clock=clock)
    sink.hold = anyio.Event()
    began = clock.now()
    with timed(viewer, clock):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(written, viewer, sink)
            await anyio.sleep(20)
            sink.hold.set()

    assert sink.ended
    assert clock.now() - began == pytest.approx(20)


# -- what is sent in the task's place ------------------------------------------------------------------------------


def in_callback(function: Callable[[], None]) -> None:
    """Calls a function in a callback of the event loop, as transports do."""
    asyncio.get_running_loop().call_soon(function)


async def brought(viewer: Viewer, sink: Sink, bring: Callable[[], None]) -> None:
    """Writes a viewer's response, and has `bring` called in a callback while the task waits."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        in_callback(bring)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_frames_are_sent_in_the_callback_that_brings_them(anyio_backend: str) -> None:
    """The task sleeps on. Its end wakes it. What the viewer has taken is known at once."""
    log, sink, seen = RunLog(), Sink(), []
    viewer = viewer_of(log, kind=CountingDelivery)
    assert isinstance(viewer.delivery, CountingDelivery)

    def bring() -> None:
        log.append(b"data: 1\n\n", 2)
        viewer.took_at -= 100
        tell(viewer)
        seen.append((list(sink.bodies), viewer.clock.now() - viewer.took_at < 50))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        takes = viewer.delivery.takes
        in_callback(bring)
        await viewer.took.wait()
        await wait_all_tasks_blocked()
        assert viewer.delivery.takes == takes
        log.close()
        tell(viewer)

    assert seen == [([b"first", b"data: 1\n\n"], True)]
    assert sink.bodies == [b"first", b"data: 1\n\n", b""]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_due_heartbeat_gives_way_to_frames_in_a_callback(anyio_backend: str) -> None:
    """The task is awake for it already, and finds that there is no silence any more."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)

    def bring() -> None:
        viewer.tick(viewer.took_at + 10)
        log.append(b"data: 1\n\n", 2)
        tell(viewer)

    await brought(viewer, sink, bring)

    assert sink.bodies == [b"first", b"data: 1\n\n"]


OUTPUT = b'data: {"type":"stdout","line":"a"}\n\ndata: {"type":"stdout","line":"b"}\n\n'
#: Limits of a viewer, and what it is sent of `OUTPUT`, which comes in one append.
LIMITS = {
    "a pace, which the task keeps": ({"rate": TokenBucket(1 / 3600, burst=1)}, OUTPUT[: len(OUTPUT) // 2]),
    "merging": ({"policy": Coalesce(max_rate=None)}, b'data: {"type":"stdout","line":"a\\nb"}\n\n'),
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("limits", "sent"), LIMITS.values(), ids=LIMITS)
async def test_limits_are_kept_where_frames_come_in_a_callback(
    anyio_backend: str, limits: dict[str, Any], sent: bytes
) -> None:
    """Also if the viewer has taken everything before the append."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log, **limits)

    def bring() -> None:
        log.append(OUTPUT, 3)
        tell(viewer)

    await brought(viewer, sink, bring)

    assert sink.bodies == [b"first", sent]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_backlog_that_comes_at_once_is_left_to_the_task(anyio_backend: str) -> None:
    """Behind its first batch."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)

    def bring() -> None:
        for number in range(20):
            log.append(b"x" * (BATCH // 4), number + 2)
        tell(viewer)

    await brought(viewer, sink, bring)

    assert [len(body) for body in sink.bodies[1:]] == [BATCH] * 5


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("size", [10, BATCH - 100, BATCH - 2, BATCH, 3 * BATCH])
async def test_what_comes_behind_a_frame_of_any_size_waits_for_its_end(anyio_backend: str, size: int) -> None:
    """A large frame wakes the task for its rest. The next frame comes before the task runs."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    frames = [b"data: %s\n\n" % (b"x" * size), b"data: 2\n\n", b"data: 3\n\n"]

    def bring() -> None:
        for number, frame in enumerate(frames, 2):
            log.append(frame, number)
            tell(viewer)

    await brought(viewer, sink, bring)

    assert b"".join(sink.bodies[1:]) == b"".join(frames)
    assert viewer.delivery.statistics().frames_out == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_missing_is_told_in_the_callback_before_what_follows(anyio_backend: str) -> None:
    """Also if `statistics` was called first: it gives frames up, and the newest append is all that is left to take."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log, policy=Drop(100))

    def bring() -> None:
        log.append(line(5000), 2)
        log.append(line(5000), 3)
        assert viewer.delivery.statistics().frames_dropped == 1
        tell(viewer)

    await brought(viewer, sink, bring)

    gap = b'data: {"type":"gap","dropped":1,"bytes":%d}\n\n' % len(line(5000))
    assert sink.bodies == [b"first", gap + line(5000)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_last_frame_and_the_end_may_come_at_once(anyio_backend: str) -> None:
    """The viewer is told once."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)

    def bring() -> None:
        log.append(b"data: 1\n\n", 2)
        log.close()
        tell(viewer)

    await brought(viewer, sink, bring)

    assert sink.bodies == [b"first", b"data: 1\n\n", b""]
    assert sink.ended


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_hangs_in_the_callback_ends_the_viewer_at_its_timeout(anyio_backend: str) -> None:
    """It hangs in the task from then on."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(written, viewer, sink)
        await wait_all_tasks_blocked()
        sink.hold = anyio.Event()
        log.append(b"data: 1\n\n", 2)
        in_callback(lambda: tell(viewer))
        await wait_all_tasks_blocked()
        since = viewer.took_at

        assert viewer.tick(since + 29) == pytest.approx(since + 30)
        assert viewer.tick(since + 30) == inf

    assert viewer.gone is Gone.STALLED
    assert sink.bodies == [b"first"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_fails_in_the_callback_fails_in_the_task(anyio_backend: str) -> None:
    """Servers say so that the client has left. The feeder hears nothing of it."""
    log, fails, told = RunLog(), False, []

    async def send(message: Message) -> None:
        if fails:
            raise BrokenPipeError("the client has left")

    viewer = viewer_of(log)

    def bring() -> None:
        log.append(b"data: 1\n\n", 2)
        tell(viewer)
        told.append(True)

    async def writes() -> None:
        with pytest.raises(BrokenPipeError):
            await viewer.write(send, b"first", StandIn(copy_context()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writes)
        await wait_all_tasks_blocked()
        fails = True
        in_callback(bring)

    assert told == [True]


@pytest.mark.parametrize("seed", range(20))
async def test_each_frame_is_sent_once_and_in_order_whoever_sends_it(anyio_backend: str, seed: int) -> None:
    """Frames come in callbacks and from tasks, sends wait now and then, heartbeats are due, and the log ends."""
    rng = random.Random(seed)
    log = RunLog()
    bodies: list[bytes] = []
    sending = 0

    async def send(message: Message) -> None:
        nonlocal sending
        sending += 1
        assert sending == 1
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            await anyio.lowlevel.checkpoint()
        if rng.random() < 0.1:
            await anyio.sleep(0.001)
        bodies.append(message["body"])
        sending -= 1

    viewer = viewer_of(log, policy=rng.choice(POLICIES[:3]))
    rounds = rounds_of(viewer)

    def bring(number: int) -> None:
        log.append(b"data: %d\n\n" % number, number + 1)
        rounds.tell()

    async def writes() -> None:
        await write(viewer, send, b"")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writes)
        for number in range(1, 101):
            if anyio_backend == "asyncio" and rng.random() < 0.7:
                in_callback(partial(bring, number))
                await anyio.lowlevel.checkpoint()
            else:
                bring(number)
            if rng.random() < 0.1:
                viewer.tick(viewer.took_at + 10)
            for _ in range(rng.choice([0, 0, 1, 5])):
                await anyio.lowlevel.checkpoint()
        log.close()
        rounds.tell()

    sent = b"".join(bodies).replace(HEARTBEAT, b"")
    assert sent == b"".join(b"data: %d\n\n" % number for number in range(1, 101))
    assert viewer.delivery.statistics().frames_out == 100


# -- a client that reads while a `send` hangs ----------------------------------------------------------------------


async def test_a_viewer_that_is_sent_away_while_its_last_frame_is_sent_goes_behind_it(anyio_backend: str) -> None:
    """Nothing is pending then, and the log may stay silent."""
    log, sink = RunLog(), Sink()
    viewer = viewer_of(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, viewer, sink)
        await wait_all_tasks_blocked()
        sink.hold = hold = anyio.Event()
        log.append(b"data: 1\n\n", 2)
        tell(viewer)
        await wait_all_tasks_blocked()

        viewer.send_away()
        hold.set()
        await wait_all_tasks_blocked()

        assert sink.bodies == [b"first", b"data: 1\n\n", b""]
        tasks.cancel_scope.cancel()


class Buffers:
    """A server and a kernel that hold megabytes: no `send` returns before the client has read most of it.

    Args:
        clock: the event loop's.
        speed: bytes a second that the client reads, until `stops_at`.
    """

    def __init__(self, clock: Clock, speed: float, stops_at: float = inf) -> None:
        self._clock = clock
        self._began = clock.now()
        self._speed = speed
        self._stops_at = stops_at

    def acknowledged(self) -> int:
        return int((min(self._clock.now(), self._stops_at) - self._began) * self._speed)


@pytest.mark.virtual_time
@pytest.mark.parametrize("speed", [2, 30_000, 10**6])
@pytest.mark.parametrize("seconds", [40, 3600])
async def test_a_client_that_reads_is_not_cut_however_long_a_send_hangs(
    anyio_backend: str, speed: float, seconds: float
) -> None:
    """Buffers hide its progress from `send`; the connection shows it."""
    clock, log, sink = Clock(), RunLog(), Sink()
    viewer = viewer_of(log, clock=clock)
    viewer.progress.acknowledged = Buffers(clock, speed).acknowledged
    sink.hold = anyio.Event()
    log.close()
    with timed(viewer, clock):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(written, viewer, sink)
            await anyio.sleep(seconds)
            sink.hold.set()

    assert viewer.gone is None
    assert sink.ended


@pytest.mark.virtual_time
@pytest.mark.parametrize("read_for", [0, 1, 29, 31, 100])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_client_that_reads_no_more_is_cut_in_time(anyio_backend: str, read_for: float, is_known: bool) -> None:
    """Not before its `send` has hung for `send_timeout`; that and a quarter of it after its last progress at most.

    What is unknown is no progress.
    """
    clock, sink = Clock(), Sink()
    viewer = viewer_of(RunLog(), heartbeat=1000, clock=clock)
    began = clock.now()
    if is_known:
        viewer.progress.acknowledged = Buffers(clock, 30_000, began + read_for).acknowledged
    sink.hold = anyio.Event()
    with timed(viewer, clock):
        await written(viewer, sink)

    assert viewer.gone is Gone.STALLED
    took = clock.now() - began
    if is_known and read_for > 7.5:
        assert read_for + 30 - 7.5 <= took <= read_for + 30 + 7.5 + 0.2
    else:
        assert took == pytest.approx(30, abs=0.1)
