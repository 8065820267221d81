"""Stopping a server of several processes, one of which streams: its neighbours, which are idle, end at once.

The fault: a server that ends a process which still stops, because another one is done. hypercorn sends its busy worker
a SIGTERM as soon as the first one has ended, and ends the process in the midst of ending the command.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.test_stop import CANCEL_TIMEOUT, STOP_BOUND, Viewer, assert_clean
from tests.support.command_lines import server_process
from tests.support.distance import distant
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.waiting import eventually

#: Seconds that a packet takes to the sandbox.
LATENCY = 0.05
#: The same for a sandbox that takes longer to end a command than gunicorn's worker takes to end.
FAR = 0.5

#: Seconds after which granian kills a worker. An idle one may hang that got two signals, as Ctrl-C sends them (2.8).
KILL_TIMEOUT = 5
_KILL = ["--workers-kill-timeout", str(KILL_TIMEOUT)]

#: What a worker says when it listens, of servers whose workers forget a signal that comes before (gunicorn 27.0.1,
#: granian 2.8.9).
_STARTED = {"gunicorn": "ASGI server listening", "granian": "Started worker-"}


@pytest.mark.parametrize(
    ("server", "number"),
    [
        ("hypercorn", signal.SIGTERM),
        *(
            pytest.param(server, number, marks=pytest.mark.slow)
            for server in ("hypercorn", "hypercorn-trio", "uvicorn", "granian", "gunicorn", "gunicorn-uvicorn")
            for number in (signal.SIGTERM, signal.SIGINT)
            if (server, number) != ("hypercorn", signal.SIGTERM)
        ),
    ],
)
@pytest.mark.parametrize("has_viewer", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_no_worker_is_ended_in_the_midst_of_its_stop(
    server: str, number: signal.Signals, has_viewer: bool, sandbox: LocalSandbox, tmp_path: Path
) -> None:
    """Its viewers are told, and its commands are ended, although the sandbox is far away."""
    mark = new_mark()
    port = int(sandbox.url.rpartition(":")[2])
    with distant(port, LATENCY, tmp_path) as far:
        settings: dict[str, Any] = {
            **sandbox.settings,
            "url": far.url,
            "commands": {"idle": f"sleep {mark}"},
            "options": {"cancel_timeout": CANCEL_TIMEOUT, "grace": None},
        }
        arguments = ["--workers", "3", *(_KILL if server == "granian" else [])]
        with server_process(server, tmp_path, arguments=arguments, environment=far.environment, **settings) as process:
            viewer = Viewer(process, "idle", leaves=not has_viewer)
            eventually(lambda: running(mark) and viewer.is_ready())
            if server in _STARTED:
                eventually(lambda: process.log.read_text().count(_STARTED[server]) == 3)
            process.tell(number)
            seconds = process.seconds_until_gone(time.monotonic())
            left = running(mark)
    assert not left
    assert seconds < STOP_BOUND + (KILL_TIMEOUT if server == "granian" else 0)
    if has_viewer:
        viewer.check()
    assert_clean(process.log.read_text())


@pytest.mark.parametrize(
    "server",
    [
        "hypercorn",
        pytest.param("hypercorn-trio", marks=pytest.mark.slow),
        pytest.param("gunicorn-uvicorn", marks=pytest.mark.slow),
        pytest.param("gunicorn", marks=pytest.mark.slow),
        pytest.param("granian", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_told_to_end_alone_ends_its_streams_first(
    server: str, sandbox: LocalSandbox, tmp_path: Path
) -> None:
    """An operator, or a program that watches memory, ends one process of a server."""
    mark = new_mark()
    settings: dict[str, Any] = {
        **sandbox.settings,
        "commands": {"idle": f"sleep {mark}"},
        "options": {"cancel_timeout": CANCEL_TIMEOUT},
    }
    with server_process(server, tmp_path, **settings) as process:
        viewer = Viewer(process, "idle")
        eventually(lambda: running(mark) and viewer.is_ready())
        for worker in psutil.Process(process.process.pid).children():
            if "resource_tracker" not in " ".join(worker.cmdline()):
                worker.send_signal(signal.SIGTERM)
        viewer.check()
        eventually(lambda: not running(mark), 2)


@pytest.mark.parametrize(
    ("server", "number"),
    [
        ("gunicorn-uvicorn", signal.SIGQUIT),
        pytest.param("gunicorn", signal.SIGQUIT, marks=pytest.mark.slow),
        pytest.param("gunicorn", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("has_viewer", [True, False])
def test_gunicorns_quick_stop_ends_the_commands(
    server: str, number: signal.Signals, has_viewer: bool, sandbox: LocalSandbox, tmp_path: Path
) -> None:
    """It is SIGQUIT, or Ctrl-C, which its parent makes a SIGQUIT.

    The uvicorn worker does nothing for it, until the parent kills it after half a minute.
    """
    mark = new_mark()
    settings: dict[str, Any] = {
        **sandbox.settings,
        "commands": {"idle": f"sleep {mark}"},
        "options": {"cancel_timeout": CANCEL_TIMEOUT, "grace": None},
    }
    with server_process(server, tmp_path, **settings) as process:
        viewer = Viewer(process, "idle", leaves=not has_viewer)
        eventually(lambda: running(mark) and viewer.is_ready())
        process.tell(number)
        eventually(lambda: not running(mark), STOP_BOUND)
        if has_viewer:
            viewer.check()


@pytest.mark.slow
def test_a_quick_stop_of_gunicorns_worker_waits_for_a_sandbox_that_is_far_away(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    """By itself the worker ends a second after it has cancelled its requests, in the midst of ending the command."""
    mark = new_mark()
    port = int(sandbox.url.rpartition(":")[2])
    with distant(port, FAR, tmp_path) as far:
        settings: dict[str, Any] = {
            **sandbox.settings,
            "url": far.url,
            "commands": {"idle": f"sleep {mark}"},
            "options": {"cancel_timeout": 20.0},
        }
        with server_process("gunicorn", tmp_path, environment=far.environment, **settings) as process:
            viewer = Viewer(process, "idle")
            eventually(lambda: running(mark) and viewer.is_ready())
            process.tell(signal.SIGINT)
            process.wait_until_gone()
            left = running(mark)
    assert not left
    viewer.check()
    assert_clean(process.log.read_text())
