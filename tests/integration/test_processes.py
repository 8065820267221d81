"""Processes of a real sandbox, through lost connections, and with MIOSA's SDK beside the bridge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import miosa
import pytest

from sse_bridge import Miosa, SandboxProcess, SSEBridge
from sse_bridge.upstream import reopening
from sse_bridge.upstream.retrying import Backoff
from tests.support.asgi import Page, lines
from tests.support.cutting_proxy import cutting_proxy
from tests.support.sandboxes import KEY, LocalSandbox, local_sandbox, new_mark, running

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    with local_sandbox() as running_sandbox:
        yield running_sandbox


async def read(bridge: SSEBridge) -> Page:
    page = Page()
    with anyio.fail_after(60):
        await bridge(page.scope, page.receive, page.send)
        await bridge.shutdown()
    return page


@pytest.mark.parametrize("seed", range(3))
async def test_every_line_comes_once_through_cut_connections(
    anyio_backend: str, sandbox: LocalSandbox, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox repeats what it has kept, and the bridge leaves it out. Gaps stand where connections were cut."""
    monkeypatch.setattr(reopening, "REOPEN_BACKOFF", Backoff(0.01, 0.02))
    command = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; exit 3"
    with cutting_proxy(urlsplit(sandbox.url).port or 0, cuts=25, most=60_000, seed=seed) as (url, proxy):
        while True:
            page = await read(SSEBridge(Miosa(url, KEY), lambda request: SandboxProcess(sandbox.id, command)))
            if page.status == 200:  # the cut may have hit the start, which is not repeated
                break
        assert proxy.cuts_left < 25

    said = [line for line in lines(page) if line != "gap"]
    assert said.count("last") == 1  # stderr has a pipe of its own, which may be read first
    assert [line for line in said if line != "last"] == [*(f"line {n}" for n in range(2000)), "exit"]
    assert page.objects[-1] == {"type": "exit", "code": 3}


async def test_a_process_that_the_sdk_has_started_is_followed_and_stopped(
    anyio_backend: str, sandbox: LocalSandbox
) -> None:
    """By its pid, from the output that is kept. The last viewer's leaving stops it, which the SDK sees, too."""
    mark = new_mark()

    def start() -> Any:
        with miosa.Miosa(api_key=KEY, base_url=sandbox.url) as client:
            return client.sandboxes.get(sandbox.id).processes.start(f"echo up; sleep {mark}")

    process = await anyio.to_thread.run_sync(start)
    source = SandboxProcess(sandbox.id, pid=process["pid"])
    bridge, page = SSEBridge(sandbox.miosa(), lambda request: source, grace=0), Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.objects)
        assert running(mark)
        page.leave()
    await bridge.shutdown()

    assert lines(page)[0] == "up"
    assert not running(mark)
    assert bridge.statistics().cancels.confirmed == 1
    assert next(each for each in sandbox.processes() if each["pid"] == process["pid"])["status"] == "exited"


async def test_a_process_that_is_to_run_on_outlives_its_viewers(anyio_backend: str, sandbox: LocalSandbox) -> None:
    """Another viewer finds it later by its pid, with what it printed before."""
    mark = new_mark()
    source = SandboxProcess(sandbox.id, f"echo up; sleep {mark}", stop=False, name="server")
    bridge, page = SSEBridge(sandbox.miosa(), lambda request: source, grace=0), Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.objects)
        page.leave()
    await bridge.shutdown()
    assert running(mark)
    assert bridge.statistics().cancels.confirmed == 0

    pid = next(each for each in sandbox.processes() if each["name"] == "server" and each["status"] == "running")["pid"]
    later = SSEBridge(sandbox.miosa(), lambda request: SandboxProcess(sandbox.id, pid=pid), grace=0)
    again = Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later, again.scope, again.receive, again.send)
        await again.until(lambda: again.objects)
        again.leave()
    await later.shutdown()

    assert lines(again)[0] == "up"
    assert not running(mark)
