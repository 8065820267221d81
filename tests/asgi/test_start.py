"""Runs that the application starts itself, with `SSEBridge.start`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import Block, Drop, SSEBridge
from sse_bridge.errors import BridgeUnavailable, ConfigurationError, KeyConflict, UpstreamRefused
from sse_bridge.upstream.base import Cancelled
from tests.support.asgi import Page, lines
from tests.support.site import Site, never, site
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def follow(it: Site, token: str) -> Page:
    page = it.open(path=f"/{token}")
    await page.until(lambda: page.content)
    return page


async def test_a_run_is_started_without_a_request_and_followed_by_its_token() -> None:
    """The outcome says how it ended."""
    work = ScriptedWork()
    async with site() as it:
        run = await it.bridge.start(work)
        assert work.started.is_set()
        assert (run.info.state, run.info.source, run.info.owner) == ("running", work, None)
        page = await follow(it, run.token)
        work.feed(stdout("a"), exit_frame(3))
        work.finish()
        outcome = await run.wait()

    assert lines(page) == ["a", "exit"]
    assert (outcome.exit_code, outcome.error, outcome.lines, outcome.cancelled) == (3, None, 1, None)
    assert run.info.state == "ended"
    assert run.token not in repr(run)
    assert repr(run).startswith(f"StartedRun(RunInfo({run.token[:6]}...")


async def test_it_returns_once_the_upstream_has_answered() -> None:
    """Until then the run is starting."""
    work, runs = ScriptedWork(answers=False), []
    async with site() as it:

        async def start() -> None:
            runs.append(await it.bridge.start(work))

        it.tasks.start_soon(start)
        await wait_all_tasks_blocked()
        assert work.started.is_set()
        assert not runs
        work.answer()
        await wait_all_tasks_blocked()
        assert [run.info.state for run in runs] == ["running"]
        await it.bridge.shutdown()


async def test_a_refusal_of_the_upstream_is_raised_and_frees_the_key() -> None:
    """The next start with this key runs its work."""
    refusal = UpstreamRefused("Busy.", code="busy", status=503, started_nothing=True)
    async with site() as it:
        for _ in range(2):
            with pytest.raises(UpstreamRefused) as raised:
                await it.bridge.start(ScriptedWork(refusal=refusal), key="k")
            assert raised.value is refusal
        run = await it.bridge.start(finished(), key="k")
        assert (await run.wait()).exit_code == 0


async def test_a_key_is_joined_with_the_same_source_and_refused_with_another() -> None:
    """The work starts once, and a run that is over is joined as well while it is kept."""
    works = [ScriptedWork(), ScriptedWork()]
    async with site() as it:
        runs = [await it.bridge.start(work, owner="ann", key="k") for work in works]
        with pytest.raises(KeyConflict):
            await it.bridge.start(ScriptedWork(command="rm"), owner="ann", key="k")
        other = await it.bridge.start(finished(command="rm"), owner="bob", key="k")
        works[0].feed(exit_frame())
        works[0].finish()
        await runs[0].wait()
        runs.append(await it.bridge.start(ScriptedWork(), owner="ann", key="k"))

    assert len({run.token for run in runs}) == 1
    assert other.token != runs[0].token
    assert not works[1].started.is_set()


async def test_two_starts_with_one_key_wait_for_the_same_answer() -> None:
    """Both get the run, or both get the refusal."""
    for refusal in (None, UpstreamRefused("No.", code="not_found", status=404)):
        work = ScriptedWork(answers=False, refusal=refusal)
        ends: list[object] = []

        async def start(bridge: SSEBridge, work: ScriptedWork, ends: list[object]) -> None:
            try:
                ends.append((await bridge.start(work, key="k")).token)
            except UpstreamRefused as error:
                ends.append(error)

        async with site() as it:
            for one in (work, ScriptedWork()):
                it.tasks.start_soon(start, it.bridge, one, ends)
            await wait_all_tasks_blocked()
            work.answer()
            await wait_all_tasks_blocked()
            assert len(ends) == 2
            assert ends[0] == ends[1]
            await it.bridge.shutdown()


@pytest.mark.parametrize(("grace", "seconds"), [("bridge", 20), (0, 10), (3, 10), (30, 30), (None, None)])
async def test_the_first_viewer_has_time_to_come(grace: Any, seconds: float | None) -> None:
    """The work goes on for ten seconds, or for `grace` if that is longer; without limit if it is `None`."""
    work = ScriptedWork()
    async with site(grace=20, within=1000) as it:
        run = await it.bridge.start(work, grace=grace)
        await anyio.sleep((seconds or 900) - 0.1)
        assert it.bridge.statistics().runs
        await anyio.sleep(0.2)
        assert (run.info.state == "ended") is (seconds is not None)
        assert work.cancels == (seconds is not None)
        await it.bridge.shutdown()
        assert (await run.wait()).error == ("server_stopped" if seconds is None else "abandoned")


@pytest.mark.parametrize(("grace", "seconds"), [(0, 0), (3, 3), ("bridge", 5)])
async def test_after_its_first_viewer_only_the_grace_period_counts(grace: Any, seconds: float) -> None:
    """The ten seconds are for the first viewer alone."""
    work = ScriptedWork()
    async with site(grace=5, within=100) as it:
        run = await it.bridge.start(work, grace=grace)
        await anyio.sleep(8)
        page = await follow(it, run.token)
        await anyio.sleep(20)
        assert run.info.state == "running"
        page.leave()
        before = anyio.current_time()
        await run.wait()
        assert anyio.current_time() == pytest.approx(before + seconds, abs=0.1)


async def test_the_first_viewer_gets_the_run_from_its_beginning() -> None:
    """Under `Block` the script waits for it, once it is `high_water` bytes ahead, even with a `replay` of zero."""
    texts = [f"line {number}" for number in range(5000)]
    work = ScriptedWork()
    work.feed(*map(stdout, texts), exit_frame())
    work.finish()
    async with site(policy=Block(1000), replay=0) as it:
        run = await it.bridge.start(work)
        await wait_all_tasks_blocked()
        assert work.unread > 4900
        page = await follow(it, run.token)
        await page.until(lambda: page.ended)

    assert lines(page) == [*texts, "exit"]


async def test_without_a_grace_period_the_script_waits_as_long_as_the_policy_says() -> None:
    """Then it runs on, and its first viewer gets a `gap`."""
    work = ScriptedWork()
    work.feed(*map(stdout, "x" * 500))
    async with site(policy=Block(1000, stall_timeout=5), replay=2000, grace=None, within=100) as it:
        run = await it.bridge.start(work)
        await anyio.sleep(4.9)
        assert work.unread
        await anyio.sleep(0.2)
        assert not work.unread
        page = await follow(it, run.token)
        await page.until(lambda: page.objects)
        assert page.objects[0]["type"] == "gap"
        await it.bridge.shutdown()


async def test_a_policy_that_drops_lets_the_script_run() -> None:
    """`Drop` never holds a run back."""
    work = ScriptedWork()
    work.feed(*map(stdout, "x" * 500))
    async with site(policy=Drop(1000), replay=0) as it:
        await it.bridge.start(work)
        await wait_all_tasks_blocked()
        assert not work.unread
        await it.bridge.shutdown()


async def test_a_run_that_takes_too_long_to_be_answered_is_returned() -> None:
    """The bridge is available, so another try would make no sense. The outcome says what happened."""
    async with site(max_run_time=5, within=100) as it:
        run = await it.bridge.start(ScriptedWork(answers=False))
        assert (await run.wait()).error == "time_limit"


async def test_a_run_that_is_cancelled_before_the_answer_is_returned() -> None:
    """By a page that shares it by its key, for instance."""
    work, runs = ScriptedWork(answers=False), []
    async with site(work, commit_after=0) as it:

        async def start() -> None:
            runs.append(await it.bridge.start(work, key="k"))

        page = it.open("POST", idempotency_key="k")
        await page.until(lambda: page.content)
        it.tasks.start_soon(start)
        await wait_all_tasks_blocked()
        await it.answer("DELETE", f"/{page.headers['sse-bridge-run']}")
        assert [(await run.wait()).error for run in runs] == ["cancelled"]


async def test_a_run_that_fails_before_the_answer_is_returned(caplog: pytest.LogCaptureFixture) -> None:
    """By a bug in a source, which the log shows."""
    async with site() as it:
        run = await it.bridge.start(ScriptedWork(refusal=ZeroDivisionError("a bug")))
        assert (await run.wait()).error == "bridge_failed"

    assert "ZeroDivisionError" in caplog.text


async def test_limits_and_stops_are_raised() -> None:
    """The work stays unstarted, and `runs_started` counts the one run that did start."""
    work = ScriptedWork()
    async with site(max_runs=1) as it:
        await it.bridge.start(ScriptedWork())
        for _ in range(3):
            with pytest.raises(BridgeUnavailable) as full:
                await it.bridge.start(work)
            assert (await it.answer()).status == 503
        counted = it.bridge.statistics()
        await it.bridge.shutdown()
        with pytest.raises(BridgeUnavailable) as stopped:
            await it.bridge.start(work)

    assert (full.value.code, stopped.value.code) == ("busy", "server_stopped")
    assert full.value.retry_after is not None
    assert (counted.runs_started, counted.requests_turned_away, len(counted.runs)) == (1, 6, 1)
    assert not work.started.is_set()


async def test_a_stop_ends_it_and_waits_for_its_work() -> None:
    """The caller that still waits for the upstream's answer is told, too."""
    work, unanswered, told = SlowToEnd(), ScriptedWork(answers=False), []
    async with site() as it:

        async def start() -> None:
            with pytest.raises(BridgeUnavailable) as raised:
                await it.bridge.start(unanswered)
            told.append(raised.value.code)

        run = await it.bridge.start(work)
        it.tasks.start_soon(start)
        await wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.bridge.shutdown)
            await wait_all_tasks_blocked()
            assert it.bridge.statistics().runs == ()
            assert tasks.cancel_scope.cancel_called is False
            work.let_end.set()
        assert (await run.wait()).error == "server_stopped"

    assert told == ["server_stopped"]
    assert (work.cancels, unanswered.cancels) == (1, 1)


