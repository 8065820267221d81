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

import httpx
import psutil
import pytest

from tests.support.browser import chromium
from tests.support.sandboxes import running
from tests.support.waiting import eventually


@pytest.fixture
def demo() -> Iterator[tuple[str, psutil.Popen]]:
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


def scripts(demo: psutil.Popen) -> list[psutil.Process]:
    """The pipelines that run. Zombies, and processes that end while we ask, do not."""
    return [process for process in running("pipeline.py") if demo.pid in _ancestors(process)]


def _ancestors(process: psutil.Process) -> list[int]:
    try:
        return [parent.pid for parent in process.parents()]
    except psutil.Error:
        return []


def test_lines_arrive_as_they_are_printed_at_least_one_a_second(demo: tuple[str, psutil.Popen]) -> None:
    """As `curl -N` sees it: no redirect, a first byte at once, a steady stream, the exit."""
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


def test_the_page_runs_shows_and_stops(demo: tuple[str, psutil.Popen]) -> None:
    """Run, live lines with stderr told apart, Stop, which really ends the script; then a whole run to its exit."""
    url, process = demo
    with chromium() as browser:
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        page.click("#run")
        page.get_by_text("Batch 1/10").wait_for()
        assert page.inner_text("#state .badge") == "running"
        assert len(scripts(process)) == 1
        page.click("#stop")
        eventually(lambda: not scripts(process))
        assert page.inner_text("#state .badge") == "stopped"

        page.click("#run")
        page.get_by_text("Pipeline finished.").wait_for(timeout=30_000)
        page.wait_for_function("document.getElementById('state').textContent.includes('exit')")
        assert page.inner_text("#state .badge") == "exit code 0"
        assert "missing value" in page.inner_text("#output .stderr >> nth=0")
        assert page.is_enabled("#run")
        assert page.is_disabled("#stop")
        assert problems == []
