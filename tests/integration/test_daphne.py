"""daphne: it cancels requests ten seconds after their clients have left, and all of them at a signal."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_stop import CANCEL_TIMEOUT, STOP_BOUND, Viewer
from tests.support.command_lines import server_process
from tests.support.sandboxes import LocalSandbox, running
from tests.support.waiting import eventually


@pytest.fixture
def settings(sandbox: LocalSandbox, mark: str) -> dict[str, Any]:
    return {
        **sandbox.settings,
        "commands": {
            "idle": f"sleep {mark}",
            "ticking": f"for i in $(seq 40); do echo tick $i; sleep 0.5; done; : {mark}",
        },
        "options": {"cancel_timeout": CANCEL_TIMEOUT},
    }


@pytest.mark.slow  # 20 s
@pytest.mark.parametrize("resumes", [False, True])
def test_a_run_outlives_the_request_that_started_it(settings: dict[str, Any], tmp_path: Path, resumes: bool) -> None:
    """The server cancels that request in the midst of the run. Another viewer reads on to the exit."""
    with server_process("daphne", tmp_path, **settings) as server:
        url = f"{server.url}/run-sse/"
        with httpx.stream("GET", url, params={"run": "ticking"}) as first:
            token = first.headers["sse-bridge-run"]
            seen = next(first.iter_raw())
        assert b"start" in seen
        place = {"Last-Event-ID": f"{token}.0"} if resumes else {}
        with httpx.stream("GET", url + token, headers=place, timeout=30) as second:
            lines = [line for line in second.iter_lines() if line.startswith("data: ")]

    assert [f"tick {number}" in line for number, line in enumerate(lines[-41:-1], 1)] == [True] * 40
    assert '"code":0' in lines[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "how",
    [
        "followed",
        pytest.param("left by its viewer", marks=pytest.mark.slow),
        pytest.param("started apart", marks=pytest.mark.slow),
    ],
)
def test_a_stop_ends_the_command_first(
    how: str, number: signal.Signals, settings: dict[str, Any], mark: str, tmp_path: Path
) -> None:
    """Viewers are told, although the server would cancel their requests at once."""
    with server_process("daphne", tmp_path, **settings) as server:
        if how == "started apart":
            url = f"{server.url}/run-sse/?run=idle"
            assert httpx.post(url, headers={"Accept": "application/json"}, timeout=30).status_code == 201
            eventually(lambda: running(mark))
        else:
            viewer = Viewer(server, "idle", leaves=how != "followed")
            eventually(lambda: running(mark) and viewer.is_ready())
        server.tell(number)
        seconds = server.seconds_until_gone(time.monotonic())
        left = running(mark)
    assert not left
    assert seconds < STOP_BOUND
    if how == "followed":
        viewer.check()
    assert "Traceback" not in server.log.read_text()
