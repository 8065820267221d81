"""`on_start` and `on_end`: what the application is told about its runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import Outcome, RunInfo
from sse_bridge.errors import UpstreamLost, UpstreamRefused
from sse_bridge.upstream.base import Cancelled
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Book:
    """Async hooks that write down what they are told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.runs: list[RunInfo] = []
        self.outcomes: list[Outcome] = []

    async def start(self, run: RunInfo) -> None:
        self.said.append("start")
        self.runs.append(run)

    async def end(self, run: RunInfo, outcome: Outcome) -> None:
        self.said.append("end")
        self.runs.append(run)
        self.outcomes.append(outcome)


async def exits(it: Site, work: ScriptedWork) -> None:
    work.feed(exit_frame(3))
    work.finish()


async def breaks(it: Site, work: ScriptedWork) -> None:
    work.fail(UpstreamLost("It broke."))


async def ends_without_an_exit(it: Site, work: ScriptedWork) -> None:
    work.finish()


async def is_deleted(it: Site, work: ScriptedWork) -> None:
    await it.answer("DELETE", "/" + it.token)  # type: ignore[attr-defined]


async def is_left(it: Site, work: ScriptedWork) -> None:
    it.page.leave()  # type: ignore[attr-defined]


async def is_stopped(it: Site, work: ScriptedWork) -> None:
    await it.bridge.shutdown()


async def takes_too_long(it: Site, work: ScriptedWork) -> None:
    await anyio.sleep(50)


@pytest.mark.parametrize(
    ("happens", "code", "error", "cancelled"),
    [
        (exits, 3, None, None),
        (breaks, None, "upstream_lost", Cancelled.CONFIRMED),
        (ends_without_an_exit, None, "upstream_ended", Cancelled.CONFIRMED),
        (is_deleted, None, "cancelled", Cancelled.CONFIRMED),
        (is_left, None, "abandoned", Cancelled.CONFIRMED),
        (is_stopped, None, "server_stopped", Cancelled.CONFIRMED),
        (takes_too_long, None, "time_limit", Cancelled.CONFIRMED),
    ],
)
async def test_each_end_is_told_once_with_its_outcome(
    happens: Any, code: int | None, error: str | None, cancelled: Cancelled | None
) -> None:
    """Exit code or error, how long it took, how much it printed, and how the cancel went."""
    book, work = Book(), ScriptedWork()
    async with site(work, on_start=book.start, on_end=book.end, grace=0, max_run_time=50, within=100) as it:
        it.page, it.token = await it.started()  # type: ignore[attr-defined]
        work.feed(stdout("a", "b"))
        await it.page.until(lambda: len(it.page.events) == 2)  # type: ignore[attr-defined]
        await anyio.sleep(7)
        await happens(it, work)
        await wait_all_tasks_blocked()
        assert book.said == ["start", "end"]

    (outcome,) = book.outcomes
    assert (outcome.exit_code, outcome.error, outcome.cancelled) == (code, error, cancelled)
    assert (outcome.message is None) is (error is None)
    assert outcome.duration == pytest.approx(50 if happens is takes_too_long else 7, abs=0.2)
    assert (outcome.lines, outcome.bytes > 0) == (2, True)
    assert [run.state for run in book.runs] == ["running", "ended"]
    assert {run.token for run in book.runs} == {it.token}  # type: ignore[attr-defined]


