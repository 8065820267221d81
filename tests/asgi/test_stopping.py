"""Stopping a bridge: viewers are told, work is ended, new requests are refused, and every wait is bounded."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from starlette.requests import Request

from sse_bridge import Coalesce, Outcome, RunInfo, SSEBridge, TokenBucket
from sse_bridge.asgi import hypercorn
from sse_bridge.asgi.signals import Patience, Reaction
from tests.support.asgi import Page
from tests.support.site import STOPPED, retry_of, site, visit
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@pytest.fixture
def handlers() -> Iterator[list[int]]:
    """The signals that the server's own handlers got."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.getsignal(number) for number in numbers}
    heard: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, frame: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def impatient_handlers(handlers: list[int]) -> list[int]:
    """The signals that the handler of a server got which cancels open requests at once."""

    def sig_term(number: int, frame: object) -> None:
        handlers.append(number)

    sig_term.__module__ = "twisted.internet.base"
    signal.signal(signal.SIGTERM, sig_term)
    return handlers


async def until_heard(handlers: list[int]) -> None:
    """Returns once the server has heard a signal."""
    while not handlers:  # noqa: ASYNC110 (the time is virtual)
        await anyio.sleep(0.01)


@asynccontextmanager
async def taking(seconds: float) -> AsyncGenerator[None]:
    """The block must take this long. On asyncio, `wait_all_tasks_blocked` sleeps for tenths of a second."""
    before = anyio.current_time()
    yield
    assert anyio.current_time() - before == pytest.approx(seconds, abs=0.5)


# -- what viewers get


async def test_a_stop_tells_the_viewers_and_ends_the_work() -> None:
    """Each viewer gets what is pending, the reason, when to come back, and a complete response."""
    work = ScriptedWork()
    async with site(work) as it:
        work.feed(stdout("a"))
        page, run = await it.started()
        other = it.open(path=f"/{run}")
        await other.until(lambda: other.events)
        async with taking(0):
            await it.bridge.shutdown()

        assert work.cancels == 1
        for viewer in (page, other):
            assert viewer.objects == [{"type": "stdout", "line": "a"}, STOPPED]
            assert viewer.ended
            assert 2000 <= retry_of(viewer) < 7000


@pytest.mark.parametrize("retry_ms", [None, 500])
async def test_viewers_come_back_at_different_times(retry_ms: int | None) -> None:
    """All are told at the same moment. They come back within five seconds of each other, whatever `retry_ms` is."""
    async with site(ScriptedWork(), retry_ms=retry_ms) as it:
        page, run = await it.started()
        pages = [page, *(it.open(path=f"/{run}") for _ in range(30))]
        await pages[-1].until(lambda: pages[-1].content)
        await it.bridge.shutdown()

    times = [retry_of(page) - (retry_ms or 2000) for page in pages]
    assert min(times) >= 0
    assert max(times) < 5000
    assert max(times) - min(times) > 2000  # by chance it is less once in 10^10 runs


async def test_the_verbatim_dialect_just_ends() -> None:
    """Its viewers get only the upstream's own frames."""
    work = ScriptedWork()
    async with site(work, dialect="verbatim") as it:
        work.feed(stdout("a"))
        page = it.open()
        await page.until(lambda: page.events)
        before = page.content
        await it.bridge.shutdown()

    assert page.content == before
    assert page.ended


@pytest.mark.parametrize("options", [{"rate": TokenBucket(0.01, burst=1)}, {"policy": Coalesce(max_rate=0.01)}])
async def test_pending_frames_go_out_at_any_pace(options: dict[str, Any]) -> None:
    """The process ends soon, so the pace is given up."""
    work = ScriptedWork()
    async with site(work, **options) as it:
        work.feed(stdout("a"))
        page = it.open()
        await page.until(lambda: page.events)
        work.feed(stdout("b"), stdout("c"))
        await wait_all_tasks_blocked()
        async with taking(0):
            await it.bridge.shutdown()

    text = "\n".join(str(said.get("line")) for said in page.objects[:-1])
    assert (text, page.objects[-1]["code"]) == ("a\nb\nc", "server_stopped")
    assert page.ended
    retry_of(page)


async def test_a_run_that_is_over_is_shown_to_its_end() -> None:
    """A viewer that still takes the exit of its run gets that exit in place of `server_stopped`."""
    work = ScriptedWork()
    async with site(work) as it:
        page, _ = await it.started()
        page.stall()
        work.feed(exit_frame(3))
        await wait_all_tasks_blocked()
        it.tasks.start_soon(it.bridge.shutdown)
        await wait_all_tasks_blocked()
        page.resume()

    assert page.objects == [{"type": "exit", "code": 3}]
    assert page.ended
    assert work.cancels == 0


async def test_a_run_without_viewers_ends_as_well() -> None:
    """Its grace period is cut short."""
    work = ScriptedWork()
    async with site(work, grace=None) as it:
        page, _ = await it.started()
        page.leave()
        await wait_all_tasks_blocked()
        assert work.cancels == 0
        await it.bridge.shutdown()

        assert work.cancels == 1


