"""Servers as a user starts them: by their command lines, with default settings, each in its own process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.support.programs import free_port
from tests.support.waiting import eventually

__all__ = ["ServerProcess", "served_by", "server_process"]

ROOT: Final = Path(__file__).parents[2]
_APP: Final = "tests.support.stopping_app:app"
_COMMANDS: Final = {
    "uvicorn": ["uvicorn", _APP, "--host", "127.0.0.1", "--port", "{port}"],
    "hypercorn": ["hypercorn", _APP, "--bind", "127.0.0.1:{port}"],
    "hypercorn-trio": ["hypercorn", _APP, "--bind", "127.0.0.1:{port}", "--worker-class", "trio"],
    "granian": ["granian", _APP, "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"],
    "daphne": ["daphne", _APP, "--bind", "127.0.0.1", "--port", "{port}"],
    "gunicorn": ["gunicorn", _APP, "--worker-class", "asgi", "--bind", "127.0.0.1:{port}"],
    "gunicorn-uvicorn": [
        *("gunicorn", _APP, "--worker-class", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:{port}")
    ],
}


@dataclass(frozen=True)
class ServerProcess:
    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def answers(self) -> bool:
        """Whether the server takes a request, which counts for those that end after a number of them."""
        try:
            return httpx.get(self.url + "/health").status_code == 200
        except httpx.TransportError:
            return False

    def tell(self, number: signal.Signals) -> None:
        """Sends SIGTERM to the server, as a service manager does, or SIGINT to its whole group, as Ctrl-C does."""
        if number is signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def wait_until_gone(self, timeout: float = 20.0) -> None:
        """Waits for the end of the server and all of its processes."""
        self.process.wait(timeout)
        eventually(lambda: not self.has_processes(), timeout)

    def seconds_until_gone(self, since: float) -> float:
        """Waits for the end of all processes; returns the seconds since a time of the monotonic clock."""
        self.wait_until_gone()
        return time.monotonic() - since

    def has_processes(self) -> bool:
        """Whether a process of the server's group is alive."""
        return any(_is_in_group(process, self.process.pid) for process in psutil.process_iter())


def _is_in_group(process: psutil.Process, group: int) -> bool:
    """Zombies count as ended: their parent may reap them late."""
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False


@contextmanager
def server_process(
    server: str,
    tmp_path: Path,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[ServerProcess]:
    """Serves `tests.support.stopping_app` until the context ends.

    Args:
        server: a key of `_COMMANDS`.
        arguments: more of its command line.
        environment: more of its environment.
        settings: `url`, `key`, `sandbox`, `commands` by their names, `options` of the bridge.
    """
    command = [*_COMMANDS[server], *arguments]
    log = tmp_path / f"{server}.log"
    with served_by(command, log, settings, ServerProcess.answers, environment=environment) as served:
        yield served


@contextmanager
def served_by(
    command: Sequence[str],
    log: Path,
    settings: dict[str, Any],
    is_up: Callable[[ServerProcess], bool],
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Runs a module with arguments, in which `{port}` stands for a free port, until the context ends.

    Args:
        command: the module and its arguments.
        log: what the process prints.
        settings: the process finds them in `BRIDGE`, as JSON.
        is_up: whether the server serves.
        environment: more of its environment.
    """
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            cwd=ROOT,
            env={**os.environ, "BRIDGE": json.dumps(settings), "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    served = ServerProcess(f"http://127.0.0.1:{port}", port, process, log)
    try:
        eventually(lambda: process.poll() is not None or is_up(served), 20)
        assert process.poll() is None, log.read_text()
        yield served
    finally:
        if served.has_processes():
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
