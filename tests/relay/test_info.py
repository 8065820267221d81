"""`info`: what an application is told about a run."""

from __future__ import annotations

import dataclasses
import json
import time
from math import inf

import anyio
import pytest

from sse_bridge.errors import UpstreamLost, UpstreamRefused
from sse_bridge.relay.info import Lifetime, Outcome, RunInfo
from sse_bridge.upstream.base import Cancelled
from tests.support.scene import scene
from tests.support.work import ScriptedWork, exit_frame, stdout

TOKEN = "abcdefghijklmnop"


def test_repr_leaves_the_token_out() -> None:
    """Logs show it, and a token lets its holder follow and end the run."""
    info = RunInfo(TOKEN, "ann", ScriptedWork(), 0.0, "running")

    assert TOKEN not in repr(info)
    assert repr(info).startswith("RunInfo(abcdef..., owner='ann', source=")


def test_it_is_a_value() -> None:
    """It is frozen, and two of the same moment are equal."""
    work = ScriptedWork()
    info = RunInfo(TOKEN, None, work, 1.0, "ended")

    assert info == RunInfo(TOKEN, None, work, 1.0, "ended")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.owner = "bob"  # type: ignore[misc]


def test_a_lifetime_knows_both_clocks() -> None:
    """Its limit and its duration are the event loop's, and its moments are those of the wall."""
    before = time.time()
    lifetime = Lifetime(100.0, 30.0)

    assert (lifetime.expires, lifetime.ended_at, lifetime.duration) == (130.0, None, 0.0)
    lifetime.end(112.0)
    assert (lifetime.expires, lifetime.duration) == (inf, 12.0)
    assert lifetime.ended_at is not None
    assert before <= lifetime.started_at <= lifetime.ended_at <= time.time()


def test_a_lifetime_is_unlimited_by_default() -> None:
    """Its expiry is infinitely far away."""
    assert Lifetime(100.0).expires == inf


@pytest.mark.anyio
async def test_the_state_of_a_run(anyio_backend: str) -> None:
    """It starts until the upstream has answered, and has ended once its terminal frame is out."""
    work = ScriptedWork(answers=False)
    async with scene(work) as it:
        states = [it.run.info.state]
        work.answer()
        await it.run.answered.wait()
        states.append(it.run.info.state)
        work.feed(exit_frame())
        await anyio.wait_all_tasks_blocked()
        states.append(it.run.info.state)
        assert it.run.info == dataclasses.replace(it.run.info)
        work.finish()

    assert states == ["starting", "running", "ended"]


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["typed", "named", "verbatim"])
async def test_the_outcome_of_an_exit(anyio_backend: str, dialect: str) -> None:
    """It counts what came before the terminal frame, and converts to JSON."""
    work = ScriptedWork()
    async with scene(work, dialect=dialect) as it:
        work.feed(stdout("a", "b"), exit_frame(3))
        work.finish()

    outcome = it.run.outcome()
    assert (outcome.exit_code, outcome.error, outcome.message, outcome.cancelled) == (3, None, None, None)
    assert outcome.bytes == it.audience.log.size
    assert outcome.lines == 2
    assert json.loads(json.dumps(dataclasses.asdict(outcome)))["exit_code"] == 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "code", "cancelled"),
    [
        (UpstreamLost("It broke."), "upstream_lost", Cancelled.CONFIRMED),
        (None, "upstream_ended", Cancelled.CONFIRMED),
    ],
)
async def test_the_outcome_of_a_failure(
    anyio_backend: str, error: Exception | None, code: str, cancelled: Cancelled
) -> None:
    """It is the terminal frame's code and message, and how far ending the work got."""
    work = ScriptedWork()
    async with scene(work) as it:
        work.feed(stdout("a"))
        if error is None:
            work.finish()
        else:
            work.fail(error)

    outcome = it.run.outcome()
    assert (outcome.exit_code, outcome.error, outcome.cancelled, outcome.lines) == (None, code, cancelled, 1)
    assert outcome.message


@pytest.mark.anyio
async def test_the_outcome_of_a_refusal(anyio_backend: str) -> None:
    """`cancelled` is `None`, since the work stayed unstarted."""
    work = ScriptedWork(refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with scene(work) as it:
        pass

    assert dataclasses.replace(it.run.outcome(), duration=0.0, bytes=0) == Outcome(
        exit_code=None, error="not_found", message="No.", duration=0.0, lines=0, bytes=0, cancelled=None
    )


@pytest.mark.anyio
async def test_the_outcome_of_a_run_that_goes_on(anyio_backend: str) -> None:
    """It tells what is known so far."""
    work = ScriptedWork()
    async with scene(work) as it:
        work.feed(stdout("a"))
        await anyio.wait_all_tasks_blocked()
        outcome = it.run.outcome()
        work.feed(exit_frame())
        work.finish()

    assert (outcome.exit_code, outcome.error, outcome.lines) == (None, None, 1)
