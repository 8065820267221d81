"""The processes of a measurement with a store: workers that share runs, and their Redis."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import psutil
from redis import Redis

from .client import Incorrect
from .leaving import SCRIPT, local_sandbox
from .servers import ALL_CORES, Serving, bound_to, free_port, serving, started

__all__ = ["Crew", "a_redis", "crew", "crew_with_sandbox"]

#: Peers that need no Redis.
_ALONE: Final = ("bridge",)


@dataclass(frozen=True)
class Crew:
    """The worker that reads the runs and, where a peer needs them, a worker that mirrors them, and Redis.

    They share all cores.
    """

    owner: Serving
    mirror: Serving | None
    redis: Serving | None

    @property
    def server(self) -> Serving:
        """The worker that serves the viewers."""
        return self.mirror or self.owner

    def redis_cpu(self) -> float:
        """Seconds of CPU that Redis has used; 0 without one."""
        return 0.0 if self.redis is None else self.redis.cpu()

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A connection to Redis, to look at it."""
        if self.redis is None:
            raise Incorrect("this peer has no Redis")
        with Redis(port=self.redis.port) as client:
            yield client


@contextmanager
def crew(name: str, upstream_url: str, **environment: str) -> Iterator[Crew]:
    """Starts what a peer needs, and ends it with the context.

    Raises:
        FileNotFoundError: Redis is missing.
    """
    with ExitStack() as stack:
        redis = None if name in _ALONE else stack.enter_context(a_redis())
        if redis is not None:
            environment["STORE"] = f"redis://127.0.0.1:{redis.port}/0"
        workers = 2 if name == "mirror" else 1
        one = partial(serving, name, upstream_url, cores=ALL_CORES, **environment)
        started = [stack.enter_context(one()) for _ in range(workers)]
        yield Crew(started[0], started[1] if workers == 2 else None, redis)


@contextmanager
def crew_with_sandbox(name: str, _: str) -> Iterator[Crew]:
    """The same with real processes in a local sandbox: each run prints its process id, then a line every 50 ms."""
    with local_sandbox() as (url, sandbox), crew(name, url, SANDBOX=sandbox, COMMAND=SCRIPT) as workers:
        yield workers


@contextmanager
def a_redis() -> Iterator[Serving]:
    """A Redis that keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed; `make system` as root installs it")
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", directory]
        command = [program, *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=bound_to(ALL_CORES))
        with started(port, process):
            yield Serving("redis", port, psutil.Process(process.pid), "")
