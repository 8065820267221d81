"""Servers that stop without a signal, or stop one of their processes only, while a stream is open.

The fault: a way to stop that the bridge did not hear of, so that the server waited for its streams without limit, or
killed them with their commands running on. Ways to stop are those that each server offers on its command line.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_stop import Viewer, assert_clean
from tests.support.command_lines import ServerProcess, server_process
from tests.support.sandboxes import LocalSandbox, running
from tests.support.waiting import eventually

#: Requests after which a server recycles its process. The test asks a few of its own before.
MAX_REQUESTS = "30"
#: What a test asks at most until its viewer's process is recycled.
MOST_REQUESTS = 5000
#: Seconds from the stop of a process to its successor's first answer, with `cancel_timeout` at 2: the bound of a stop,
#: and what the slowest server takes to start.
PROMPT = 4.0 + 4.0


@dataclass
class Way:
    """A way to stop."""

    server: str
    arguments: list[str]
    #: Makes the server stop.
    begin: Callable[[ServerProcess, Path, Viewer], None]
    #: Whether another process takes over.
    is_recycled: bool = True


def many_requests(server: ServerProcess, folder: Path, viewer: Viewer) -> None:
    """Asks, each time on a connection of its own, until the process that serves the viewer has had its share.

    The kernel hands most connections to one of two workers, and it may be the other one.
    """
    with httpx.Client(base_url=server.url, headers={"Connection": "close"}) as client:
        for _ in range(MOST_REQUESTS):
            with suppress(httpx.TransportError):
                client.get("/health")
            if viewer.is_done():
                return


def touch(server: ServerProcess, folder: Path, viewer: Viewer) -> None:
    """Saves a file that the server watches."""
    later = time.time() + 1
    os.utime(folder / "watched.py", (later, later))


def hang_up(server: ServerProcess, folder: Path, viewer: Viewer) -> None:
    server.process.send_signal(signal.SIGHUP)


WAYS = {
    "uvicorn-limit": Way("uvicorn", ["--limit-max-requests", MAX_REQUESTS], many_requests, is_recycled=False),
    "uvicorn-limit-uvloop": Way(
        "uvicorn", ["--limit-max-requests", MAX_REQUESTS, "--loop", "uvloop"], many_requests, is_recycled=False
    ),
    "uvicorn-limit-workers": Way("uvicorn", ["--limit-max-requests", MAX_REQUESTS, "--workers", "2"], many_requests),
    "uvicorn-reload": Way("uvicorn", ["--reload", "--reload-dir", "{folder}"], touch),
    "gunicorn-uvicorn-max": Way("gunicorn-uvicorn", ["--max-requests", MAX_REQUESTS], many_requests),
    "gunicorn-uvicorn-hup": Way("gunicorn-uvicorn", [], hang_up),
    "gunicorn-max": Way("gunicorn", ["--max-requests", MAX_REQUESTS], many_requests),
    "hypercorn-max": Way("hypercorn", ["--max-requests", MAX_REQUESTS], many_requests),
    "hypercorn-trio-max": Way("hypercorn-trio", ["--max-requests", MAX_REQUESTS], many_requests),
    "hypercorn-hup": Way("hypercorn", [], hang_up),
    "granian-hup": Way("granian", [], hang_up),
}


#: Those of them that `make test` tries.
QUICK = ["uvicorn-limit", "uvicorn-reload", "gunicorn-uvicorn-max"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in WAYS]
)
def test_a_process_that_is_recycled_ends_its_streams(
    name: str, sandbox: LocalSandbox, mark: str, tmp_path: Path
) -> None:
    """Viewers are told, the command is ended, and the next process answers soon."""
    way = WAYS[name]
    settings: dict[str, Any] = {
        **sandbox.settings,
        "commands": {"idle": f"sleep {mark}"},
        "options": {"cancel_timeout": 2.0},
    }
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "watched.py").touch()
    arguments = [argument.format(folder=watched) for argument in way.arguments]
    with server_process(way.server, tmp_path, arguments=arguments, **settings) as server:
        viewer = Viewer(server, "idle")
        eventually(lambda: running(mark) and viewer.is_ready())
        way.begin(server, watched, viewer)
        began = time.monotonic()
        viewer.check()
        if way.is_recycled:
            eventually(server.answers, 20)
            assert server.process.poll() is None
        else:
            server.wait_until_gone()
        assert time.monotonic() - began < PROMPT
        eventually(lambda: not running(mark), 2)
        server.tell(signal.SIGTERM)
        server.wait_until_gone()
    assert_clean(server.log.read_text())
