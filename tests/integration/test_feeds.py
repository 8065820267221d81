"""Feeds of a real sandbox through lost connections: its events go on behind their ids, its logs behind a gap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest

from sse_bridge import Miosa, MiosaStream, SSEBridge
from sse_bridge.upstream import reopening
from sse_bridge.upstream.retrying import Backoff
from tests.support.asgi import Page
from tests.support.cutting_proxy import cutting_proxy
from tests.support.sandboxes import KEY, LocalSandbox, local_sandbox

pytestmark = pytest.mark.anyio

COUNT = 1000


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    with local_sandbox() as running_sandbox:
        yield running_sandbox


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "REOPEN_BACKOFF", Backoff(0.01, 0.02))


async def test_every_event_comes_once_through_cut_connections(anyio_backend: str, sandbox: LocalSandbox) -> None:
    """The bridge sends the last id upstream, the sandbox goes on behind it, and viewers notice nothing."""
    page = Page()
    command = f"i=0; while [ $i -lt {COUNT} ]; do echo line $i; i=$((i+1)); done; exit 3"
    with cutting_proxy(urlsplit(sandbox.url).port or 0, cuts=30, most=20_000) as (url, proxy):
        bridge = SSEBridge(Miosa(url, KEY), lambda request: MiosaStream(f"/sandboxes/{sandbox.id}/events"), grace=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await page.until(lambda: page.status)
            # The events begin with the first that comes after the first stream is open.
            while not page.events:
                await anyio.to_thread.run_sync(sandbox.run, "true")
                await anyio.sleep(0.05)
            await anyio.to_thread.run_sync(sandbox.run, command)
            await page.until(lambda: any(is_end(event) for event in page.events), timeout=60)
            page.leave()
        await bridge.shutdown()
        assert proxy.cuts_left < 30

    lines = [json.loads(event.data or "")["line"] for event in page.events if event.type == "sandbox.exec.stdout"]
    assert lines == [f"line {number}" for number in range(COUNT)]
    assert b"gap" not in page.content


def is_end(event: Any) -> bool:
    return bool(event.type == "sandbox.exec.completed" and json.loads(event.data)["exit_code"] == 3)
