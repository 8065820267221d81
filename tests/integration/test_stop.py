"""Stopping while streams are open, on every server as a user starts it: time, exit code, log, remaining processes."""

from __future__ import annotations

import functools
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.bridge_process import ROOT
from tests.support.command_lines import ServerProcess, server_process
from tests.support.sandboxes import KEY, LocalSandbox, running
from tests.support.servers import SERVERS
from tests.support.waiting import eventually

logger = logging.getLogger(__name__)

#: Seconds.
CANCEL_TIMEOUT = 2.0
#: Seconds in which a server has to be gone.
STOP_BOUND = 2.0 + CANCEL_TIMEOUT
#: Seconds that only a second Ctrl-C cuts short: longer than a test waits for a server to be gone.
LONG_CANCEL_TIMEOUT = 60.0
#: Looks, a fifth of a second apart, at which a script must be in the same place to count as held.
LOOKS_TO_BE_HELD = 3

#: Prints all the time; its argument is the mark.
CHATTY = "import sys\nwhile True: print('x' * 500)\n"
KINDS = ["idle", "chatty", "stalled"]


@pytest.fixture
def settings(sandbox: LocalSandbox, mark: str) -> dict[str, Any]:
    for name in ("chatty", "stalled"):
        sandbox.write(f"/workspace/{name}.py", CHATTY)
    return {
        **sandbox.settings,
        "commands": {
            "idle": f"sleep {mark}",
            "chatty": f"python3 /workspace/chatty.py {mark}",
            "stalled": f"python3 /workspace/stalled.py {mark}",
        },
        "options": {"cancel_timeout": CANCEL_TIMEOUT},
    }


class Viewer:
    """A page that reads to the end, in a thread of its own, or that leaves once it has read something."""

    def __init__(self, server: ServerProcess, run: str, *, leaves: bool = False) -> None:
        self._leaves = leaves
        self.content = b""
        #: What was wrong with the end of the body, if anything.
        self.error: httpx.TransportError | None = None
        self._url = f"{server.url}/run-sse/?run={run}"
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with httpx.stream("GET", self._url, timeout=30) as response:
                for chunk in response.iter_raw():
                    self.content = (self.content + chunk)[-100_000:]
                    if self._leaves:
                        return
        except httpx.TransportError as error:
            self.error = error

    def is_ready(self) -> bool:
        return bool(self.content)

    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def check(self) -> None:
        """The body is complete: it says that the server stopped, and when to come back."""
        self._thread.join(5)
        assert not self._thread.is_alive()
        assert self.error is None
        assert b'"code":"server_stopped"' in self.content
        retry = re.search(rb"\n\nretry: (\d+)\n\Z", self.content)
        assert retry is not None, self.content[-200:]
        assert 2000 <= int(retry[1]) < 7000


class Stalled:
    """A page that never reads and so holds its script back, or a proxy in front of such a page."""

    def __init__(self, server: ServerProcess, run: str, mark: str, *, is_forwarded: bool) -> None:
        self._mark = mark
        self._looks: list[int] = []
        self._connection = socket.create_connection(("127.0.0.1", server.port))
        forwarded = "X-Forwarded-For: 192.0.2.1\r\n" if is_forwarded else ""
        self._connection.sendall(f"GET /run-sse/?run={run} HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n".encode())

    def is_ready(self) -> bool:
        """The script waits in its `print`: it sleeps, and has written as much as at the looks before."""
        self._looks.append(self._written_asleep())
        time.sleep(0.2)
        latest = self._looks[-LOOKS_TO_BE_HELD:]
        return len(latest) == LOOKS_TO_BE_HELD and latest[0] > 0 and len(set(latest)) == 1

    def _written_asleep(self) -> int:
        """Bytes that the script has written; 0 unless it sleeps, as a busy script may only be short of CPU."""
        with suppress(psutil.Error, FileNotFoundError, ValueError):
            (script,) = [one for one in running(f"stalled.py {self._mark}") if one.name().startswith("python")]
            if script.status() == psutil.STATUS_SLEEPING:
                return int(script.io_counters().write_chars)
        return 0

    def check(self) -> None:
        self._connection.close()


def visit(server: ServerProcess, kind: str, mark: str) -> Viewer | Stalled:
    name, _, forwarded = kind.partition("-")
    return Stalled(server, name, mark, is_forwarded=bool(forwarded)) if name == "stalled" else Viewer(server, name)


@pytest.fixture(scope="session")
def code_without_streams(
    sandbox: LocalSandbox, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, signal.Signals], int]:
    """The exit code of a server that is stopped while idle."""

    @functools.cache
    def measure(server: str, number: signal.Signals) -> int:
        none: dict[str, Any] = {**sandbox.settings, "commands": {}, "options": {}}
        with server_process(server, tmp_path_factory.mktemp("without"), **none) as process:
            process.tell(number)
            process.seconds_until_gone(time.monotonic())
            return int(process.process.returncode)

    return measure


