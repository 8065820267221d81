"""The processes of a benchmark: the upstream, and one serving process after another."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Final

import psutil

__all__ = ["ALL_CORES", "PEERS", "Serving", "bound_to", "free_port", "leave_a_core", "serving", "started", "upstream"]

_HERE: Final = Path(__file__).parent
#: Seconds in which a process has to listen.
_START_TIMEOUT: Final = 20.0
#: The cores that the benchmark may use; none where processes cannot be bound to some.
ALL_CORES: Final = frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ())


@dataclass(frozen=True)
class Peer:
    """How to start a peer: an ASGI application on uvicorn, or a program."""

    title: str
    application: str = ""
    program: str = ""
    variant: str = ""
    #: Whether `SSE_BRIDGE_PURE` keeps the C twin out.
    is_pure: bool = False


PEERS: Final = {
    "bridge": Peer("sse_bridge", "benchmarks.peers.bridge:app", variant="typed"),
    "verbatim": Peer("sse_bridge, verbatim", "benchmarks.peers.bridge:app", variant="verbatim"),
    "pure": Peer("sse_bridge without C twin", "benchmarks.peers.bridge:app", variant="typed", is_pure=True),
    "h11": Peer("sse_bridge without [fast]", "benchmarks.peers.bridge:app", variant="h11"),
    "httpx": Peer("sse_bridge, httpx's transport", "benchmarks.peers.bridge:app", variant="httpx"),
    "drop": Peer("sse_bridge, Drop", "benchmarks.peers.bridge:app", variant="drop"),
    "coalesce": Peer("sse_bridge, Coalesce", "benchmarks.peers.bridge:app", variant="coalesce"),
    "coalesce-drop": Peer(
        'sse_bridge, Coalesce(beyond="drop")', "benchmarks.peers.bridge:app", variant="coalesce-drop"
    ),
    "owner": Peer("sse_bridge, shared: at its owner", "benchmarks.peers.bridge:app", variant="typed"),
    "mirror": Peer("sse_bridge, shared: at a mirror", "benchmarks.peers.bridge:app", variant="typed"),
    "per-viewer": Peer("Redis connection per viewer", "benchmarks.peers.per_viewer:app"),
    "nginx": Peer("nginx, passing through", program="nginx"),
    "node": Peer("Node handler", program="node"),
    "passthrough": Peer("ASGI pass-through, httpx", "benchmarks.peers.passthrough:app"),
    "sse-starlette": Peer("httpx-sse, sse-starlette", "benchmarks.peers.sse_starlette_response:app"),
    "fastapi": Peer("httpx-sse, FastAPI's events", "benchmarks.peers.fastapi_events:app"),
    "litestar": Peer("httpx-sse, Litestar's events", "benchmarks.peers.litestar_events:app"),
    "traced": Peer("sse_bridge, its memory traced", "benchmarks.peers.traced:app", variant="typed"),
    "tutorial": Peer("the tutorial's pattern", "benchmarks.peers.tutorial:app"),
}


@dataclass(frozen=True)
class Serving:
    """A running peer."""

    name: str
    port: int
    process: psutil.Process
    #: The URL of its upstream.
    upstream: str

    def family(self) -> list[psutil.Process]:
        """The process and its children."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of CPU that the family has used, user and system."""
        return sum(map(_cpu, self.family()))

    def memory(self) -> int:
        """Resident bytes of the family."""
        return sum(int(one.memory_info().rss) for one in self.family())


def _cpu(process: psutil.Process) -> float:
    """Seconds of CPU of all threads of a process, by its CPU clock on Linux; elsewhere in ticks of 10 ms."""
    try:
        return time.clock_gettime(~process.pid << 3 | 2)  # what clock_getcpuclockid(3) returns
    except OSError:
        return sum(process.cpu_times()[:2])


def leave_a_core() -> None:
    """Leaves a core to the serving process, given two. This process and those that it starts get the others.

    Otherwise the upstream and the client would run on the peer's core now and then, and would keep it waiting. A line
    of S3 would take twice as long, and the cost of it would depend on where the kernel put whom.
    """
    if len(ALL_CORES) > 1:
        os.sched_setaffinity(0, ALL_CORES - _serving_core())


def bound_to(cores: frozenset[int]) -> Callable[[], None] | None:
    """What a child does first to run on these cores alone (`preexec_fn`), if this process has left one."""
    is_left = bool(ALL_CORES) and os.sched_getaffinity(0) != ALL_CORES
    return partial(os.sched_setaffinity, 0, cores) if is_left else None


def _serving_core() -> frozenset[int]:
    return frozenset(sorted(ALL_CORES)[:1])


@contextmanager
def upstream(lines: int) -> Iterator[str]:
    """Starts the upstream in its own process; yields its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=8192) as listener:
        port = listener.getsockname()[1]
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "benchmarks.upstream", "--fd", str(listener.fileno()), "--lines", str(lines)]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
    with started(port, process):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def serving(
    name: str, upstream_url: str, *, cores: frozenset[int] | None = None, **environment: str
) -> Iterator[Serving]:
    """Starts a peer in its own process, and ends it with the context.

    Args:
        cores: that it runs on; `None` for the one that `leave_a_core` has left.
        environment: variables that it gets.

    Raises:
        FileNotFoundError: its program is missing.
    """
    peer, port = PEERS[name], free_port()
    own = {"UPSTREAM": upstream_url, "PORT": str(port), "VARIANT": peer.variant}
    own["SSE_BRIDGE_PURE"] = "1" if peer.is_pure else "0"
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("w+b") as log:
        command = _command(peer, port, upstream_url, Path(directory))
        process = subprocess.Popen(
            command,
            env={**os.environ, **own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=bound_to(cores or _serving_core()),
        )
        with started(port, process, Path(log.name)):
            yield Serving(name, port, psutil.Process(process.pid), upstream_url)


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def started(port: int, process: subprocess.Popen[bytes], log: Path | None = None) -> Iterator[None]:
    """Waits until a process listens on `port`; ends the process with the context.

    Raises:
        RuntimeError: it ended, or listened too late. The message includes its log.
    """
    with _ended(process):
        try:
            _wait_for(port, process)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{log.read_text()}" if log else str(error)) from None
        yield


def _command(peer: Peer, port: int, upstream_url: str, directory: Path) -> list[str]:
    if not peer.program:
        options = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        options += ["--backlog", "8192"]
        quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
        return [sys.executable, "-m", "uvicorn", peer.application, *options, *quiet]
    path = shutil.which(peer.program)
    if path is None:
        raise FileNotFoundError(f"{peer.program} is not installed; `make system` as root installs it")
    if peer.program == "node":
        return [path, str(_HERE / "peers" / "handler.mjs")]
    template = Template((_HERE / "peers" / "nginx.conf").read_text())
    configuration = directory / "nginx.conf"
    configuration.write_text(template.substitute(port=port, upstream=upstream_url, directory=directory))
    return [path, "-c", str(configuration), "-p", str(directory), "-e", "stderr"]


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(1)  # uvicorn would wait for open streams
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the process did not listen in time: {process.args!r}")
