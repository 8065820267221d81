"""What a page of a real browser sees: a plain `EventSource`, on whichever worker it reaches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page

from tests.redis.crew import LEASE, MakeCrew
from tests.redis.keeper import Keeper, away
from tests.redis.metered import Platform
from tests.redis.scripts import PACE, Ticker
from tests.redis.switch import switch
from tests.redis.watching import NewViewer
from tests.support.browser import chromium

pytestmark = pytest.mark.slow


PAGE = """
<!doctype html><title>run</title>
<script>
  window.lines = []; window.exit = null; window.drops = 0; window.ids = [];
  const source = new EventSource(decodeURIComponent(location.hash.slice(1)));
  source.onmessage = (event) => {
    const said = JSON.parse(event.data);
    window.ids.push(event.lastEventId);
    if (said.type === "stdout") window.lines.push(Number(said.line));
    if (said.type === "exit") { window.exit = said.code; source.close(); }
  };
  source.onerror = () => { window.drops++; };
</script>
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


def listen(page: Page, url: str, path: str) -> None:
    """Shows a page of that server, with an `EventSource` of `path`."""
    page.route(f"{url}/", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    page.goto(f"{url}/#{quote(path)}")


def until_line(page: Page, number: int) -> None:
    """Waits until the page has that many lines."""
    page.wait_for_function(f"window.lines.length >= {number}")


def assert_complete(page: Page) -> int:
    """The page has every line once, in order, and the exit code. Returns how many lines that are."""
    page.wait_for_function("window.exit !== null")
    lines: list[int] = page.evaluate("window.lines")
    assert lines == list(range(1, len(lines) + 1))
    numbers = [int(each.rpartition(".")[2]) for each in page.evaluate("window.ids")]
    assert numbers == list(range(len(lines) + 2))
    assert page.evaluate("window.exit") == 0
    return len(lines)


def test_a_page_comes_back_once_redis_is_there(
    make_crew: MakeCrew, redis_server: Keeper, ticker: Ticker, page: Page, view: NewViewer
) -> None:
    """Row 15: the worker that it reaches cannot find its run for a while. 503 or 204 would stop an `EventSource`."""
    crew = make_crew(options={"commit_after": 0.5, "heartbeat": 1.0})
    a, b, c = crew.hire(3)
    c.enlist()
    local = view().start(a, ticker.command).until_more()
    with switch(b.port) as port:
        listen(page, f"http://127.0.0.1:{port.port}", f"/runs/{local.token}")
        until_line(page, 10)
        with away(redis_server):
            port.turn(c.port)  # it has never seen this run
            page.wait_for_function("window.drops >= 3")
            seen = page.evaluate("window.lines.length")
            local.until_more(round(LEASE / PACE))
        until_line(page, seen + 50)
        ticker.stop()
        assert assert_complete(page) == len(local.until_over().lines)
    local.assert_complete()


def test_a_rolling_deploy_costs_a_page_no_line(
    make_crew: MakeCrew, platform: Platform, ticker: Ticker, page: Page, view: NewViewer
) -> None:
    """Three workers are replaced one after the other, the run's owner among them; its script runs for 20 seconds."""
    crew = make_crew(options={"drain": 60.0}, graceful=60)
    serving = list(crew.hire(3))
    starts, cancels = platform.starts, platform.cancels
    with switch(*(each.port for each in serving)) as port:
        balancer = f"http://127.0.0.1:{port.port}"
        listen(page, balancer, "/runs/?command=" + quote(ticker.command, safe=""))
        until_line(page, 10)
        old = list(serving)
        for worker in old:
            (new,) = crew.hire(1)
            serving = [*serving[1:], new]
            port.targets = [each.port for each in serving]
            worker.process.send_signal(signal.SIGTERM)
            until_line(page, page.evaluate("window.lines.length") + round(3 / PACE))
        until_line(page, round(20 / PACE))
        ended: list[Any] = [each.process.poll() for each in old]
        assert ended.count(None) == 1  # the owner
        ticker.stop()
        assert_complete(page)
    for worker in old:
        worker.process.wait(20)
    assert page.evaluate("window.drops") > 0
    assert platform.starts == starts + 1
    assert platform.cancels == cancels