def assert_clean(log: str) -> None:
    assert "Traceback" not in log, log
    assert "ERROR" not in log, log
    assert "not seen to end" not in log, log


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("number", "kinds"),
    [
        *((signal.SIGTERM, [kind]) for kind in KINDS),
        pytest.param(signal.SIGINT, ["idle", "chatty", "stalled-behind-proxy"], marks=pytest.mark.slow),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "+".join(value),
)
def test_a_server_stops_while_streams_are_open(
    server: str,
    number: signal.Signals,
    kinds: list[str],
    settings: dict[str, Any],
    mark: str,
    tmp_path: Path,
    code_without_streams: Callable[[str, signal.Signals], int],
) -> None:
    """It stops in time, with the exit code of an idle server. Viewers are told why, and scripts are ended."""
    with server_process(server, tmp_path, **settings) as process:
        viewers = [visit(process, kind, mark) for kind in kinds]
        eventually(lambda: len(running(mark)) >= len(kinds) and all(viewer.is_ready() for viewer in viewers))
        told = time.monotonic()
        process.tell(number)
        seconds = process.seconds_until_gone(told)

        logger.info("%s, %s, %s: %.2f s", server, number.name, "+".join(kinds), seconds)
        assert seconds < STOP_BOUND
        assert not running(mark)
        for viewer in viewers:
            viewer.check()
        assert_clean(process.log.read_text())
    assert process.process.returncode == code_without_streams(server, number)


@pytest.fixture
def frozen() -> Iterator[tuple[dict[str, Any], psutil.Popen]]:
    """A sandbox in its own process, for tests to suspend: the bridge then waits in vain for a command's end."""
    process = psutil.Popen(
        [sys.executable, "-m", "sse_bridge", "sandbox", "--port", "0", "--key", KEY],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url[0]}/api/v1/sandboxes", json={}, headers=headers).raise_for_status()
        yield {"url": url[0], "key": KEY, "sandbox": answer.json()["data"]["id"]}, process
    finally:
        process.resume()
        process.terminate()
        process.stdout.close()
        process.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_waits_for_a_scripts_end_for_cancel_timeout_only(
    server: str, frozen: tuple[dict[str, Any], psutil.Popen], mark: str, tmp_path: Path
) -> None:
    """Its viewer is told as all are, and the log says that the script may run on."""
    place, sandbox = frozen
    settings = {**place, "commands": {"idle": f"sleep {mark}"}, "options": {"cancel_timeout": CANCEL_TIMEOUT}}
    with server_process(server, tmp_path, **settings) as process:
        viewer = Viewer(process, "idle")
        eventually(lambda: running(mark) and viewer.is_ready())
        sandbox.suspend()
        told = time.monotonic()
        process.tell(signal.SIGTERM)
        seconds = process.seconds_until_gone(told)

        logger.info("%s, SIGTERM, frozen sandbox: %.2f s", server, seconds)
        assert CANCEL_TIMEOUT <= seconds < STOP_BOUND
        viewer.check()
        assert "not seen to end" in process.log.read_text()
        assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("server", "waits"),
    [("uvicorn", "Waiting for"), pytest.param("granian", "Shutting down", marks=pytest.mark.slow)],
)
def test_a_second_ctrl_c_stops_a_server_at_once(
    server: str, waits: str, frozen: tuple[dict[str, Any], psutil.Popen], mark: str, tmp_path: Path
) -> None:
    """It gives up a script that is still being ended, and the log says so. hypercorn's workers ignore Ctrl-C."""
    place, sandbox = frozen
    options = {"cancel_timeout": LONG_CANCEL_TIMEOUT}
    settings = {**place, "commands": {"idle": f"sleep {mark}"}, "options": options}
    with server_process(server, tmp_path, **settings) as process:
        viewer = Viewer(process, "idle")
        eventually(lambda: running(mark) and viewer.is_ready())
        sandbox.suspend()
        process.tell(signal.SIGINT)
        eventually(lambda: b"server_stopped" in viewer.content)
        eventually(lambda: waits in process.log.read_text())
        assert "not seen to end" not in process.log.read_text()
        process.tell(signal.SIGINT)

        process.wait_until_gone()
        assert "not seen to end" in process.log.read_text()
        assert "Exception in ASGI" not in process.log.read_text()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("how", ["started apart", "left by its viewer"])
def test_a_server_stops_while_runs_go_on_that_no_request_waits_for(
    server: str,
    how: str,
    tmp_path: Path,
    settings: dict[str, Any],
    mark: str,
    code_without_streams: Callable[[str, signal.Signals], int],
) -> None:
    """The command is gone when the process is, although its viewer has left, or never came."""
    with server_process(server, tmp_path, **settings) as process:
        url = f"{process.url}/run-sse/?run=idle"
        if how == "started apart":
            assert httpx.post(url, headers={"Accept": "application/json"}, timeout=30).status_code == 201
            eventually(lambda: running(mark))
        else:
            with httpx.stream("GET", url):
                eventually(lambda: running(mark))
        process.tell(signal.SIGTERM)
        seconds = process.seconds_until_gone(time.monotonic())
        left = running(mark)

    assert seconds < STOP_BOUND
    assert not left
    assert process.process.returncode == code_without_streams(server, signal.SIGTERM)
    assert_clean(process.log.read_text())