async def test_a_refused_run_has_an_end_but_no_start() -> None:
    """`on_start` waits for the upstream's yes."""
    book, refused = Book(), ScriptedWork(refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with site(refused, on_start=book.start, on_end=book.end) as it:
        await it.answer()
        await wait_all_tasks_blocked()

    assert book.said == ["end"]
    assert (book.outcomes[0].error, book.outcomes[0].cancelled) == ("not_found", None)


async def test_a_request_that_starts_nothing_is_not_told() -> None:
    """Its client left while the request was resolved, or there was no room."""
    book = Book()
    async with site(on_start=book.start, on_end=book.end, max_runs=1) as it:
        page = it.open()
        page.leave()
        await wait_all_tasks_blocked()
        assert book.said == []
        run = await it.bridge.start(ScriptedWork())
        await it.answer()
        await run.cancel()
        await wait_all_tasks_blocked()

    assert book.said == ["start", "end"]


async def test_the_end_is_told_once_the_work_has_ended() -> None:
    """The outcome knows how that went."""
    book, work = Book(), SlowToEnd(outcome=Cancelled.ACKNOWLEDGED)
    async with site(on_end=book.end) as it:
        run = await it.bridge.start(work)
        it.tasks.start_soon(run.cancel)
        await wait_all_tasks_blocked()
        assert book.said == []
        work.let_end.set()
        await run.wait()
        await wait_all_tasks_blocked()

    assert [outcome.cancelled for outcome in book.outcomes] == [Cancelled.ACKNOWLEDGED]


@pytest.mark.parametrize("failing", ["start", "end"])
async def test_a_hook_that_raises_is_logged_and_changes_nothing(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run, its viewers and the other hook go on."""

    async def fails(*arguments: object) -> None:
        raise LookupError("no database")

    book = Book()
    hooks: dict[str, Any] = {"on_start": book.start, "on_end": book.end, f"on_{failing}": fails}
    with caplog.at_level(logging.ERROR):
        async with site(finished("a"), **hooks) as it:
            page = await it.answer()
            await wait_all_tasks_blocked()

    assert page.objects[-1] == {"type": "exit", "code": 0}
    assert book.said == ["end" if failing == "start" else "start"]
    assert "no database" in caplog.text


@pytest.mark.parametrize("hanging", ["start", "end"])
async def test_a_hook_that_hangs_holds_up_neither_the_run_nor_a_stop(hanging: str) -> None:
    """The response ends with the run. A stop gives the hook a second."""

    async def hangs(*arguments: object) -> None:
        await anyio.sleep_forever()

    hooks: dict[str, Any] = {f"on_{hanging}": hangs}
    async with site(finished("a"), **hooks) as it:
        before = anyio.current_time()
        page = await it.answer()
        assert anyio.current_time() == before
        assert page.objects[-1]["type"] == "exit"
        await it.bridge.shutdown()
        assert anyio.current_time() == pytest.approx(before + 1, abs=0.1)


async def test_a_slow_start_is_told_before_the_end() -> None:
    """An application writes a row at the start, and completes it at the end."""
    book = Book()

    async def slow(run: RunInfo) -> None:
        await anyio.sleep(5)
        await book.start(run)

    async with site(finished("a"), on_start=slow, on_end=book.end) as it:
        await it.answer()
        await anyio.sleep(6)

    assert book.said == ["start", "end"]


@pytest.mark.parametrize("seconds_to_end", [0.0, 3.0])
async def test_a_stop_waits_for_the_last_word(seconds_to_end: float) -> None:
    """Servers end the event loop behind it, and an `on_end` that writes to a database needs a moment."""
    told = []

    async def writes(run: RunInfo, outcome: Outcome) -> None:
        await anyio.sleep(0.5)
        told.append(outcome.error)

    class Slow(ScriptedWork):
        async def cancel(self, timeout: float) -> Cancelled:
            await anyio.sleep(seconds_to_end)
            return await super().cancel(timeout)

    async with site(on_end=writes) as it:
        await it.bridge.start(Slow())
        await it.bridge.shutdown()
        assert told == ["server_stopped"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("hanging", [False, True])
def test_sync_hooks_run_in_a_thread(backend: str, hanging: bool) -> None:
    """A stop leaves one that hangs to itself."""
    free, told = threading.Event(), []

    def hook(*arguments: object) -> None:
        told.append(threading.current_thread() is threading.main_thread())
        if hanging:
            free.wait(10)

    async def main() -> None:
        async with site(finished("a"), on_start=hook, on_end=hook) as it:
            await it.answer()
            with anyio.fail_after(4):
                await it.bridge.shutdown()

    try:
        anyio.run(main, backend=backend)
    finally:
        free.set()
    assert told == [False, False]


@pytest.mark.parametrize("hook", ["on_start", "on_end"])
async def test_a_hook_that_awaits_a_cancelled_task_changes_nothing(
    hook: str, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On asyncio it raises what cancels a task. The fault: the bridge took it for the end of its event loop."""
    if anyio_backend_name == "trio":
        return  # a cancellation belongs to its scope there

    async def fails(*arguments: object) -> None:
        task = asyncio.ensure_future(asyncio.sleep(100))
        task.cancel()
        await task

    options: dict[str, Any] = {hook: fails}
    async with site(finished("one"), ScriptedWork(), **options) as it:
        first = await it.answer()
        page, _ = await it.started()
        await wait_all_tasks_blocked()
        assert first.objects[-1]["type"] == "exit"
        assert not page.ended
        assert (await it.answer(path="/" + first.headers["sse-bridge-run"])).status == 200
        await it.bridge.shutdown()
    assert "the application's hook fails failed" in caplog.text
