"""Real servers, real processes: live output and its end on uvicorn, hypercorn and granian."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.support.bridge_process import BridgeProcess, bridge_process
from tests.support.sandboxes import LocalSandbox, running
from tests.support.servers import SERVERS
from tests.support.waiting import eventually

#: Prints a line to each stream, then waits for a file by which the test says that both have arrived.
SCRIPT = """
import pathlib, sys, time
for number in range(5):
    print("line", number)
    print("warning", number, file=sys.stderr)
    give_up = time.monotonic() + 20
    while not pathlib.Path(f"{sys.argv[1]}-{number}").exists():
        if time.monotonic() > give_up:
            sys.exit("the lines did not arrive")
        time.sleep(0.01)
sys.exit(3)
"""


def settings(sandbox: LocalSandbox, command: str, **options: Any) -> dict[str, Any]:
    return {
        **sandbox.settings,
        "command": command,
        "options": {"grace": 0, **options},
    }


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bridge(server: str, sandbox: LocalSandbox, tmp_path: Path, mark: str) -> Iterator[BridgeProcess]:
    """A bridge with a command that sleeps for five minutes, and without heartbeats: its stream is entirely silent."""
    with bridge_process(tmp_path, server=server, **settings(sandbox, f"sleep {mark}", heartbeat=None)) as process:
        yield process


def test_each_line_arrives_when_it_is_printed(server: str, sandbox: LocalSandbox, tmp_path: Path, mark: str) -> None:
    """The script prints a line only after the one before has arrived; its exit code comes last."""
    sandbox.write("/workspace/lines.py", SCRIPT)
    command = f"python3 -u /workspace/lines.py {mark}"
    with bridge_process(tmp_path, server=server, **settings(sandbox, command)) as bridge:
        seen = []
        with (
            httpx.Client(timeout=30) as client,
            httpx_sse.connect_sse(client, "GET", bridge.url + "/run-sse") as source,
        ):
            assert source.response.headers["content-type"].startswith("text/event-stream")
            for event in source.iter_sse():
                body = json.loads(event.data)
                if body["type"] != "start":
                    seen.append(body)
                    if len(seen) % 2 == 0:  # both lines of a round
                        sandbox.write(f"/workspace/{mark}-{len(seen) // 2 - 1}", "")

    lines = [(body["type"], body["line"]) for body in seen[:-1]]
    assert [line for kind, line in lines if kind == "stdout"] == [f"line {number}" for number in range(5)]
    assert [line for kind, line in lines if kind == "stderr"] == [f"warning {number}" for number in range(5)]
    assert seen[-1] == {"type": "exit", "code": 3}


def test_a_closed_tab_kills_its_silent_script(bridge: BridgeProcess, sandbox: LocalSandbox, mark: str) -> None:
    """The bridge hears of the leaving without sending, and cancels: the sandbox lets a command run on."""
    with httpx.stream("GET", bridge.url + "/run-sse") as response:
        assert response.status_code == 200
        eventually(lambda: running(mark))
    eventually(lambda: not running(mark))


def test_each_tab_has_its_own_script(bridge: BridgeProcess, mark: str) -> None:
    """Closing a tab ends its script, and the others run on."""
    with httpx.Client(limits=httpx.Limits(max_connections=None)) as client:
        tabs = [client.send(client.build_request("GET", bridge.url + "/run-sse"), stream=True) for _ in range(5)]
        eventually(lambda: len(running(mark)) == 5)
        for number, tab in enumerate(tabs, 1):
            tab.close()
            eventually(lambda: len(running(mark)) == 5 - number)  # noqa: B023


def test_a_server_that_stops_ends_its_scripts(bridge: BridgeProcess, mark: str) -> None:
    """Also a server that a program started, with its own timeouts; `test_stop.py` covers the command lines."""
    with httpx.Client() as client:
        tab = client.send(client.build_request("GET", bridge.url + "/run-sse"), stream=True)
        eventually(lambda: running(mark))
        bridge.process.terminate()
        eventually(lambda: not running(mark))
        tab.close()
