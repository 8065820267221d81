"""Real servers, real processes: the main job on uvicorn, hypercorn and granian."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.support.bridge_process import BridgeProcess, bridge_process
from tests.support.sandboxes import KEY, LocalSandbox, running
from tests.support.waiting import eventually

SERVERS = ["uvicorn", "hypercorn", "granian"]

SCRIPT = """
import sys, time
for number in range(5):
    print("line", number, time.time())
    print("warning", number, file=sys.stderr)
    time.sleep(0.2)
sys.exit(3)
"""


def settings(sandbox: LocalSandbox, command: str, **options: Any) -> dict[str, Any]:
    return {
        "url": sandbox.url,
        "key": KEY,
        "sandbox": sandbox.id,
        "command": command,
        "options": {"grace": 0, **options},
    }


@pytest.fixture
def mark() -> str:
    """A time to sleep by which a test finds its own processes."""
    return f"300.{uuid.uuid4().int % 10**12:012}"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bridge(server: str, sandbox: LocalSandbox, tmp_path: Path, mark: str) -> Iterator[BridgeProcess]:
    """A bridge whose command sleeps for five minutes."""
    with bridge_process(tmp_path, server=server, **settings(sandbox, f"sleep {mark}")) as process:
        yield process


def test_each_line_arrives_when_it_is_printed(server: str, sandbox: LocalSandbox, tmp_path: Path) -> None:
    """Not at the end: every line is here within a fraction of a second, and the exit code is the script's."""
    sandbox.write("/workspace/lines.py", SCRIPT)
    with bridge_process(tmp_path, server=server, **settings(sandbox, "python3 -u /workspace/lines.py")) as bridge:
        seen, delays = [], []
        with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", bridge.url + "/run-sse") as source:
            assert source.response.headers["content-type"].startswith("text/event-stream")
            for event in source.iter_sse():
                if event.data:  # httpx-sse makes events of frames that have none
                    body = json.loads(event.data)
                    seen.append(body)
                    if body["type"] == "stdout":
                        delays.append(time.time() - float(body["line"].split()[2]))

    lines = [(body["type"], body["line"].split()[:2]) for body in seen[:-1]]
    assert [line for kind, line in lines if kind == "stdout"] == [["line", str(number)] for number in range(5)]
    assert [line for kind, line in lines if kind == "stderr"] == [["warning", str(number)] for number in range(5)]
    assert seen[-1] == {"type": "exit", "code": 3}
    assert max(delays) < 0.15


def test_a_closed_tab_kills_the_script_within_a_second(bridge: BridgeProcess, sandbox: LocalSandbox, mark: str) -> None:
    """Although it is silent, and although the sandbox goes on when a stream is closed."""
    with httpx.stream("GET", bridge.url + "/run-sse") as response:
        assert response.status_code == 200
        eventually(lambda: running(mark))
        left = time.monotonic()
    eventually(lambda: not running(mark), 3)

    assert time.monotonic() - left < 1


def test_many_tabs_each_with_a_script_of_its_own(bridge: BridgeProcess, mark: str) -> None:
    """Closing one ends its script and no other."""
    with httpx.Client(limits=httpx.Limits(max_connections=None)) as client:
        tabs = [client.send(client.build_request("GET", bridge.url + "/run-sse"), stream=True) for _ in range(5)]
        eventually(lambda: len(running(mark)) == 5)
        for number, tab in enumerate(tabs, 1):
            tab.close()
            eventually(lambda: len(running(mark)) == 5 - number)  # noqa: B023


def test_a_server_that_stops_ends_what_runs(bridge: BridgeProcess, mark: str) -> None:
    """Also where it was started by a program, with timeouts of its own; see `test_stop.py` for all the rest."""
    with httpx.Client() as client:
        tab = client.send(client.build_request("GET", bridge.url + "/run-sse"), stream=True)
        eventually(lambda: running(mark))
        bridge.process.terminate()
        eventually(lambda: not running(mark), 6)
        tab.close()
