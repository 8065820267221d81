"""A server process that is stopped for longer than any of its timeouts, and goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_overload import RawViewer
from tests.support.bridge_process import BridgeProcess, bridge_process
from tests.support.sandboxes import LocalSandbox

#: Seconds of each timeout, and of the standstill.
TIMEOUT, STANDSTILL = 1.5, 4.0


def stand_still(bridge: BridgeProcess) -> None:
    bridge.process.send_signal(signal.SIGSTOP)
    time.sleep(STANDSTILL)
    bridge.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_clients_of_a_process_that_stood_still_lose_nothing(server: str, sandbox: LocalSandbox, tmp_path: Path) -> None:
    """A viewer that reads goes on reading, and a browser that comes back finds its run, with every line."""
    command = "for n in $(seq 80); do echo $n; sleep 0.1; done"
    settings: dict[str, Any] = {**sandbox.settings, "command": command}
    options = {"grace": TIMEOUT, "send_timeout": TIMEOUT, "heartbeat": TIMEOUT}
    with (
        bridge_process(tmp_path, server=server, **settings, options=options) as bridge,
        RawViewer(bridge.port) as viewer,
        httpx.Client(base_url=bridge.url) as browser,
    ):
        events = viewer.events()
        next(events)
        with browser.stream("GET", "/run-sse") as response:
            ids = (line.removeprefix("id: ") for line in response.iter_lines() if line.startswith("id: "))
            place = next(line for line in ids if line.endswith(".1"))
        time.sleep(TIMEOUT / 3)  # the server notices that the browser has left, and the grace period begins
        stand_still(bridge)
        back = browser.get("/run-sse", headers={"Last-Event-ID": place}, timeout=30).text
        seen = [event.data for event in events]

    assert seen[-1] == '{"type":"exit","code":0}'
    assert len(seen) == 80
    assert back.endswith('data: {"type":"exit","code":0}\n\n')
    assert back.count('"type":"stdout"') == 79
