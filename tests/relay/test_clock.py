"""`Clock`: one timer for all subjects, each of which is asked once a time, in time, and until it is stopped."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from math import inf
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio import wait_all_tasks_blocked

from sse_bridge.relay import clock as clock_module
from sse_bridge.relay.clock import Clock, Timer
from tests.support.virtual_time import stand_still

pytestmark = pytest.mark.anyio


class Subject:
    """Wants to be asked after each of `waits` seconds, and writes down when it was."""

    def __init__(self, clock: Clock, *waits: float) -> None:
        self.asked: list[float] = []
        self.wanted = [clock.now()]
        self.done = anyio.Event()
        self._waits = list(waits)

    def tick(self, now: float) -> float:
        self.asked.append(now)
        if not self._waits:
            self.done.set()
            return inf
        self.wanted.append(now + self._waits.pop(0))
        return self.wanted[-1]


class LoopWatch:
    """What a clock leaves in the event loop: timers on asyncio, a task and its deadline on trio."""

    def __init__(self, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend = backend
        #: How many seconds ahead each timer so far was set, on asyncio.
        self.delays: list[float] = []
        self._pending: set[asyncio.TimerHandle] = set()
        self._tasks = self._living_tasks()
        if backend == "asyncio":
            loop = asyncio.get_running_loop()
            self._call_later = loop.call_later
            monkeypatch.setattr(loop, "call_later", self._record)

    def _record(self, delay: float, callback: Callable[..., object], *args: Any, **options: Any) -> Any:
        def ring() -> None:
            self._pending.discard(handle)
            callback(*args)

        self.delays.append(delay)
        handle = self._call_later(delay, ring, **options)
        self._pending.add(handle)
        return handle

    def _living_tasks(self) -> int:
        return trio.lowlevel.current_statistics().tasks_living if self.backend == "trio" else len(asyncio.all_tasks())

    async def timers(self) -> int:
        """Timers that will fire; on trio, whether there is a deadline."""
        await wait_all_tasks_blocked()
        if self.backend == "trio":
            return int(trio.lowlevel.current_statistics().seconds_to_next_deadline < inf)
        return sum(not handle.cancelled() for handle in self._pending)

    async def tasks(self) -> int:
        """Tasks that came since the watch began."""
        await wait_all_tasks_blocked()
        return self._living_tasks() - self._tasks


@pytest.fixture
async def loop(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> LoopWatch:
    return LoopWatch(anyio_backend, monkeypatch)


async def until(*subjects: Subject) -> None:
    with anyio.fail_after(10):
        for subject in subjects:
            await subject.done.wait()


async def test_every_subject_is_asked_when_it_wants_to_be(loop: LoopWatch) -> None:
    """At once, and then at the time it says or later. The last answer leaves no timer behind."""
    clock = Clock()
    subjects = [Subject(clock), Subject(clock, 0.03, 0.01), Subject(clock, 0.01, 0.04, 0.02)]
    timers = [clock.start(subject) for subject in subjects]
    await until(*subjects)

    for subject in subjects:
        assert len(subject.asked) == len(subject.wanted)
        assert all(asked >= wanted for asked, wanted in zip(subject.asked, subject.wanted, strict=True))
    assert await loop.timers() == 0
    for timer in timers:
        timer.stop()


async def test_all_subjects_share_one_timer(loop: LoopWatch) -> None:
    """It is set for the earliest of them, and a later time leaves it as it is."""
    clock = Clock()
    timers = [clock.start(Subject(clock, 3600.0 + number)) for number in range(100)]
    assert len(loop.delays) == (1 if loop.backend == "asyncio" else 0)

    assert await loop.timers() == 1
    assert await loop.tasks() == (1 if loop.backend == "trio" else 0)
    for timer in timers:
        timer.stop()


async def test_subjects_that_are_due_together_are_asked_in_one_round(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds are an interval apart, however many subjects want to be asked in between."""
    monkeypatch.setattr(clock_module, "ROUND_INTERVAL", 0.3)
    clock = Clock()
    others = [Subject(clock, 0.01 * number) for number in range(1, 9)]
    timers: list[Timer] = []

    class First(Subject):
        def tick(self, now: float) -> float:
            if self.asked:  # it is asked in a round
                timers.extend(clock.start(other) for other in others)
            return super().tick(now)

    first = First(clock, 0.01)
    timers.append(clock.start(first))
    await until(first, *others)

    assert {subject.asked[1] for subject in others} == {others[0].asked[1]}
    assert others[0].asked[1] >= first.asked[1] + 0.3
    for timer in timers:
        timer.stop()


