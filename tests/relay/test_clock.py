"""`Clock`: one timer for all, and nobody is asked too early, twice, or after it was stopped."""

from __future__ import annotations

from math import inf
from typing import Any

import anyio
import pytest

from sse_bridge.relay import clock as clock_module
from sse_bridge.relay.clock import Clock

pytestmark = pytest.mark.anyio


class Subject:
    """Wants to be asked after `wait` seconds, as long as it has any left; writes down when it was."""

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


async def until(*subjects: Subject) -> None:
    with anyio.fail_after(10):
        for subject in subjects:
            await subject.done.wait()


async def test_everybody_is_asked_when_it_wanted_to_be(anyio_backend: str) -> None:
    """At once, and then never early; those who want nothing more are left alone."""
    clock = Clock()
    subjects = [Subject(clock), Subject(clock, 0.03, 0.01), Subject(clock, 0.01, 0.04, 0.02)]
    timers = [clock.start(subject) for subject in subjects]
    await until(*subjects)

    for subject in subjects:
        assert len(subject.asked) == len(subject.wanted)
        assert all(asked >= wanted for asked, wanted in zip(subject.asked, subject.wanted, strict=True))
    assert clock._entries == []
    for timer in timers:
        timer.stop()


async def test_those_who_are_due_together_are_asked_in_one_round(anyio_backend: str, monkeypatch: Any) -> None:
    """Two rounds are never closer than the grain, however many want to be asked in between."""
    monkeypatch.setattr(clock_module, "_GRAIN", 0.1)
    clock = Clock()
    first, *others = (Subject(clock, 0.01 * number) for number in range(1, 9))
    timers = [clock.start(subject) for subject in (first, *others)]
    await until(first, *others)

    assert {subject.asked[1] for subject in others} == {others[0].asked[1]}
    assert others[0].asked[1] >= first.asked[1] + 0.1
    for timer in timers:
        timer.stop()


async def test_an_earlier_time_counts_and_a_later_one_does_not(anyio_backend: str) -> None:
    """And who was hastened is not asked again at its old time."""
    clock = Clock()
    subject, witness = Subject(clock, 3600), Subject(clock, 0.02, 0.2)
    timer, other = clock.start(subject), clock.start(witness)
    timer.hasten(clock.now() + 7200)
    assert timer.due == subject.wanted[1]
    due = clock.now() + 0.05
    timer.hasten(due)
    timer.hasten(due + 0.05)
    await until(subject, witness)

    assert due <= subject.asked[1]
    assert len(subject.asked) == 2
    timer.stop()
    other.stop()


async def test_who_is_stopped_is_not_asked_nor_kept(anyio_backend: str) -> None:
    """Also while others go on; and with the last one the timer of the loop goes."""
    clock = Clock()
    subject, witness = Subject(clock, 0.02), Subject(clock, 0.2)
    timer, other = clock.start(subject), clock.start(witness)
    timer.stop()
    timer.stop()
    timer.hasten(0)
    assert timer.subject is None
    await until(witness)
    other.stop()

    assert len(subject.asked) == 1
    assert clock._entries == []
    assert clock._bell._at == inf


async def test_the_clock_goes_on_after_everybody_had_left(anyio_backend: str) -> None:
    """Whoever comes then is asked like the first."""
    clock = Clock()
    for _ in range(3):
        subject = Subject(clock, 0.01)
        timer = clock.start(subject)
        await until(subject)
        timer.stop()
    assert len(subject.asked) == 2


async def test_a_bug_in_one_does_not_stop_the_others_time(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""

    class Broken:
        asked = 0

        def tick(self, now: float) -> float:
            self.asked += 1
            if self.asked > 1:
                raise ZeroDivisionError
            return now + 0.01

    clock = Clock()
    witness = Subject(clock, 0.03)
    timers = [clock.start(Broken()), clock.start(witness)]
    await until(witness)

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    for timer in timers:
        timer.stop()
