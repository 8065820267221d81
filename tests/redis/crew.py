"""The workers of one bridge: processes that share a Redis, each on a port of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
import psutil

from tests.redis.keeper import SEAL, Keeper, run_name
from tests.redis.metered import Platform
from tests.redis.switch import Switch
from tests.support.bridge_process import ROOT
from tests.support.programs import end, free_port
from tests.support.waiting import eventually

__all__ = ["LEASE", "NOTICE", "UNKNOWN", "Crew", "MakeCrew", "Worker"]

#: Seconds after which a silent worker counts as dead: two beats.
LEASE: Final = 2.0
#: Seconds by which the others have noticed, and said so: one more beat, and time for two busy cores.
NOTICE: Final = LEASE + 1 + 6

#: The token of a run that never was.
UNKNOWN: Final = "no-run-has-this0"

#: Bytes that the kernel holds for a viewer. By default it would take megabytes before a script has to wait.
_SEND_BUFFER: Final = 64 * 1024


@dataclass(frozen=True, eq=False)
class Worker:
    """One process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """`kill -9`: it cannot say goodbye."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """It stands still until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def enlist(self) -> None:
        """Has it ask for a run: a worker takes part from then on."""
        assert self.ask("GET", f"/{UNKNOWN}").status_code == 404

    def connections(self, port: int) -> int:
        """How many it has open to a port."""
        opened = psutil.Process(self.process.pid).net_connections("tcp")
        return sum(1 for each in opened if each.raddr and each.raddr.port == port and each.status == "ESTABLISHED")

    def ask(self, method: str, path: str = "/", headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
        """The whole response to a request."""
        return httpx.request(method, f"{self.url}/runs{path}", params=query, headers=headers, timeout=30)


class Crew:
    """Workers that share runs, under a prefix of their own.

    Args:
        redis: what they share; `None` for workers that share nothing.
        settings: `options` of the bridge, `policies` by name, and the seconds that a server waits for its requests when
            it stops, `graceful`.
    """

    def __init__(self, platform: Platform, redis: Keeper | None, folder: Path, **settings: Any) -> None:
        self.platform = platform
        self._redis = redis
        self._folder = folder
        self._prefix = f"sse_bridge:{folder.name}:"
        store = None if redis is None else {"url": redis.url, "lease": LEASE, "prefix": self._prefix}
        policies = {"default": ("Block", {}), **settings.get("policies", {})}
        options = {"grace": 20.0, "retry_ms": 50, **settings.get("options", {})}
        self._settings = {
            **platform.settings,
            "store": store,
            "policies": policies,
            "options": options,
            "graceful": settings.get("graceful", 1),
        }
        self._stack = ExitStack()
        self._count = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def hire(self, count: int, through: Switch | None = None) -> Sequence[Worker]:
        """Starts so many workers; they end with the crew.

        Args:
            count: how many.
            through: stands between them and Redis.
        """
        workers = [self._stack.enter_context(self._start(self._environment(through))) for _ in range(count)]
        for worker in workers:
            _await(worker)
        return workers

    def hire_together(self, count: int) -> Worker:
        """Starts so many workers on one port, as `uvicorn --workers` does; they end with the crew."""
        port, log = free_port(), self._folder / "workers.log"
        command = ["uvicorn", "--workers", str(count), "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, "--factory", "tests.redis.app:from_environment"],
                cwd=ROOT,
                env=self._environment(None),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._stack.callback(end, process, 15)
        worker = Worker(f"http://127.0.0.1:{port}", process, log)
        _await(worker)
        return worker

    def _environment(self, through: Switch | None) -> dict[str, str]:
        settings = dict(self._settings)
        if through is not None:
            settings["store"] = {**settings["store"], "url": f"redis://127.0.0.1:{through.port}/0"}
        return {**os.environ, "BRIDGE": json.dumps(settings), "PYTHONPATH": str(ROOT)}

    @contextmanager
    def _start(self, environment: dict[str, str]) -> Iterator[Worker]:
        self._count += 1
        log = self._folder / f"worker-{self._count}.log"
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, log.open("wb") as output:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # its connections inherit it
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.redis.app", str(listener.fileno())],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
            )
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield Worker(url, process, log)
        finally:
            process.send_signal(signal.SIGCONT)
            end(process)
            said = [line for line in log.read_text().splitlines() if "HTTP/1.1" not in line]
            assert not any("a bug in the bridge" in line for line in said), "\n".join(said[:40])

    # -- what stands in Redis

    def stream(self, token: str) -> str:
        """The key of a run's frames."""
        return f"{self._prefix}{{{run_name(token)}}}:s"

    def meta(self, token: str) -> str:
        """The key of what is known of a run beside its frames."""
        return f"{self._prefix}{{{run_name(token)}}}:m"

    def buries(self, token: str) -> bytes | None:
        """The name of the worker that is about to end a dead worker's run."""
        claimed: bytes | None = self._ask("GET", f"{self._prefix}{{{run_name(token)}}}:c")
        return claimed

    def is_sealed(self, token: str) -> bool:
        """Whether a worker other than its owner has ended the run."""
        last = self._ask("XREVRANGE", self.stream(token), "+", "-", "COUNT", 1)
        return bool(last) and last[0][0] == SEAL

    def alive(self) -> set[bytes]:
        """The names of the workers that beat, or whose burial is not over."""
        return set(self._ask("HGETALL", f"{self._prefix}w"))

    def runs(self) -> list[bytes]:
        """The runs whose work another worker may have to end."""
        keys = self._ask("KEYS", f"{self._prefix}w:*:runs")
        return [run for key in keys for run in self._ask("HKEYS", key)]

    def _ask(self, *command: Any) -> Any:
        assert self._redis is not None, "these workers share nothing"
        return self._redis.ask(*command)


#: What the fixture `make_crew` is.
MakeCrew: TypeAlias = Callable[..., Crew]


def _await(worker: Worker) -> None:
    eventually(lambda: worker.process.poll() is not None or _answers(worker.url), 30)
    assert worker.process.poll() is None, worker.log.read_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health").status_code == 200
    except httpx.TransportError:
        return False