async def test_a_round_is_at_most_an_interval_late(loop: LoopWatch) -> None:
    """A subject that wants to be asked more often than every 50 ms is asked every 50 ms, with one timer a round."""
    clock = Clock()
    subject = Subject(clock, 0.01, 0.01)
    timer = clock.start(subject)
    await until(subject)
    timer.stop()

    assert all(delay <= 0.05 for delay in loop.delays)
    assert len(loop.delays) == (2 if loop.backend == "asyncio" else 0)


@pytest.mark.parametrize("wait", [0.1, 3600])
async def test_an_earlier_time_counts_and_a_later_one_does_not(anyio_backend: str, wait: float) -> None:
    """A hastened subject is asked at the earlier time only."""
    clock = Clock()
    subject, witness = Subject(clock, wait), Subject(clock, 0.02, 0.2)
    timer, other = clock.start(subject), clock.start(witness)
    timer.hasten(clock.now() + 7200)
    assert timer.due == subject.wanted[1]
    due = clock.now() + 0.05
    timer.hasten(due)
    timer.hasten(due + 0.02)
    await until(subject, witness)

    assert due <= subject.asked[1]
    assert len(subject.asked) == 2
    timer.stop()
    other.stop()


async def test_an_earlier_time_ends_a_wait_for_a_later_one(anyio_backend: str) -> None:
    """The event loop may wait for the later time already."""
    clock = Clock()
    subject = Subject(clock, 3600)
    timer = clock.start(subject)
    await wait_all_tasks_blocked()
    timer.hasten(clock.now())
    await until(subject)
    timer.stop()


async def test_a_stopped_subject_is_neither_asked_nor_kept(loop: LoopWatch) -> None:
    """Other subjects go on. The last one to stop takes the event loop's timer with it."""
    clock = Clock()
    subject, witness = Subject(clock, 0.02), Subject(clock, 0.2, 3600)
    timer, other = clock.start(subject), clock.start(witness)
    timer.stop()
    timer.stop()
    timer.hasten(0)
    assert timer.subject is None
    with anyio.fail_after(10):
        while len(witness.asked) < 2:
            await anyio.lowlevel.checkpoint()
    assert len(subject.asked) == 1

    assert await loop.timers() == 1
    other.stop()
    other.hasten(clock.now() + 1800)
    assert await loop.timers() == await loop.tasks() == 0


async def test_the_clock_goes_on_after_all_subjects_left(anyio_backend: str) -> None:
    """A subject that comes later is asked like the first, even if that never wanted to be asked again."""
    clock = Clock()
    for waits in ([], [0.01], [], [0.01]):
        clock.start(Subject(clock, 0.001)).stop()  # before its time
        subject = Subject(clock, *waits)
        timer = clock.start(subject)
        await until(subject)
        timer.stop()
        assert len(subject.asked) == 1 + len(waits)


