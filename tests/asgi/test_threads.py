"""Sync functions of the application's run in threads, and none waits for the threads of another purpose.

The kind of fault: all of them shared anyio's forty threads, also with the application's own endpoints. Forty functions
that hung, each for one request, held up every other request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sse_bridge import Block, RunInfo, SSEBridge
from tests.support.asgi import Page
from tests.support.site import Site
from tests.support.work import ScriptedWork, finished

pytestmark = pytest.mark.anyio

#: More than there are threads for any purpose.
MANY = 50


class Hanging:
    """Sync functions that hang where a request, or a run, asks for it, until the test is over."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.calls = 0
        self._lock = threading.Lock()

    def function(self, answer: object) -> Any:
        def function(request: Any, *more: object) -> Any:
            if isinstance(request, RunInfo) or "hang" in request.headers:
                self.hang()
            return answer

        return function

    def hang(self, *arguments: object) -> None:
        with self._lock:
            self.calls += 1
        assert self.free.wait(20)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.free.set()


ANSWERS: dict[str, object] = {"policy": Block(), "authorize": True}


class Sync(Site):
    """A site whose functions are all sync."""

    def __init__(self, hanging: Hanging, **options: Any) -> None:
        names = ("policy", "rate", "identify", "authorize")
        super().__init__(**{**{name: hanging.function(ANSWERS.get(name)) for name in names}, **options})


async def hang(it: Site, hanging: Hanging, pages: list[Page]) -> None:
    """Sends requests that hang, as many as fill the threads."""
    for page in pages:
        page.scope["headers"].append((b"hang", b"1"))
        it.visit(page)
    with anyio.fail_after(10):
        while hanging.calls < 40:  # noqa: ASYNC110 (threads)
            await anyio.sleep(0.01)


async def answers(it: Site, token: str) -> None:
    """Following, resuming, the state and ending get their answers."""
    with anyio.fail_after(5):
        page = it.open("GET", "/" + token)
        await page.until(lambda: page.content)
        page = it.open("GET", "/", seen=f"{token}.0")
        await page.until(lambda: page.content)
        assert (await it.answer("GET", "/" + token, accept="application/json")).status == 200
        assert (await it.answer("DELETE", "/" + token)).status == 204


@pytest.mark.parametrize("name", ["resolve", "policy", "rate", "identify", "key"])
async def test_coming_back_never_waits_for_starting(anyio_backend: str, name: str, hanging: Hanging) -> None:
    """Whichever function hangs for those that start."""
    answer = {"resolve": ScriptedWork(), "policy": Block()}.get(name)
    async with anyio.create_task_group() as tasks:
        it = Sync(hanging, **{name: hanging.function(answer)})
        it.tasks = tasks
        run = await it.bridge.start(ScriptedWork())
        await hang(it, hanging, [Page(headers={"Idempotency-Key": "k"}) for _ in range(MANY)])
        await answers(it, run.token)
        with anyio.fail_after(5):  # threads of the application's own
            assert await anyio.to_thread.run_sync(lambda: 7) == 7
        assert hanging.calls == 40
        hanging.free.set()
        await it.bridge.shutdown()


async def test_starting_never_waits_for_coming_back(anyio_backend: str, hanging: Hanging) -> None:
    """A page that follows a run must not keep others from starting theirs."""
    async with anyio.create_task_group() as tasks:
        it = Sync(hanging, resolve=hanging.function(finished()))
        it.tasks = tasks
        run = await it.bridge.start(ScriptedWork())
        await hang(it, hanging, [Page("GET", "/" + run.token) for _ in range(MANY)])
        with anyio.fail_after(5):
            assert (await it.answer()).status == 200
        hanging.free.set()
        await it.bridge.shutdown()


@pytest.mark.parametrize("hook", ["on_start", "on_end"])
async def test_requests_never_wait_for_hooks(anyio_backend: str, hook: str, hanging: Hanging) -> None:
    """A database that hangs in one hook delays neither requests nor the other hook."""
    told = []
    hooks = {"on_start": lambda *run: told.append(run), "on_end": lambda *run: told.append(run), hook: hanging.hang}
    async with anyio.create_task_group() as tasks:
        it = Sync(hanging, resolve=hanging.function(finished()), **hooks)
        it.tasks = tasks
        for _ in range(MANY):
            await it.bridge.start(finished())
        await hang(it, hanging, [])
        run = await it.bridge.start(ScriptedWork())
        await answers(it, run.token)
        with anyio.fail_after(5):
            assert (await it.answer()).status == 200
            while hook == "on_end" and len(told) < MANY:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        hanging.free.set()
        await it.bridge.shutdown()


async def test_hooks_never_wait_for_requests(anyio_backend: str, hanging: Hanging) -> None:
    """The application is told although its functions hang."""
    told = threading.Event()
    async with anyio.create_task_group() as tasks:
        it = Sync(hanging, resolve=hanging.function(ScriptedWork()), on_end=lambda *run: told.set())
        it.tasks = tasks
        await hang(it, hanging, [Page() for _ in range(MANY)])
        await it.bridge.start(finished())
        assert await anyio.to_thread.run_sync(told.wait, 5)
        hanging.free.set()
        await it.bridge.shutdown()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_event_loop_has_its_own_threads(backend: str) -> None:
    """A bridge may see one loop after another, as in tests and reloads."""
    bridge = SSEBridge(None, lambda request: finished())

    async def main() -> None:
        page = Page()
        with anyio.fail_after(5):
            await bridge(page.scope, page.receive, page.send)
        assert page.status == 200

    for _ in range(2):
        anyio.run(main, backend=backend)