# -- signals


async def test_a_signal_stops_the_bridge(handlers: list[int]) -> None:
    """From the first request on, the bridge hears SIGTERM, and so does the server."""
    work = ScriptedWork()
    async with site(work) as it:
        page, _ = await it.started()
        signal.raise_signal(signal.SIGTERM)

    assert page.objects == [STOPPED]
    assert page.ended
    assert work.cancels == 1
    assert handlers == [signal.SIGTERM]


async def test_a_signal_waits_for_a_run_that_no_request_waits_for(handlers: list[int]) -> None:
    """Without an open request the server would end its process, and leave the command behind."""
    work = SlowToEnd()
    async with site(work) as it:
        answer = await it.answer("POST", prefer="respond-async")
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(1)
        assert handlers == []
        work.let_end.set()
        await anyio.sleep(0.1)

    assert answer.status == 201
    assert work.cancels == 1
    assert handlers == [signal.SIGTERM]


async def test_a_signal_waits_for_such_a_run_for_a_bounded_time(handlers: list[int]) -> None:
    """`cancel_timeout` bounds the ending of its work, even of one that overruns it."""
    work = ScriptedWork(outcome="hangs")
    async with site(work, cancel_timeout=3.0) as it:
        await it.answer("POST", prefer="respond-async")
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(2.9)
        assert handlers == []
        await anyio.sleep(0.2)

    assert handlers == [signal.SIGTERM]


@pytest.mark.parametrize("how", ["followed", "left by its viewer", "started apart", "over"])
@pytest.mark.parametrize("hook_takes", [0.0, 0.5])
async def test_the_application_hears_of_a_runs_end_before_its_server_may_go(
    how: str, hook_takes: float, handlers: list[int]
) -> None:
    """A mounted bridge hears of a stop by a signal, and its server ends the event loop once it has the signal, too, and
    all requests are over. What the application is told at the end of a run must have been told by then."""
    told: list[str | None] = []

    async def writes(run: RunInfo, outcome: Outcome) -> None:
        await anyio.sleep(hook_takes)
        told.append(outcome.error)

    work, requests_over = ScriptedWork(), anyio.Event()
    async with site(work, on_end=writes, grace=None) as it:
        page = Page("POST", headers={"prefer": "respond-async"} if how == "started apart" else {})

        async def request() -> None:
            await it.bridge(page.scope, page.receive, page.send)
            requests_over.set()

        it.tasks.start_soon(request)
        await page.until(lambda: page.content)
        if how == "left by its viewer":
            page.leave()
        if how == "over":
            work.feed(exit_frame())
            await wait_all_tasks_blocked()
        told_so_far = list(told)
        signal.raise_signal(signal.SIGTERM)
        await until_heard(handlers)
        await requests_over.wait()

        assert told == (told_so_far or [None if how == "over" else "server_stopped"])


async def test_a_hook_that_hangs_delays_a_signal_for_a_second(handlers: list[int]) -> None:
    """As it delays a shutdown."""

    async def hangs(run: RunInfo, outcome: Outcome) -> None:
        await anyio.sleep_forever()

    async with site(on_end=hangs) as it:
        await it.bridge.start(ScriptedWork())
        async with taking(1):
            signal.raise_signal(signal.SIGTERM)
            await until_heard(handlers)


async def test_a_server_that_cancels_its_requests_hears_of_a_signal_when_all_are_over(
    impatient_handlers: list[int],
) -> None:
    """daphne's reactor does on a signal, and ends with work still going on. It waits for the last bytes, too."""
    work = SlowToEnd()
    async with site(work) as it:
        page, _ = await it.started()
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(3)
        assert impatient_handlers == []
        work.let_end.set()
        await page.until(lambda: page.ended)
        assert impatient_handlers == []
        await anyio.sleep(1)
        assert impatient_handlers == [signal.SIGTERM]

    assert page.objects == [STOPPED]