async def test_a_bug_in_one_subject_leaves_the_others_time_alone(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the subject is left alone until it is hastened."""

    class Broken:
        asked = 0

        def tick(self, now: float) -> float:
            self.asked += 1
            if self.asked > 1:
                raise ZeroDivisionError
            return now + 0.01

    clock = Clock()
    broken, witness = Broken(), Subject(clock, 0.03, 0.06)
    timers = [clock.start(broken), clock.start(witness)]
    await until(witness)

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    assert broken.asked == 2
    for timer in timers:
        timer.stop()


# -- how much a clock keeps ----------------------------------------------------------------------------------------


class Flushing:
    """A subject with a limit far away that is hastened all the time, as a run that shows unfinished lines is."""

    def __init__(self, limit: float) -> None:
        self.asked = 0
        self.limit = limit

    def tick(self, now: float) -> float:
        self.asked += 1
        return self.limit


@pytest.mark.virtual_time
async def test_a_subject_that_is_hastened_again_and_again_costs_no_memory(anyio_backend: str) -> None:
    """Its limit is noted once, however often something else is due before."""
    clock = Clock()
    flushing = Flushing(clock.now() + 10**6)
    timer = clock.start(flushing)

    async def flush(times: int) -> None:
        for _ in range(times):
            timer.hasten(clock.now() + 0.5)
            await anyio.sleep(0.6)

    await flush(10)
    tracemalloc.start()
    await flush(2000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    timer.stop()

    assert flushing.asked == 2011
    assert kept < 50_000


@pytest.mark.virtual_time
async def test_the_limit_of_a_hastened_subject_holds(anyio_backend: str) -> None:
    """Also if it was put off meanwhile."""
    clock = Clock()
    began = clock.now()
    flushing = Flushing(began + 100)
    timer = clock.start(flushing)
    timer.hasten(began + 10)
    await anyio.sleep(20)
    assert flushing.asked == 2
    flushing.limit = began + 200
    timer.hasten(began + 90)
    await anyio.sleep_until(anyio.current_time() + 150)
    assert flushing.asked == 3
    flushing.limit = inf
    await anyio.sleep(100)
    assert flushing.asked == 4
    timer.stop()


@pytest.mark.virtual_time
async def test_stopped_subjects_cost_no_memory(anyio_backend: str) -> None:
    """However far away their limits were: thousands of runs with a limit of a day end within the day."""
    clock = Clock()
    witness = clock.start(Flushing(clock.now() + 10**6))
    tracemalloc.start()
    for _ in range(5000):
        clock.start(Flushing(clock.now() + 86_400)).stop()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    witness.stop()

    assert kept < 100_000


# -- the process stands still --------------------------------------------------------------------------------------


@pytest.mark.virtual_time
@pytest.mark.parametrize("seconds", [1.0, 40.0, 10.0**6])
async def test_a_clock_stands_still_with_the_process(anyio_backend: str, seconds: float) -> None:
    """A second at most is counted, time never runs backwards, and what is due later is asked as much later."""
    clock = Clock()
    subject = Subject(clock, 10)
    timer = clock.start(subject)
    began, real = clock.now(), anyio.current_time()
    for _ in range(3):
        await anyio.sleep(2)
        before = clock.now()
        stand_still(seconds)
        after = clock.now()
        assert 0 <= after - before <= 0.6
        await anyio.lowlevel.checkpoint()
        assert after <= clock.now() <= after + 0.1
    await until(subject)

    assert clock.now() - began == pytest.approx(10, abs=0.1)
    assert anyio.current_time() - real == pytest.approx(10 + clock.lost, abs=0.1)
    assert clock.lost >= 3 * (seconds - 0.6)
    timer.stop()


@pytest.mark.virtual_time
async def test_short_waits_are_no_standstill(anyio_backend: str) -> None:
    """The event loop was busy for a while."""
    clock = Clock()
    timer = clock.start(Flushing(inf))
    timer.hasten(clock.now() + 5)
    for _ in range(30):
        stand_still(0.2)
        await anyio.sleep(0.1)
    assert clock.lost == 0
    timer.stop()


@pytest.mark.virtual_time
async def test_a_clock_without_subjects_notices_nothing(anyio_backend: str) -> None:
    """It has no timer then, and nothing is due."""
    clock = Clock()
    before = clock.now()
    stand_still(40)
    assert clock.now() - before == pytest.approx(40)
    assert clock.lost == 0
    clock.start(Flushing(clock.now() + 10)).stop()
    stand_still(40)
    assert clock.lost == 0


@pytest.mark.virtual_time
async def test_a_limit_in_the_clocks_time(anyio_backend: str) -> None:
    """`move_on_after` as anyio's own, but that a standstill leaves it as it is."""
    clock = Clock()
    began = clock.now()
    with clock.move_on_after(5) as scope:
        await anyio.sleep(2)
        stand_still(40)
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert clock.now() - began == pytest.approx(5, abs=0.1)
    with clock.move_on_after(0):
        await anyio.sleep(1)
        raise AssertionError
    with clock.move_on_after(inf) as scope:
        await anyio.sleep(10**5)
    assert not scope.cancelled_caught


@pytest.mark.virtual_time
async def test_a_deadline_is_in_the_event_loops_time(anyio_backend: str) -> None:
    """Scopes know no other."""
    clock = Clock()
    timer = clock.start(Flushing(clock.now() + 100))
    stand_still(40)
    assert clock.lost > 39
    assert clock.deadline(7) == pytest.approx(anyio.current_time() + 7)
    timer.stop()


def test_at_the_end_of_trios_loop_time_goes_on() -> None:
    """Trio ends the clock's task before other system tasks, which may still measure time."""
    measured: list[float] = []

    async def outlast(clock: Clock) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(2):
                    before = clock.now()
                    clock.start(Flushing(clock.now() + 100))
                    await trio.sleep(3)
                    measured.extend([clock.now() - before, clock.lost])

    async def main() -> None:
        clock = Clock()
        clock.start(Flushing(clock.now() + 100))
        trio.lowlevel.spawn_system_task(outlast, clock)
        await wait_all_tasks_blocked()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert measured == [pytest.approx(3), 0, pytest.approx(3), 0]
