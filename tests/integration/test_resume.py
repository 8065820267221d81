"""Runs that survive lost connections: the page's text is the script's output, byte for byte, and it ran once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Error as PlaywrightError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import SandboxExec, SSEBridge
from tests.integration.test_browser import TUTORIAL
from tests.support.browser import chromium
from tests.support.cutting_proxy import cutting_proxy
from tests.support.event_source import EventSource
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.servers import Served, serve
from tests.support.waiting import eventually

LINES = 200_000


@pytest.fixture
def commands() -> list[str]:
    """The commands to run, in order. An unexpected second start would take one too many."""
    return []


@pytest.fixture
def site(sandbox: LocalSandbox, commands: list[str]) -> Iterator[Served]:
    def resolve(request: Request) -> SandboxExec:
        return SandboxExec(sandbox.id, commands.pop(0), cwd="/workspace")

    # On loopback the kernel's buffers of two hops held more than the default of 8 MiB, and a cut loses their content.
    bridge = SSEBridge(sandbox.miosa(), resolve, retry_ms=50, replay=64 * 1024 * 1024)
    app = Starlette(routes=[Route("/", lambda request: HTMLResponse(TUTORIAL)), Mount("/run-sse", bridge)])
    with serve(app) as served:
        yield served


@pytest.mark.slow
def test_a_thousand_cuts(site: Served, sandbox: LocalSandbox, commands: list[str]) -> None:
    """At random byte positions of a run of 200,000 lines: every line arrives exactly once."""
    expected = [f"{number:06d} {'x' * (number % 97)}" for number in range(LINES)]
    sandbox.write("/workspace/many.txt", "\n".join(expected) + "\n")
    commands.append("cat many.txt; exit 3")
    with cutting_proxy(site.port, cuts=1000, most=15_000) as (url, proxy):
        source = EventSource(url + "/run-sse/")
        seen = []
        for event in source.events():
            seen.append(event)
            if event.data == '{"type":"exit","code":3}':
                break

    assert proxy.cuts_left == 0
    assert source.connections == 1001
    assert [json.loads(event.data or "")["line"] for event in seen[:-1]] == expected
    assert [int((event.id or "").rpartition(".")[2]) for event in seen] == list(range(1, LINES + 2))
    assert commands == []


def test_a_browser_that_loses_its_connection_goes_on(site: Served, sandbox: LocalSandbox, commands: list[str]) -> None:
    """Chromium reconnects by itself, unnoticed by the tutorial's page."""
    expected = [f"line {number} {'x' * 50}" for number in range(4_000)]
    sandbox.write("/workspace/some.txt", "\n".join(expected) + "\n")
    commands.append("sleep 0.5; cat some.txt; sleep 0.5; exit 3")
    with cutting_proxy(site.port, cuts=8, most=40_000) as (url, proxy), chromium() as browser:
        page = browser.new_page()
        while True:  # the page itself comes through the proxy, and may be cut, too
            try:
                page.goto(url)
                break
            except PlaywrightError:
                continue
        page.wait_for_function("document.getElementById('output').textContent.includes('[exit')", timeout=60_000)
        text = page.evaluate("document.getElementById('output').textContent")

    assert proxy.cuts_left < 6
    assert text == "\n".join([*expected, "[exit 3]", ""])
    assert commands == []


def test_a_script_outlives_a_lost_connection_by_its_grace(sandbox: LocalSandbox) -> None:
    """The grace begins when the last viewer leaves; `DELETE` ends the script without it."""
    marks = [new_mark() for _ in range(2)]
    starts = iter(marks)
    bridge = SSEBridge(sandbox.miosa(), lambda request: SandboxExec(sandbox.id, f"sleep {next(starts)}"), grace=1.0)
    with serve(bridge) as served:
        with httpx.stream("GET", served.url) as response:
            run = response.headers["sse-bridge-run"]
            eventually(lambda: running(marks[0]))
        left = time.monotonic()
        with httpx.stream("GET", served.url, headers={"Last-Event-ID": f"{run}.0"}) as response:
            assert response.headers["sse-bridge-run"] == run
        eventually(lambda: not running(marks[0]))
        assert time.monotonic() - left >= 1.0

        with httpx.stream("GET", served.url) as response:
            run = response.headers["sse-bridge-run"]
            eventually(lambda: running(marks[1]))
            assert httpx.delete(f"{served.url}/{run}").status_code == 204
            assert b'"code":"cancelled"' in response.read()
        eventually(lambda: not running(marks[1]))
