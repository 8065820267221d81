"""A viewer leaves: how long its upstream stays open, and how long its command runs on."""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .client import Incorrect, connect
from .figures import Figures
from .servers import Serving, free_port, serving, started

__all__ = ["SCRIPT", "end_of", "first_line", "leaves", "local_sandbox", "process_ends"]

#: Seconds in which an upstream's connection has to be closed, and a process has to end.
_TIMEOUT: Final = 3.0
_KEY: Final = "msk_bench_key"
_LINE: Final = re.compile(rb'"line": ?"([^"]*)"')
#: Prints its process id, and then a line every 50 ms until it is killed.
SCRIPT: Final = 'exec python3 -uc "import os, time; print(os.getpid())\nwhile True: time.sleep(0.05); print(0)"'


def leaves(viewers: int) -> Callable[[Serving, float], Figures]:
    """`viewers` in turn, each of which leaves after its first line."""

    def measure(server: Serving, share: float) -> Figures:
        _closings(server.upstream)
        took = []
        for _ in range(max(3, int(viewers * share))):
            with connect(server.port, "/?shape=paced") as connection:
                first_line(connection)
                left_at = time.monotonic_ns()
            took.append((_closing_after(server.upstream, left_at) - left_at) / 1e6)
        return {"closed_ms": statistics.median(took), "closed_max_ms": max(took)}

    return measure


def _closing_after(upstream: str, left_at: int) -> int:
    give_up = time.monotonic() + _TIMEOUT
    while time.monotonic() < give_up:
        for closed_at in _closings(upstream):
            if closed_at >= left_at:
                return closed_at
        time.sleep(0.002)
    raise Incorrect(f"the upstream was still open {_TIMEOUT:.0f} s after the viewer had left")


def _closings(upstream: str) -> list[int]:
    """When the upstream's paced streams were closed, in nanoseconds of the clock that all processes share."""
    with urllib.request.urlopen(f"{upstream}/closings", timeout=_TIMEOUT) as answer:
        closings: list[int] = json.load(answer)["data"]
    return closings


def process_ends(viewers: int) -> Callable[[Serving, float], Figures]:
    """As `leaves`, with real processes in a local sandbox, on a server started for this measurement."""

    def measure(server: Serving, share: float) -> Figures:
        with local_sandbox() as (url, sandbox), serving(server.name, url, SANDBOX=sandbox, COMMAND=SCRIPT) as bridge:
            took = []
            for _ in range(max(3, int(viewers * share))):
                with connect(bridge.port, "/?shape=process") as connection:
                    process = int(first_line(connection))
                    left_at = time.monotonic()
                took.append(1000 * (end_of(process) - left_at))
            return {"gone_ms": statistics.median(took), "gone_max_ms": max(took)}

    return measure


def first_line(connection: socket.socket) -> bytes:
    """Reads up to the first line, and returns it."""
    read = b""
    while (found := _LINE.search(read)) is None:
        piece = connection.recv(4096)
        if not piece:
            raise Incorrect("the stream ended before its first line")
        read += piece
    return found[1]


def end_of(process: int, timeout: float = _TIMEOUT) -> float:
    """When a process was gone, to the millisecond."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return time.monotonic()
        time.sleep(0.001)
    raise Incorrect(f"the process was still there after {timeout:.0f} s")


@contextmanager
def local_sandbox() -> Iterator[tuple[str, str]]:
    """Serves the local sandbox's API; yields its URL, and the id of a sandbox in it."""
    port = free_port()
    command = [sys.executable, "-m", "sse_bridge", "sandbox", "--port", str(port), "--key", _KEY]
    with started(port, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)):
        url = f"http://127.0.0.1:{port}"
        request = urllib.request.Request(f"{url}/api/v1/sandboxes", b"{}", {"Authorization": f"Bearer {_KEY}"})
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            yield url, json.load(answer)["data"]["id"]
