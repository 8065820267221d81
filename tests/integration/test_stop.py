"""Stopping with streams open, on every server as a user starts it: seconds, exit code, log, processes left."""

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
import uuid
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
from tests.support.waiting import eventually

logger = logging.getLogger(__name__)

SERVERS = ["uvicorn", "hypercorn", "granian"]
#: Seconds.
CANCEL_TIMEOUT = 2.0
BOUND = 2.0 + CANCEL_TIMEOUT

#: Prints all the time; its second argument is the mark.
CHATTY = "import sys\nwhile True: print('x' * 500)\n"
KINDS = ["idle", "chatty", "stalled"]


@pytest.fixture
def mark() -> str:
    """A time to sleep by which a test finds its own processes."""
    return f"300.{uuid.uuid4().int % 10**12:012}"


@pytest.fixture
def settings(sandbox: LocalSandbox, mark: str) -> dict[str, Any]:
    for name in ("chatty", "stalled"):
        sandbox.write(f"/workspace/{name}.py", CHATTY)
    return {
        "url": sandbox.url,
        "key": KEY,
        "sandbox": sandbox.id,
        "commands": {
            "idle": f"sleep {mark}",
            "chatty": f"python3 /workspace/chatty.py {mark}",
            "stalled": f"python3 /workspace/stalled.py {mark}",
        },
        "options": {"cancel_timeout": CANCEL_TIMEOUT},
    }


class Viewer:
    """A page that reads to the end, in a thread of its own."""

    def __init__(self, server: ServerProcess, run: str) -> None:
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
        except httpx.TransportError as error:
            self.error = error

    def is_ready(self) -> bool:
        return bool(self.content)

    def check(self) -> None:
        """The body is complete, and says what happened and when to come back."""
        self._thread.join(5)
        assert not self._thread.is_alive()
        assert self.error is None
        assert b'"code":"server_stopped"' in self.content
        retry = re.search(rb"\n\nretry: (\d+)\n\n\Z", self.content)
        assert retry is not None, self.content[-200:]
        assert 2000 <= int(retry[1]) < 7000


class Stalled:
    """A page that never reads, and whose script is held by that; or a proxy before such a page."""

    def __init__(self, server: ServerProcess, run: str, mark: str, *, is_forwarded: bool) -> None:
        self._mark = mark
        self._written = -1
        self._connection = socket.create_connection(("127.0.0.1", server.port))
        forwarded = "X-Forwarded-For: 192.0.2.1\r\n" if is_forwarded else ""
        self._connection.sendall(f"GET /run-sse/?run={run} HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n".encode())

    def is_ready(self) -> bool:
        before, self._written = self._written, self._count()
        time.sleep(0.2)
        return self._written == before > 0

    def _count(self) -> int:
        with suppress(psutil.Error, FileNotFoundError):
            return sum(process.io_counters().write_chars for process in running(f"stalled.py {self._mark}"))
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
    """The exit code of a server that was told to stop while nothing was open."""

    @functools.cache
    def measure(server: str, number: signal.Signals) -> int:
        none = {"url": sandbox.url, "key": KEY, "sandbox": sandbox.id, "commands": {}, "options": {}}
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
        (signal.SIGINT, ["idle", "chatty", "stalled-behind-proxy"]),
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
    """In time, as if nothing had been open; viewers are told, and no script is left."""
    with server_process(server, tmp_path, **settings) as process:
        viewers = [visit(process, kind, mark) for kind in kinds]
        eventually(lambda: len(running(mark)) >= len(kinds) and all(viewer.is_ready() for viewer in viewers))
        told = time.monotonic()
        process.tell(number)
        seconds = process.seconds_until_gone(told)

        logger.info("%s, %s, %s: %.2f s", server, number.name, "+".join(kinds), seconds)
        assert seconds < BOUND
        assert not running(mark)
        for viewer in viewers:
            viewer.check()
        assert_clean(process.log.read_text())
    assert process.process.returncode == code_without_streams(server, number)


@pytest.fixture
def frozen() -> Iterator[tuple[dict[str, Any], psutil.Popen]]:
    """A sandbox in a process of its own, which can be stopped: then no command can be seen to end."""
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


@pytest.mark.parametrize("server", SERVERS)
def test_a_script_that_cannot_be_ended_is_not_waited_for(
    server: str, frozen: tuple[dict[str, Any], psutil.Popen], mark: str, tmp_path: Path
) -> None:
    """Longer than `cancel_timeout`; its viewer is told as all are, and the log says that it may run on."""
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
        assert CANCEL_TIMEOUT <= seconds < BOUND
        viewer.check()
        assert "not seen to end" in process.log.read_text()
        assert "Traceback" not in process.log.read_text()


def test_a_second_ctrl_c_stops_uvicorn_at_once(
    frozen: tuple[dict[str, Any], psutil.Popen], mark: str, tmp_path: Path
) -> None:
    """Although a script is still being ended, which the log says.

    hypercorn's workers ignore Ctrl-C. granian's hang when they get the third signal (their second Ctrl-C, since the
    first is followed by a SIGTERM), whatever the application does (2.8.7).
    """
    place, sandbox = frozen
    settings = {**place, "commands": {"idle": f"sleep {mark}"}, "options": {"cancel_timeout": 15.0}}
    with server_process("uvicorn", tmp_path, **settings) as process:
        viewer = Viewer(process, "idle")
        eventually(lambda: running(mark) and viewer.is_ready())
        sandbox.suspend()
        process.tell(signal.SIGINT)
        eventually(lambda: b"server_stopped" in viewer.content)
        time.sleep(0.5)
        assert process.process.poll() is None
        told = time.monotonic()
        process.tell(signal.SIGINT)

        assert process.seconds_until_gone(told) < 1
        assert "not seen to end" in process.log.read_text()
        assert "Exception in ASGI" not in process.log.read_text()
