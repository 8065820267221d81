"""`<sse-console>` with a million lines, and with 20,000 lines a second: what it shows and keeps, and how deaf it is."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

import anyio
import psutil
import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from benchmarks.browser import POLICIES, process
from sse_bridge import EventStream, Exit, Lines, SSEBridge
from sse_bridge.console import static_files
from tests.support.modules import POLICY
from tests.support.servers import serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MILLION: Final = 1_000_000
#: Of the tab's process.
MOST_BYTES: Final = 400_000_000
#: Milliseconds; what a reader begins to feel.
LONGEST_TASK: Final = 100
#: Lines in a hundredth of a second, and hundredths.
PACE: Final = (200, 500)

PAGE: Final = """<!doctype html><html lang="en"><title>console</title><link rel="icon" href="data:,">
<script type="module" src="/modules/sse-console.js"></script>
<sse-console></sse-console>"""


async def paced() -> AsyncGenerator[Any]:
    """20,000 lines a second, for five seconds."""
    lines, hundredths = PACE
    started = time.monotonic()
    for hundredth in range(hundredths):
        for line in range(lines):
            yield f"{hundredth * lines + line:>7,} \x1b[3{line % 8}mepoch\x1b[0m 3 loss=0.482 lr=3e-4 throughput=812/s"
        await anyio.sleep(max(0.0, started + (hundredth + 1) / 100 - time.monotonic()))
    yield Exit(0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process("--serve-upstream", str(MILLION)) as upstream:

        async def source(request: Request) -> EventStream | Lines:
            return Lines(paced()) if "paced" in request.query_params else EventStream(upstream)

        async def policy(request: Request) -> Any:
            return POLICIES[request.query_params["policy"]]

        bridge = SSEBridge(None, source, policy=policy, dialect="typed")
        page = HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})
        app = Starlette(
            routes=[Route("/", lambda request: page), Mount("/modules", static_files()), Mount("/run-sse", bridge)]
        )
        with serve(app) as served:
            yield served.url


@pytest.fixture
def tab(browser: Browser, url: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.wait_for_function("() => customElements.get('sse-console')")
        yield page


def run(page: Page, query: str) -> dict[str, Any]:
    """Shows a run to its end; returns what the element counts."""
    page.evaluate("(src) => document.querySelector('sse-console').setAttribute('src', src)", f"/run-sse/?{query}")
    page.click("#run")
    page.wait_for_selector("#state[data-state=exit]", timeout=400_000)
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    lines: dict[str, Any] = page.evaluate("document.querySelector('sse-console').lines")
    return lines


def renderer_bytes() -> int:
    """Of the largest process of a tab, without what it shares with the browser's other processes."""
    children = psutil.Process().children(recursive=True)
    return max(each.memory_full_info().uss for each in children if "--type=renderer" in each.cmdline())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_million_lines(tab: Page, policy: str) -> None:
    """All are there or counted, the last one in sight, any of them found, in bounded memory."""
    lines = run(tab, f"policy={policy}")

    assert lines["received"] + lines["missing"] == MILLION
    assert lines["missing"] == 0 or POLICIES[policy].may_lose
    last = tab.locator(".row.stdout .text").last.inner_text()
    assert last == f"epoch 3 step {MILLION - 1} loss=0.482 lr=3e-4 throughput=812/s"
    assert renderer_bytes() < MOST_BYTES
    tab.locator("#output").focus()
    tab.keyboard.press("/")
    tab.keyboard.type(f"step {MILLION - 5} ")
    tab.get_by_text("1 line", exact=True).wait_for(timeout=60_000)


def test_20_000_lines_a_second_leave_the_page_its_turns(browser: Browser, tab: Page) -> None:
    """Under `Coalesce`, in colour."""
    browser.start_tracing(page=tab, categories=["toplevel"])
    lines = run(tab, "paced&policy=Coalesce()")
    tasks = main_thread_tasks(browser.stop_tracing())

    assert lines == {"received": PACE[0] * PACE[1], "missing": 0}
    assert len(tasks) > 100
    assert max(tasks) <= LONGEST_TASK


def main_thread_tasks(trace: bytes) -> list[float]:
    """The processor's milliseconds of each finished task. By the clock, a task also waits for other processes."""
    events = json.loads(trace)["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        event["tdur"] / 1000
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask"
        and (event["pid"], event["tid"]) in threads
        and "tdur" in event
    ]
