"""Clients from npm that pages use instead of the browser's `EventSource`, through connections that are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Request
from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.routing import Mount

from sse_bridge import RunInfo, SandboxExec, SSEBridge
from tests.support.browser import show
from tests.support.cutting_proxy import cutting_proxy
from tests.support.documentation import DOCS, only_block
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import Served, serve

pytestmark = pytest.mark.slow

LINES: Final = 4_000
CUTS: Final = 4
#: A run is joined by its key only while it goes on. A client that has handled nothing yet comes back after a second, so
#: the script outlasts all cuts.
SCRIPT: Final = f"cat half.txt; sleep {CUTS + 1}; cat half.txt; exit 3"

#: Shows one message. Clients catch what it raises, so a message without data is counted before `JSON.parse` fails.
#: A client that loses the connection before it has read `start` knows no run to come back to; with the key it gets the
#: same run again.
RECEIVE = """
  const address = "/run-sse/?key=" + Array.from(crypto.getRandomValues(new Uint32Array(4))).join("-");
  const output = document.querySelector("pre");
  window.shown = [];
  window.withoutData = 0;
  const parse = JSON.parse;
  JSON.parse = (data) => {
    if (data === "") window.withoutData += 1;
    return parse(data);
  };
  function show(message) {
    if (message.line !== undefined) window.shown.push(message.line);
    if (message.type === "exit" || message.type === "error") output.textContent = JSON.stringify(message);
  }
"""

#: With the polyfill's defaults.
POLYFILL = f"""
<!doctype html><link rel="icon" href="data:,"><pre></pre>
<script src="/node_modules/event-source-polyfill/src/eventsource.js"></script>
<script>
  {RECEIVE}
  const source = new EventSourcePolyfill(address);
  source.onmessage = (event) => {{
    const message = JSON.parse(event.data);
    show(message);
    if (message.type === "exit") source.close();
  }};
</script>
"""

#: The script of `docs/http.md`, at a place that a test chooses. It asks by `POST` with an idempotency key: cuts may
#: discard all that a short run has said, and the key of a `GET` starts a run anew that has ended.
SCRIPT_OF_DOCS = (
    only_block(DOCS / "http.md", "js")
    .replace("let handled = null;", 'let handled = new URLSearchParams(location.hash.slice(1)).get("handled");')
    .replace('"/run-sse/", {', 'address, { method: "POST", headers: { "Idempotency-Key": key },')
)
FETCH_EVENT_SOURCE = f"""
<!doctype html><link rel="icon" href="data:,"><pre></pre>
<script type="module">
  import {{ fetchEventSource }} from "/node_modules/@microsoft/fetch-event-source/lib/esm/index.js";
  {RECEIVE}
  const key = new URL(address, location).searchParams.get("key");
  try {{
    {SCRIPT_OF_DOCS}
  }} catch (error) {{
    window.stopped = error.message;
  }}
  window.isOver = true;
</script>
"""


@pytest.fixture
def starts() -> list[str]:
    """The runs that were started."""
    return []


@pytest.fixture
def expected(sandbox: LocalSandbox) -> list[str]:
    """The script's output: half of it, a silence with heartbeats, the other half."""
    lines = [f"line {number} {'x' * 50}" for number in range(LINES)]
    sandbox.write("/workspace/half.txt", "\n".join(lines) + "\n")
    return [*lines, *lines]


@pytest.fixture
def served(sandbox: LocalSandbox, starts: list[str]) -> Iterator[Served]:
    def resolve(request: HTTPRequest) -> SandboxExec:
        return SandboxExec(sandbox.id, SCRIPT, cwd="/workspace")

    def on_start(run: RunInfo) -> None:
        starts.append(run.token)

    async def key(request: HTTPRequest) -> str | None:
        return request.query_params.get("key")

    bridge = SSEBridge(
        sandbox.miosa(), resolve, key=key, on_start=on_start, retry_ms=50, heartbeat=0.05, refusals="frame"
    )
    with serve(Starlette(routes=[Mount("/run-sse", bridge)])) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("html", [POLYFILL, FETCH_EVENT_SOURCE], ids=["event-source-polyfill", "fetch-event-source"])
def test_every_line_arrives_once_through_cut_connections(
    page: Page, served: Served, starts: list[str], expected: list[str], html: str
) -> None:
    """The client comes back to the one run. Every message that it dispatches has data."""
    with cutting_proxy(served.port, cuts=CUTS, most=150_000) as (url, proxy):
        show(page, url, html)
        page.wait_for_function("document.querySelector('pre').textContent")
        shown = page.evaluate("window.shown")
        without_data = page.evaluate("window.withoutData")

    assert proxy.cuts_left == 0
    assert shown == expected
    assert without_data == 0
    assert page.inner_text("pre") == '{"type":"exit","code":3}'
    assert len(starts) == 1


def test_the_polyfill_names_its_place_in_the_query(page: Page, served: Served, starts: list[str]) -> None:
    """This is why the bridge reads the place there, too. A browser sends a header."""
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "/run-sse/" in request.url else None)
    show(page, served.url, POLYFILL)
    page.wait_for_function("window.shown.length > 0")
    for connection in list(served.server.server_state.connections):
        connection.loop.call_soon_threadsafe(connection.transport.abort)  # in its own thread
    page.wait_for_function("output.textContent")

    first, second = (urlsplit(request.url).query for request in asked)
    assert second.startswith(f"{first}&lastEventId=")
    assert all("last-event-id" not in request.headers for request in asked)
    assert len(starts) == 1


def test_fetch_event_source_stops_at_204(page: Page, served: Served, starts: list[str]) -> None:
    """A page that comes back to a run that it has seen to its end asks once.

    The library takes 204 for an error, and would ask again without limit.
    """
    with httpx.stream("GET", f"{served.url}/run-sse/") as response:
        *_, last = (line for line in response.iter_lines() if line.startswith("id: "))
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "/run-sse/" in request.url else None)
    show(page, served.url, FETCH_EVENT_SOURCE, f"handled={last.removeprefix('id: ')}")
    page.wait_for_function("window.isOver")

    assert page.evaluate("window.stopped") == "seen to its end"
    assert len(asked) == 1
    assert len(starts) == 1