@pytest.mark.parametrize("outcome", list(Cancelled))
async def test_cancel_says_how_far_it_got(outcome: Cancelled) -> None:
    """After a run's own end it returns `None`. It may be called again."""
    work = ScriptedWork(outcome=outcome)
    async with site() as it:
        run = await it.bridge.start(work)
        page = await follow(it, run.token)
        assert [await run.cancel(), await run.cancel()] == [outcome, outcome]
        assert (await run.wait()).cancelled is outcome
        over = await it.bridge.start(finished())
        await over.wait()
        assert await over.cancel() is None

    assert page.objects[-1]["code"] == "cancelled"
    assert work.cancels == 1


@pytest.mark.parametrize("rounds", [*range(20), 60])
@pytest.mark.parametrize("answers", [True, False])
async def test_a_caller_that_gives_up_leaves_no_run_behind(rounds: int, answers: bool) -> None:
    """The run waits ten seconds for its first viewer, and is ended then."""
    work = ScriptedWork(answers=answers)
    async with site(grace=0, keep=0, within=100) as it:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.bridge.start, work)
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await anyio.sleep(10.1)
        assert it.bridge.statistics().runs == ()
        assert work.cancels == work.started.is_set()


async def test_an_ended_run_can_be_read_from_its_beginning() -> None:
    """A script may be over before its first viewer comes."""
    async with site() as it:
        run = await it.bridge.start(finished("a"))
        await run.wait()
        page = await it.answer(path=f"/{run.token}")

    assert lines(page) == ["a", "exit"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "ls"}, r"source, such as SandboxExec\(...\), not a str"),
        ({"source": ScriptedWork}, r"source, such as SandboxExec"),
        ({"owner": 7}, "owner must be a string or None, not 7"),
        ({"key": b"k"}, "key must be a string or None, not a bytes object"),
        ({"grace": "10"}, "grace must be"),
        ({"grace": -1}, "grace must be zero or more, or None"),
        ({"grace": float("nan")}, "grace must be"),
    ],
)
async def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    """An owner that is a number would differ from every identity, and lock its own user out."""
    with pytest.raises(ConfigurationError, match=message):
        await SSEBridge(None, never).start(**{"source": ScriptedWork(), **options})


async def test_starts_with_an_empty_key_are_two_runs() -> None:
    """An empty header means the same."""
    async with site() as it:
        tokens = {(await it.bridge.start(finished(), key="")).token for _ in range(2)}

    assert len(tokens) == 2


async def test_who_waits_for_the_answer_keeps_a_run_that_its_starter_gave_up() -> None:
    """The fault: a sandbox that takes longer to start than `grace` never did, however often it was asked for."""
    work, runs = ScriptedWork(answers=False), []

    async def again(it: Site) -> None:
        runs.append(await it.bridge.start(ScriptedWork(), key="k"))

    async with site(within=100) as it:
        with anyio.move_on_after(1):
            await it.bridge.start(work, key="k")
        it.tasks.start_soon(again, it)
        await anyio.sleep(25)
        work.answer()
        await wait_all_tasks_blocked()
        states = [runs[0].info.state]
        for seconds in (9, 2):
            await anyio.sleep(seconds)
            states.append(runs[0].info.state)
        assert states == ["running", "running", "ended"]  # no viewer came within ten seconds
        await it.bridge.shutdown()

    assert work.cancels == 1
