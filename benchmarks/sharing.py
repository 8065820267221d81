"""Runs that two workers share through Redis: what that costs the owner, the mirroring worker, and Redis, and how late
lines are."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import psutil

from .client import Followers, connect, read_burst, run_of
from .figures import Figures
from .servers import Serving, free_port, serving, started
from .upstream import lines_of

__all__ = ["shared_burst", "shared_paced"]

#: Seconds of CPU that the owner has to use before a figure counts.
_LEAST_CPU: Final = 0.5


def shared_paced(streams: int, seconds: float) -> Callable[[Serving, float], Figures]:
    """`streams` runs with one viewer each: on their owner, or on the mirroring worker if the peer is `mirror`."""

    def measure(server: Serving, share: float) -> Figures:
        with _crew(server) as crew, ExitStack() as stack:
            firsts = [
                stack.enter_context(connect(crew.owner.port, "/?shape=paced"))
                for _ in range(max(1, int(streams * share)))
            ]
            viewers = firsts
            if server.name == "mirror":
                runs = [run_of(first) for first in firsts]
                viewers = [stack.enter_context(connect(crew.other.port, f"/{run}?shape=paced")) for run in runs]
                for first in firsts:
                    first.close()
            followers = Followers(viewers)
            followers.settle()
            before = crew.cpu()
            paced = followers.follow(max(0.5, seconds * share))
            figures = crew.each(before, paced.frames)
        return {**figures, "p50_ms": paced.percentile(0.5), "p99_ms": paced.percentile(0.99)}

    return measure


def shared_burst(lines: int) -> Callable[[Serving, float], Figures]:
    """A burst in 64 KiB chunks, to a viewer of its owner."""

    def measure(server: Serving, share: float) -> Figures:
        with _crew(server) as crew:
            texts, target = lines_of("chunks", lines), "/?shape=chunks"
            read_burst(crew.owner.port, target, texts)  # warms up
            before, frames = crew.cpu(), 0
            while not frames or crew.cpu()[0] - before[0] < _LEAST_CPU * share:
                read_burst(crew.owner.port, target, texts)
                frames += lines
            return crew.each(before, frames)

    return measure


class _Crew:
    """An owner, a mirroring worker, and their Redis."""

    def __init__(self, owner: Serving, other: Serving, redis: Serving) -> None:
        self.owner = owner
        self.other = other
        self._redis = redis

    def cpu(self) -> tuple[float, float, float]:
        """Seconds of CPU that each has used."""
        return self.owner.cpu(), self.other.cpu(), self._redis.cpu()

    def each(self, before: tuple[float, float, float], lines: int) -> Figures:
        """CPU a line of each since `before`."""
        names = ("cpu_us", "mirror_us", "redis_us")
        used = zip(names, before, self.cpu(), strict=True)
        return {name: 1e6 * (now - then) / max(1, lines) for name, then, now in used}


@contextmanager
def _crew(server: Serving) -> Iterator[_Crew]:
    """Two workers beside the given one, which idles: with a store, unless the peer is `bridge`."""
    with _redis() as (url, redis), ExitStack() as stack:
        store = {} if server.name == "bridge" else {"STORE": url}
        owner, other = (stack.enter_context(serving(server.name, server.upstream, **store)) for _ in range(2))
        yield _Crew(owner, other, redis)


@contextmanager
def _redis() -> Iterator[tuple[str, Serving]]:
    """Starts Redis; yields its URL, and its process."""
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed; `make system` as root installs it")
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", directory]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        with started(port, process):
            yield f"redis://127.0.0.1:{port}/0", Serving("redis", port, psutil.Process(process.pid), "")
