"""Stopping a bridge: viewers are told, work is ended, nothing new is taken, and nobody is waited for without end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.requests import Request

from sse_bridge import Coalesce, SSEBridge, TokenBucket
from sse_bridge.asgi import hosting, stopping
from sse_bridge.asgi.stopping import Open
from sse_bridge.stores.memory import MemoryStore
from tests.support.asgi import Page
from tests.support.site import STOPPED, Scene, never, retry_of
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


@pytest.fixture
def short(monkeypatch: Any) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.05)
    monkeypatch.setattr(hosting, "NOTICE_CUT", 0.05)


@pytest.fixture
def handlers() -> Iterator[list[int]]:
    """A server that handles signals: the ones it got."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.getsignal(number) for number in numbers}
    heard: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, frame: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_a_stop_tells_the_viewers_and_ends_the_work(anyio_backend: str) -> None:
    """What is pending, what happened, when to come back, and a proper end; then no request is left."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work)
            page = scene.visit()
            work.feed(stdout("a"))
            await page.until(lambda: page.events)
            other = scene.visit(Page(path="/" + page.headers["sse-bridge-run"]))
            await other.until(lambda: other.events)
            await scene.bridge.shutdown()

            assert work.cancels == 1
            for viewer in (page, other):
                assert viewer.objects == [{"type": "stdout", "line": "a"}, STOPPED]
                assert viewer.ended
                assert 2000 <= retry_of(viewer) < 7000


async def test_a_signal_stops_the_bridge(anyio_backend: str, handlers: list[int]) -> None:
    """From the first request on, and the server hears of it, too."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            page = Scene(tasks, work).visit()
            await page.until(lambda: page.content)
            signal.raise_signal(signal.SIGTERM)

    assert page.objects == [STOPPED]
    assert page.ended
    assert work.cancels == 1
    assert handlers == [signal.SIGTERM]


async def test_a_second_ctrl_c_waits_for_nothing(
    anyio_backend: str, handlers: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Not for work that is being ended, not for a viewer that takes nothing, not for the application's functions."""
    work = ScriptedWork(outcome="hangs")
    waiting = anyio.Event()

    async def resolve(request: Request) -> ScriptedWork:
        if request.headers.get("hang"):
            waiting.set()
            await anyio.sleep_forever()
        return work

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, resolve, cancel_timeout=1000.0)
            page = scene.visit()
            await page.until(lambda: page.content)
            hanging = scene.visit(Page(headers={"hang": "1"}))
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


async def test_the_verbatim_dialect_gets_nothing_of_ours(anyio_backend: str) -> None:
    """Its response just ends."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work, dialect="verbatim")
            page = scene.visit()
            work.feed(stdout("a"))
            await page.until(lambda: page.events)
            before = page.content
            await scene.bridge.shutdown()

    assert page.content == before
    assert page.ended


async def test_viewers_are_spread_also_if_the_browser_decides_otherwise(anyio_backend: str) -> None:
    """`retry_ms=None` says nothing at the beginning; a stampede would still be one."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work, retry_ms=None)
            pages = [scene.visit() for _ in range(2)]
            for page in pages:
                await page.until(lambda: page.content)  # noqa: B023
                assert b"retry" not in page.content
            await scene.bridge.shutdown()

    assert all(2000 <= retry_of(page) < 7000 for page in pages)


@pytest.mark.parametrize("options", [{"rate": TokenBucket(0.01, burst=1)}, {"policy": Coalesce(max_rate=0.01)}])
async def test_a_pace_keeps_nobody_from_its_end(anyio_backend: str, options: dict[str, Any]) -> None:
    """What is pending goes out at once: there will be no time later."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work, **options)
            page = scene.visit()
            work.feed(stdout("a"))
            await page.until(lambda: page.events)
            work.feed(stdout("b"), stdout("c"))
            await wait_all_tasks_blocked()
            await scene.bridge.shutdown()

    text = "\n".join(str(said.get("line")) for said in page.objects[:-1])
    assert (text, page.objects[-1]["code"]) == ("a\nb\nc", "server_stopped")
    assert page.ended
    retry_of(page)


async def test_nothing_new_is_taken(anyio_backend: str) -> None:
    """A browser that comes back too early starts nothing here."""
    bridge = SSEBridge(None, never)
    await bridge.shutdown()
    await bridge.shutdown()

    for page in (Page(), Page("DELETE", "/" + "a" * 16), Page(headers={"last-event-id": "a" * 16 + ".1"})):
        await bridge(page.scope, page.receive, page.send)
        assert page.status == 503
        assert page.headers["retry-after"] == "2"
        assert page.error["message"] == "The server is stopping."


async def test_before_the_upstreams_answer_a_stop_is_an_error_of_http(anyio_backend: str) -> None:
    """503, and when to come back."""
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            work = ScriptedWork(answers=False)
            scene = Scene(tasks, work)
            page = scene.visit()
            await work.started.wait()
            await scene.bridge.shutdown()

    assert page.status == 503
    assert page.headers["retry-after"] == "2"
    assert page.error["code"] == "server_stopped"
    assert work.cancels == 1


async def test_a_run_that_was_not_started_is_not(anyio_backend: str, monkeypatch: Any) -> None:
    """If the stop comes between `resolve` and the upstream."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work)
            page = Page()
            real = MemoryStore.add

            def add(store: MemoryStore, run: Any, key: str | None) -> None:
                real(store, run, key)
                tasks.start_soon(scene.bridge.shutdown)

            monkeypatch.setattr(MemoryStore, "add", add)
            scene.visit(page)

    assert page.status == 503
    assert not work.started.is_set()


