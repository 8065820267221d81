"""The page of MIOSA's tutorial in a real browser: a plain `EventSource`, `onmessage`, JSON, `type`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import SandboxExec, SSEBridge
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.servers import Served, serve
from tests.support.waiting import eventually

TUTORIAL = """
<!doctype html><title>run</title><pre id="output"></pre>
<script>
  const output = document.getElementById("output");
  const source = new EventSource("/run-sse" + location.search);
  window.seen = [];
  source.onmessage = (event) => {
    window.seen.push(event.lastEventId);
    const message = JSON.parse(event.data);
    if (message.type === "stdout" || message.type === "stderr") {
      output.textContent += message.line + "\\n";
    } else if (message.type === "exit") {
      output.textContent += `[exit ${message.code}]\\n`;
      source.close();
    }
  };
  source.onerror = () => { window.errors = (window.errors || 0) + 1; window.state = source.readyState; };
</script>
"""


@pytest.fixture
def starts() -> list[str]:
    """The commands that were requested, in order."""
    return []


@pytest.fixture
def site(sandbox: LocalSandbox, starts: list[str]) -> Iterator[Served]:
    """The tutorial's page, and a bridge that runs the command in the query, which only a test may do."""

    def resolve(request: Request) -> Any:
        starts.append(request.query_params["command"])
        return SandboxExec(sandbox.id, request.query_params["command"], cwd="/workspace")

    bridge = SSEBridge(sandbox.miosa(), resolve, grace=0, retry_ms=100, heartbeat=None)
    app = Starlette(routes=[Route("/", lambda request: HTMLResponse(TUTORIAL)), Mount("/run-sse", bridge)])
    with serve(app) as served:
        yield served


def url(site: Served, command: str) -> str:
    return f"{site.url}/?command={quote(command)}"


def test_every_line_and_the_exit_once(page: Page, site: Served, sandbox: LocalSandbox, starts: list[str]) -> None:
    """The page's text is the script's output, odd characters included, and the page stays closed at the end.

    The page shows only the types that it knows, so `start` changes nothing for it.
    """
    odd = 'tab\there "quotes" back\\slash café 😀 \u2028 \u2029 \x85 \x0c {braces} data: x id: y </script>'
    lines = [f"line {number}" for number in range(2000)] + [odd, "", "  indented  "]
    sandbox.write("/workspace/odd.txt", "\n".join(lines) + "\n")
    page.goto(url(site, "cat odd.txt; exit 7"))
    page.wait_for_function("document.getElementById('output').textContent.includes('[exit')")
    page.wait_for_timeout(500)  # five times the reconnection time

    assert page.evaluate("document.getElementById('output').textContent") == "\n".join([*lines, "[exit 7]", ""])
    assert len(starts) == 1
    seen = page.evaluate("window.seen")
    assert [int(event_id.rpartition(".")[2]) for event_id in seen] == list(range(len(lines) + 2))


def test_closing_the_tab_kills_its_silent_script(page: Page, site: Served) -> None:
    """At once, with `grace=0`. Output and heartbeats are off, so only the browser's leaving can be the cause."""
    mark = new_mark()
    page.goto(url(site, f"sleep {mark}"))
    eventually(lambda: running(mark))
    page.close()
    eventually(lambda: not running(mark))


def test_a_browser_that_lost_a_silent_stream_does_not_start_the_command_again(
    page: Page, site: Served, starts: list[str]
) -> None:
    """It reconnects with the id of the `start` frame. With `grace=0` the run is over by then: 204."""
    mark = new_mark()
    page.goto(url(site, f"sleep {mark}"))
    eventually(lambda: running(mark))
    page.wait_for_function("source.readyState === EventSource.OPEN")
    page.wait_for_timeout(300)  # the first frame follows the head, and a page cannot see when the browser has read it
    for connection in list(site.server.server_state.connections):
        connection.loop.call_soon_threadsafe(connection.transport.abort)  # in its own thread
    page.wait_for_function("window.state === 2")  # closed for good: 204

    assert len(starts) == 1
    eventually(lambda: not running(mark))