@pytest.mark.parametrize(
    ("patience", "waits_for_work", "seconds_behind_it"),
    [(Patience.REQUESTS, False, 0.0), (Patience.CONNECTIONS, True, 0.0), (Patience.NOTHING, True, 0.5)],
)
async def test_how_long_a_signal_waits_is_a_matter_of_what_its_server_waits_for(
    patience: Patience,
    waits_for_work: bool,
    seconds_behind_it: float,
    handlers: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A viewer's request is open, and its client may leave without the bridge's knowledge."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reaction = Reaction(lambda number, frame: handlers.append(number), patience)
    monkeypatch.setattr(hypercorn, "at_default", lambda: {signal.SIGTERM: reaction})
    work = SlowToEnd()
    async with site(work) as it:
        page, _ = await it.started()
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(3)
        assert bool(handlers) is not waits_for_work
        work.let_end.set()
        await page.until(lambda: page.ended)
        over = anyio.current_time()
        await until_heard(handlers)
        assert anyio.current_time() - over == pytest.approx(seconds_behind_it, abs=0.1)


async def test_a_second_ctrl_c_ends_every_wait(handlers: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """The bridge stops waiting for work that is being ended, for a stalled viewer, and for the application."""
    work = ScriptedWork(outcome="hangs")
    waiting = anyio.Event()

    async def resolve(request: Request) -> ScriptedWork:
        if "hang" in request.headers:
            waiting.set()
            await anyio.sleep_forever()
        return work

    async with taking(0), site(resolve=resolve, cancel_timeout=1000.0) as it:
        page, _ = await it.started()
        hanging = it.open(hang="yes")
        await waiting.wait()
        page.stall()
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            await wait_all_tasks_blocked()

    assert work.cancels == 1
    assert hanging.status == 503
    assert not page.ended
    assert "not seen to end" in caplog.text
    assert handlers == [signal.SIGINT] * 2


async def test_a_lifespan_shutdown_stops_the_bridge() -> None:
    """It is answered once the work has ended."""
    work = ScriptedWork()
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    cancels_when_sent: dict[str, int] = {}

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        cancels_when_sent[message["type"]] = work.cancels

    async with site(work) as it:
        page, _ = await it.started()
        await it.bridge({"type": "lifespan"}, receive, send)

    assert cancels_when_sent == {"lifespan.startup.complete": 0, "lifespan.shutdown.complete": 1}
    assert page.objects == [STOPPED]


# -- bounds


async def test_a_viewer_gets_a_second_to_take_its_end() -> None:
    """One that stalls for that time is given up."""
    async with site(ScriptedWork()) as it:
        page, _ = await it.started()
        page.stall()
        async with taking(1):
            await it.bridge.shutdown()

    assert not page.ended


async def test_a_second_stop_does_not_extend_that_time() -> None:
    """Supervisors repeat SIGTERM, and the application may call `shutdown` as well."""
    async with site(ScriptedWork()) as it:
        page, _ = await it.started()
        page.stall()
        async with taking(1):
            it.tasks.start_soon(it.bridge.shutdown)
            await anyio.sleep(0.9)
            await it.bridge.shutdown()


async def test_the_application_gets_a_second_to_answer() -> None:
    """Then its function is cancelled, and the request is refused."""
    async with site(resolve=unanswered) as it:
        page = it.open()
        await wait_all_tasks_blocked()
        async with taking(1):
            await it.bridge.shutdown()

    assert page.status == 503


async def test_a_function_that_cannot_be_cancelled_holds_the_server_for_a_bounded_time() -> None:
    """`shutdown` returns after two seconds and `cancel_timeout`. Threads, for example, cannot be cancelled."""
    answer = anyio.Event()

    async def resolve(request: Request) -> ScriptedWork:
        with anyio.CancelScope(shield=True):
            await answer.wait()
        return ScriptedWork()

    async with site(resolve=resolve, cancel_timeout=3) as it:
        page = it.open()
        await wait_all_tasks_blocked()
        try:
            async with taking(5):
                await it.bridge.shutdown()
            assert page.status is None
        finally:
            answer.set()

    assert page.status == 503


async def test_the_response_stays_open_until_the_work_has_ended() -> None:
    """granian ends its process with the last response, and would leave the script behind."""
    work = SlowToEnd()
    async with site(work) as it:
        page, _ = await it.started()
        it.tasks.start_soon(it.bridge.shutdown)
        await anyio.sleep(3)
        assert page.objects == [STOPPED]
        retry_of(page)
        assert not page.ended
        work.let_end.set()
        await page.until(lambda: page.ended)


# -- afterwards


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_bridge_that_was_stopped_works_in_the_next_event_loop(backend: str) -> None:
    """Tests and reloaders use a module's bridge in one event loop after another."""

    async def resolve(request: Request) -> ScriptedWork:
        work = ScriptedWork()
        work.feed(exit_frame())
        work.finish()
        return work

    bridge = SSEBridge(None, resolve)

    async def visit_and_stop() -> int | None:
        page = await visit(bridge)
        await bridge.shutdown()
        return page.status

    assert [anyio.run(visit_and_stop, backend=backend) for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("hook_takes", [0.0, 0.1])
def test_a_run_ends_with_its_event_loop_as_at_a_stop(backend: str, hook_takes: float) -> None:
    """A server may end the loop without a word: the work is ended, and the application told that the server stopped."""
    told: list[str | None] = []

    async def writes(run: RunInfo, outcome: Outcome) -> None:
        await anyio.sleep(hook_takes)
        told.append(outcome.error)

    work = ScriptedWork()

    async def main() -> None:
        await SSEBridge(None, unanswered, on_end=writes).start(work)

    anyio.run(main, backend=backend)

    assert work.cancels == 1
    assert told == ["server_stopped"]


async def unanswered(request: Request) -> ScriptedWork:
    """A `resolve` that hangs."""
    await anyio.sleep_forever()
    raise AssertionError
