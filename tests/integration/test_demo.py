"""`sse-bridge demo`: the page in a real browser, live output, Stop, and a clean end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import httpx
import psutil
import pytest
from playwright.sync_api import Page, Route, expect

from sse_bridge.console.app import create_app
from tests.support.sandboxes import KEY, local_sandbox, running
from tests.support.servers import serve
from tests.support.waiting import eventually

Demo = tuple[str, psutil.Popen]


@pytest.fixture
def page(page: Page, problems: list[str]) -> Page:
    """Errors on the tab's console are problems, too."""
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    return page


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    process = psutil.Popen(
        [sys.executable, "-m", "sse_bridge", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MIOSA")},
    )
    try:
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        eventually(lambda: answers(url[0]))
        yield url[0], process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(10) == 0
        finally:
            process.stdout.close()
            if process.is_running():
                process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def scripts(demo: psutil.Popen, name: str = "pipeline.py") -> list[psutil.Process]:
    """The running scripts of that name, except zombies and processes that end meanwhile."""
    return [process for process in running(name) if demo.pid in _ancestors(process)]


def _ancestors(process: psutil.Process) -> list[int]:
    try:
        return [parent.pid for parent in process.parents()]
    except psutil.Error:
        return []


@pytest.mark.slow
def test_lines_arrive_as_they_are_printed_at_least_one_a_second(demo: Demo) -> None:
    """`curl -N` sees a first byte at once, a steady stream and the exit, without a redirect."""
    arrivals = [time.monotonic()]
    with httpx.stream("GET", demo[0] + "/run-sse", timeout=30) as response:
        content = b""
        for chunk in response.iter_raw():
            arrivals.append(time.monotonic())
            content += chunk

    assert content.endswith(b'data: {"type":"exit","code":0}\n\n')
    assert content.count(b'"type":"stdout"') >= 30
    assert content.count(b'"type":"stderr"') == 2
    assert max(later - earlier for earlier, later in pairwise(arrivals)) < 1
    assert 8 < arrivals[-1] - arrivals[0] < 15


def test_the_page_runs_shows_and_stops(demo: Demo, page: Page) -> None:
    """Run shows live lines, with stderr marked. Stop ends the script. A second run goes on to its exit."""
    url, process = demo
    page.goto(url)
    page.click("#run")
    page.get_by_text("Batch 1/10").wait_for()
    assert page.inner_text("#state .badge") == "running"
    assert len(scripts(process)) == 1
    page.click("#stop")
    page.get_by_text("The script has ended.").wait_for()
    assert not scripts(process)
    assert page.inner_text("#state .badge") == "stopped"

    page.click("#run")
    wait_for_exit(page)
    assert page.inner_text("#state .badge") == "exit code 0"
    assert "missing value" in page.inner_text("#output .stderr >> nth=0")
    assert rows(page)[-4][1] == "Pipeline finished."
    assert page.is_enabled("#run")
    assert page.is_disabled("#stop")


def test_stop_reaches_a_run_whose_name_is_still_to_come(page: Page) -> None:
    """Stop may be pressed before the platform has answered. The page ends the run once `start` has named it."""
    with local_sandbox() as sandbox, serve(create_app(sandbox.miosa())) as served:
        page.goto(served.url)
        page.locator("#run").wait_for()
        page.locator("sse-console").evaluate(
            "({ shadowRoot }) => { for (const id of ['run', 'stop']) shadowRoot.getElementById(id).click(); }"
        )
        page.get_by_text("The script has ended.").wait_for()

        assert not [process for process in running("pipeline.py") if os.getpid() in _ancestors(process)]
        assert page.is_enabled("#run")


# -- refusals


def test_a_refusal_is_shown_with_its_status(page: Page, problems: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is gone: the page says so, and lets the reader try again."""
    monkeypatch.setattr("sse_bridge.sandbox.state._MAX_DESTROYED", 0)  # the sandbox's server knows it no longer
    with local_sandbox() as sandbox, serve(create_app(sandbox.miosa())) as served:
        page.goto(served.url)
        with httpx.Client(base_url=f"{sandbox.url}/api/v1", headers={"Authorization": f"Bearer {KEY}"}) as platform:
            for each in platform.get("/sandboxes").json()["data"]:
                platform.delete(f"/sandboxes/{each['id']}").raise_for_status()
        page.click("#run")
        page.wait_for_selector("#state[data-state=error]")

        assert page.inner_text("#state .badge") == "refused"
        assert figures(page) == {"Lines": 0}
        assert page.inner_text("#message") == "The sandbox or stream does not exist. (404)"
        assert "404" in problems.pop()  # the browser's own words
        assert page.is_enabled("#run")


def test_a_busy_server_is_asked_again(demo: Demo, page: Page, problems: list[str]) -> None:
    """The page says that it waits. It asks by itself, and the run begins."""
    busy = iter([True])

    def answer(route: Route) -> None:
        if next(busy, False):
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": {"code": "busy"}})
        else:
            route.continue_()

    page.route("**/run-sse?*", answer)
    page.goto(demo[0])
    page.click("#run")
    page.get_by_text("The server is busy.").wait_for()
    assert page.inner_text("#state .badge") == "waiting"
    page.get_by_text("Batch 1/10").wait_for()
    assert page.inner_text("#state .badge") == "running"
    assert "503" in problems.pop()
    page.click("#stop")
    eventually(lambda: not scripts(demo[1]))


# -- policies


def test_only_known_names_can_be_chosen(demo: Demo) -> None:
    """Any other value in the query is refused before a script runs."""
    for wrong in ("script=rm", "script=pipeline.py", "policy=Block", "policy=", "rate=1"):
        answer = httpx.get(f"{demo[0]}/run-sse?{wrong}")
        assert (wrong, answer.status_code) == (wrong, 400)
    assert not scripts(demo[1])


def test_the_policy_is_chosen_with_the_keyboard_and_kept_while_a_run_goes_on(demo: Demo, page: Page) -> None:
    """Each control has a label, and the hint says what the policy does."""
    page.goto(demo[0])
    page.get_by_label("Slow").focus()
    page.keyboard.press("Space")
    assert page.get_by_label("Slow").is_checked()
    assert "Nothing is lost" in page.inner_text("#hint")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Drop").is_checked()
    assert "left out" in page.inner_text("#hint")

    page.click("#run")
    page.get_by_text("Batch 1/10").wait_for()
    assert page.url.endswith("&script=pipeline&rate=slow&policy=drop")
    assert page.get_by_label("Script").is_disabled()
    assert page.get_by_label("Coalesce").is_disabled()
    page.click("#stop")
    expect(page.get_by_label("Coalesce")).to_be_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["block", "coalesce"])
def test_200_000_lines_arrive_and_are_counted(demo: Demo, page: Page, policy: str) -> None:
    """Each is an event of its own under `Block`; `Coalesce` merges them into few events."""
    run_lines(page, demo[0], policy)
    wait_for_exit(page)

    shown = figures(page)
    events = shown.pop("Events")
    assert shown == {"Lines": 200_000}
    assert page.inner_text("#state .badge") == "exit code 0"
    assert events == 200_001 if policy == "block" else events < 2_000
    numbers = [number for number, _ in rows(page)]
    assert numbers == list(range(200_001 - len(numbers), 200_001))
    assert all(text.startswith(f"{number:>7,}  station") for number, text in rows(page))


def test_drop_thins_what_a_slow_connection_gets_and_counts_the_rest(demo: Demo, page: Page) -> None:
    """Notices stand where lines are missing, and the lines after them keep their numbers."""
    run_lines(page, demo[0], "drop", slow=True)
    wait_for_exit(page)

    shown = figures(page)
    assert shown["Lines"] + shown["Missing"] == 200_000
    assert shown["Missing"] > 100_000
    assert page.inner_text("#state .badge") == "exit code 0"
    assert all(text.startswith(f"{number:>7,}  station") for number, text in rows(page))
    text: str = page.locator("sse-console").evaluate("({ text }) => text")
    notices = [line for line in text.splitlines() if "left out here" in line]
    found = [int(line.split()[0].replace(",", "")) for line in text.splitlines() if "left out here" not in line]
    assert found[-1] == 200_000
    jumps = [later - earlier - 1 for earlier, later in pairwise(found) if later != earlier + 1]
    assert [int(notice.split()[0].replace(",", "")) for notice in notices] == jumps
    assert sum(jumps) == shown["Missing"]


def test_block_holds_the_script_back_on_a_slow_connection(demo: Demo, page: Page) -> None:
    """The script still waits in its `print` when the page shows the first thousand lines."""
    run_lines(page, demo[0], "block", slow=True)
    page.wait_for_function(
        "lines => Number(lines.textContent.replace(',', '')) > 1000", arg=page.query_selector("#lines")
    )
    assert len(scripts(demo[1], "lines.py")) == 1
    page.click("#stop")
    eventually(lambda: not scripts(demo[1], "lines.py"))

    assert figures(page)["Lines"] < 20_000


# -- coming back, and watching together


@pytest.mark.slow
def test_a_cut_connection_is_counted_and_every_line_arrives(page: Page, problems: list[str]) -> None:
    """The browser reconnects by itself in the middle of 200,000 lines, and the figures count it."""
    with local_sandbox() as sandbox, serve(create_app(sandbox.miosa())) as served:
        run_lines(page, served.url, "block")
        page.wait_for_function("lines => lines.textContent.length > 5", arg=page.query_selector("#lines"))
        for connection in list(served.server.server_state.connections):
            connection.loop.call_soon_threadsafe(connection.transport.abort)  # in its own thread
        page.get_by_text("reconnecting").wait_for()
        wait_for_exit(page)

    shown = figures(page)
    del shown["Events"]
    assert shown == {"Lines": 200_000, "Reconnects": 1}
    assert "Failed to load resource" in problems.pop()
    assert page.inner_text("#state .badge") == "exit code 0"


def test_a_second_tab_watches_by_the_link_and_either_may_go(demo: Demo, page: Page) -> None:
    """It shows the run from its beginning. The run goes on when either tab leaves, even the one that started it."""
    page.goto(demo[0])
    page.click("#run")
    page.get_by_text("Batch 1/10").wait_for()
    second = open_second(page)
    second.get_by_text("Batch 2/10").wait_for()
    page.get_by_text("Batch 2/10").wait_for()
    assert rows(second)[:5] == rows(page)[:5]  # as far as both are known to be
    assert rows(second)[0] == (1, "Starting data pipeline...")
    assert second.inner_text("#state .badge") == "watching"

    (script,) = scripts(demo[1])
    second.close()
    wait_for_more_lines(page)
    third = open_second(page)
    third.get_by_text("Starting data pipeline...").wait_for()
    page.close()
    wait_for_more_lines(third)
    assert scripts(demo[1]) == [script]
    third.click("#stop")
    eventually(lambda: not scripts(demo[1]))


def test_a_reload_comes_back_to_the_run(demo: Demo, page: Page) -> None:
    """The address holds the choices, too. It is the run's also after the end, and leads to how the run ended."""
    page.goto(demo[0])
    page.get_by_label("Coalesce").check()
    page.click("#run")
    page.get_by_text("Batch 1/10").wait_for()
    (script,) = scripts(demo[1])
    address = page.url
    page.reload()
    page.get_by_text("Starting data pipeline...").wait_for()
    wait_for_more_lines(page)
    assert page.url == address
    assert page.get_by_label("Coalesce").is_checked()
    assert scripts(demo[1]) == [script]

    page.click("#stop")
    page.get_by_text("The script has ended.").wait_for()
    assert page.url == address
    page.reload()
    page.get_by_text("The script was stopped on request.").wait_for()
    assert rows(page)[0] == (1, "Starting data pipeline...")
    assert page.is_enabled("#run")


@pytest.mark.parametrize("token", ["A" * 16, "..", "%2e%2e", "a/b", "a?b#c", "%zz", "\u00fc", "A" * 3000])
def test_a_link_to_an_unknown_run_says_so(demo: Demo, page: Page, problems: list[str], token: str) -> None:
    """A run that was forgotten, or that never was. No script is started, and Run works."""
    page.goto(f"{demo[0]}/#run={token}")
    page.wait_for_selector("#state[data-state=stopped], #state[data-state=error]")
    assert page.inner_text("#message")
    assert rows(page) == []
    assert not scripts(demo[1])
    assert page.is_enabled("#run")
    problems.clear()  # the browser's own words about a refused stream


def test_a_late_page_shows_how_many_lines_are_gone(demo: Demo, page: Page) -> None:
    """A run that is over can be watched for another minute, but the bridge keeps only its last megabytes."""
    run_lines(page, demo[0], "coalesce")
    page.wait_for_url(re.compile("#run="))
    address = page.url
    wait_for_exit(page)
    page.goto("about:blank")  # so that the exit awaited below belongs to a new document
    page.goto(address)
    wait_for_exit(page)

    shown = figures(page)
    assert shown["Lines"] + shown["Missing"] == 200_000
    assert 0 < shown["Missing"] < 200_000
    assert all(text.startswith(f"{number:>7,}  station") for number, text in rows(page))


# -- helpers: what the page shows


def run_lines(page: Page, url: str, policy: str, *, slow: bool = False) -> None:
    page.goto(url)
    page.get_by_label("Script").select_option("lines")
    page.get_by_label(policy.title()).check()
    page.get_by_label("Slow").set_checked(slow)
    page.click("#run")


def wait_for_exit(page: Page) -> None:
    page.wait_for_selector("#state[data-state=exit]", timeout=60_000)
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")


def figures(page: Page) -> dict[str, int]:
    """The figures on the page, except the time and the bytes."""
    pairs = page.eval_on_selector_all(
        ".figures > :not([hidden])", "figures => figures.map(one => [...one.children].map(part => part.textContent))"
    )
    return {name: int(value.replace(",", "")) for name, value in pairs if not value.endswith("s")}


def rows(page: Page) -> list[tuple[int, str]]:
    """The lines in the pane, with their numbers. A pane holds few more than are in sight."""
    found = page.eval_on_selector_all(
        "#output .row[data-number]",
        "rows => rows.map(row => [Number(row.dataset.number), row.querySelector('.text').textContent])",
    )
    return [cast(tuple[int, str], tuple(row)) for row in found]


def open_second(page: Page) -> Page:
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="second tab").click()
    return opened.value


def wait_for_more_lines(page: Page) -> None:
    """Waits for two more lines: by then the other tab's action has had its effect."""
    page.wait_for_function(
        "lines => Number(lines.textContent) > (window.linesBefore ??= Number(lines.textContent)) + 1",
        arg=page.query_selector("#lines"),
    )
    page.evaluate("delete window.linesBefore")
