"""`SSEBridge.watch`: what metrics and traces are told of runs, and when."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import Cancelled, ConfigurationError, Outcome, RunInfo, SSEBridge, Watcher
from sse_bridge.errors import UpstreamLost, UpstreamRefused
from tests.support.site import never, site
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

asked_by: ContextVar[str] = ContextVar("asked_by", default="(no request)")


def scripted(*chunks: bytes | str) -> ScriptedWork:
    """A work whose whole stream is there from the start."""
    work = ScriptedWork()
    work.feed(*chunks)
    work.finish()
    return work


class Book(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.outcomes: list[Outcome] = []
        self.askers: list[str] = []

    def began(self, run: RunInfo) -> None:
        self.said.append(f"began {run.state}")
        self.askers.append(asked_by.get())
        asked_by.set("the watcher")

    def started(self, run: RunInfo) -> None:
        self.said.append(f"started {run.state}")

    def discarded(self, run: RunInfo, size: int) -> None:
        self.said.append(f"discarded {size}")

    def ending(self, run: RunInfo) -> None:
        self.said.append("ending")

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        self.said.append(f"ended {run.state}")
        self.outcomes.append(outcome)
        self.askers.append(asked_by.get())


class Broken(Watcher):
    def began(self, run: RunInfo) -> None:
        raise RuntimeError("a watcher's own")

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        raise RuntimeError("a watcher's own")


async def test_a_run_that_exits(anyio_backend: str) -> None:
    """It begins before its upstream has answered."""
    book, work = Book(), scripted(stdout("a"), exit_frame(3))
    async with site(work) as it:
        it.bridge.watch(book)
        await it.answer()

    assert book.said == ["began starting", "started running", "ended ended"]
    assert [outcome.kind for outcome in book.outcomes] == ["exit_nonzero"]
    assert book.outcomes[0].cancel_duration is None


async def test_a_run_that_is_refused(anyio_backend: str) -> None:
    """Its end follows, without a start."""
    book = Book()
    refusal = UpstreamRefused("Not found.", code="not_found", status=404, started_nothing=True)
    async with site(ScriptedWork(refusal=refusal)) as it:
        it.bridge.watch(book)
        await it.answer()

    assert book.said == ["began starting", "ended ended"]
    assert [outcome.kind for outcome in book.outcomes] == ["not_found"]


async def test_a_run_whose_work_is_ended(anyio_backend: str) -> None:
    """The outcome says how long that took."""
    book, work = Book(), ScriptedWork(outcome="hangs")
    async with site(work, cancel_timeout=5.0) as it:
        it.bridge.watch(book)
        page, token = await it.started()
        await it.answer("DELETE", "/" + token)
        await page.until(lambda: page.ended)

    assert book.said == ["began starting", "started running", "ending", "ended ended"]
    assert book.outcomes[0].kind == "cancelled"
    assert book.outcomes[0].cancelled is Cancelled.REQUESTED
    assert book.outcomes[0].cancel_duration == pytest.approx(5.0)


async def test_a_stream_that_breaks_off(anyio_backend: str) -> None:
    book, work = Book(), ScriptedWork()
    async with site(work) as it:
        it.bridge.watch(book)
        page, _ = await it.started()
        work.fail(UpstreamLost("It broke."))
        await page.until(lambda: page.ended)

    assert [outcome.kind for outcome in book.outcomes] == ["upstream_lost"]


async def test_a_code_that_the_upstream_chose_is_no_kind(anyio_backend: str) -> None:
    """Metrics would get a time series for each."""
    book = Book()
    error = 'event: error\ndata: {"code":"vm_4711_exploded","message":"oh"}\n\n'
    async with site(scripted(error)) as it:
        it.bridge.watch(book)
        await it.answer()

    assert [(outcome.kind, outcome.error) for outcome in book.outcomes] == [("upstream_error", "vm_4711_exploded")]
    assert it.bridge.statistics().runs_ended["upstream_error"] == 1


async def test_a_frame_that_is_too_large(anyio_backend: str) -> None:
    book, work = Book(), ScriptedWork()
    async with site(work, max_frame_size=100) as it:
        it.bridge.watch(book)
        page, _ = await it.started()
        work.feed(stdout("x" * 500))
        await wait_all_tasks_blocked()
        work.feed(exit_frame(0))
        work.finish()
        await page.until(lambda: page.ended)

    assert len([line for line in book.said if line.startswith("discarded")]) == 1


async def test_context_variables_are_those_of_the_request(anyio_backend: str) -> None:
    """What the watcher sets at the beginning is there at the end, and stays out of the request."""
    book, work = Book(), finished("a")
    async with site(work) as it:
        it.bridge.watch(book)
        asked_by.set("a request")
        await it.answer()

    assert book.askers == ["a request", "the watcher"]
    assert asked_by.get() == "a request"


async def test_context_variables_are_those_of_the_caller_of_start(anyio_backend: str) -> None:
    book = Book()
    async with site() as it:
        it.bridge.watch(book)
        asked_by.set("a program")
        run = await it.bridge.start(finished("a"))
        await run.wait()
        await it.bridge.shutdown()

    assert book.askers == ["a program", "the watcher"]


async def test_a_run_goes_on_when_a_watcher_fails(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, and other watchers are told all the same."""
    book = Book()
    async with site(finished("a")) as it:
        it.bridge.watch(Broken())
        it.bridge.watch(book)
        page = await it.answer()

    assert b'"exit"' in page.content
    assert book.said == ["began starting", "started running", "ended ended"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["the watcher Broken failed; the run is unaffected"] * 2


async def test_refusals_are_counted_by_their_status(anyio_backend: str) -> None:
    """Also those that go out as frames, for an `EventSource`."""
    refusal = UpstreamRefused("Not found.", code="not_found", status=404, started_nothing=True)
    for style, headers in [("status", {}), ("frame", {"accept": "text/event-stream"})]:
        async with site(ScriptedWork(refusal=refusal), refusals=style, max_runs=1) as it:
            await it.answer(**headers)
            page, token = await it.started()
            await it.answer(**headers)  # above max_runs
            await it.answer("PUT")
            await it.answer(path="/" + "x" * len(token), **headers)
            await it.answer("DELETE", "/" + token)
            await page.until(lambda page=page: page.ended)  # type: ignore[misc]

        assert it.bridge.statistics().requests_refused == {404: 2, 503: 1, 405: 1}
        assert it.bridge.statistics().requests_turned_away == 1


@pytest.mark.parametrize("wrong", [Watcher, object(), lambda run: None], ids=["class", "object", "function"])
async def test_a_watcher_is_a_watcher(anyio_backend: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="watch must get an instance of a subclass of Watcher, not "):
        SSEBridge(None, never).watch(wrong)