async def test_an_application_that_does_not_answer_is_left_after_a_second(anyio_backend: str, short: None) -> None:
    """Its function is cancelled, where it can be."""

    async def resolve(request: Request) -> Any:
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, resolve)
            page = scene.visit()
            await wait_all_tasks_blocked()
            await scene.bridge.shutdown()

    assert page.status == 503


async def test_an_application_that_answers_in_time_starts_nothing(anyio_backend: str) -> None:
    """The stop was first."""
    answer = anyio.Event()
    work = ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        await answer.wait()
        return work

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, resolve)
            page = scene.visit()
            await wait_all_tasks_blocked()
            tasks.start_soon(scene.bridge.shutdown)
            await wait_all_tasks_blocked()
            answer.set()

    assert page.status == 503
    assert not work.started.is_set()


async def test_a_viewer_that_comes_in_the_same_moment_is_told(anyio_backend: str, monkeypatch: Any) -> None:
    """Between a request and its viewer there are awaits."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work)
            page = scene.visit()
            await page.until(lambda: page.content)
            real = Open.add_viewer

            def stop_first(here: Open, *arguments: Any) -> None:
                here.stop()
                real(here, *arguments)

            monkeypatch.setattr(Open, "add_viewer", stop_first)
            other = scene.visit(Page(path="/" + page.headers["sse-bridge-run"]))
            await other.until(lambda: other.ended)

    assert other.objects == [STOPPED]
    retry_of(other)


async def test_a_run_without_viewers_ends_as_well(anyio_backend: str) -> None:
    """During its grace period."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work, grace=None)
            page = scene.visit()
            await page.until(lambda: page.content)
            page.leave()
            await wait_all_tasks_blocked()
            await scene.bridge.shutdown()

            assert work.cancels == 1


async def test_work_that_does_not_end_is_not_waited_for(anyio_backend: str, monkeypatch: Any) -> None:
    """Two seconds and `cancel_timeout` are the bound, also if a `Work` should not keep to its timeout."""
    monkeypatch.setattr(hosting, "STOP_OVERHEAD", 0.05)
    work = ScriptedWork(outcome="hangs")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work, cancel_timeout=0.05)
            page = scene.visit()
            await page.until(lambda: page.content)
            before = anyio.current_time()
            await scene.bridge.shutdown()

            assert anyio.current_time() - before < 1


async def test_a_run_that_is_over_is_shown_to_its_end(anyio_backend: str) -> None:
    """Its exit, not ours."""
    work = ScriptedWork()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work)
            page = scene.visit()
            await page.until(lambda: page.content)
            page.stall()
            work.feed(exit_frame(3))
            await wait_all_tasks_blocked()
            tasks.start_soon(scene.bridge.shutdown)
            await wait_all_tasks_blocked()
            page.resume()

    assert page.objects == [{"type": "exit", "code": 3}]
    assert page.ended
    assert work.cancels == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_bridge_that_was_stopped_works_in_the_next_event_loop(backend: str) -> None:
    """One loop after the other is how tests and reloaders use a module's bridge."""
    bridge = SSEBridge(None, lambda request: work())

    def work() -> ScriptedWork:
        scripted = ScriptedWork()
        scripted.feed(exit_frame())
        scripted.finish()
        return scripted

    async def visit() -> int | None:
        page = Page()
        await bridge(page.scope, page.receive, page.send)
        await bridge.shutdown()
        return page.status

    assert [anyio.run(visit, backend=backend) for _ in range(3)] == [200] * 3
