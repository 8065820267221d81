"""The shapes of traffic that are measured, and what of each."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from .client import Followers, connect, read_burst, run_of
from .servers import Serving

__all__ = ["LINES", "SHAPES", "Figures", "Shape"]

#: Lines of a burst.
LINES: Final = 100_000
#: Seconds of CPU that a serving process should have used before its figure counts; clocks tick every 10 ms.
_ENOUGH: Final = 0.5


@dataclass(frozen=True)
class Figures:
    """What one repetition gave."""

    #: Microseconds of CPU of the serving process for each frame that was delivered.
    cpu_us: float
    #: Lines a second, of one stream that is read as fast as it comes; 0 where the upstream sets the pace.
    rate: float = 0.0
    #: Milliseconds from the upstream's write to the client's read; 0 where nothing is stamped.
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    #: Resident mebibytes of the serving process in the end.
    memory_mib: float = 0.0


@dataclass(frozen=True)
class Shape:
    """One kind of traffic."""

    title: str
    peers: tuple[str, ...]
    #: Measures a peer that runs. The second argument is how much of it: 1 for a whole measurement.
    measure: Callable[[Serving, float], Figures]


def _burst(shape: str) -> Callable[[Serving, float], Figures]:
    def measure(server: Serving, share: float) -> Figures:
        read_burst(server.port, f"/?shape={shape}", LINES)  # warm, and checked once
        before, frames, seconds = server.cpu(), 0, 0.0
        while not frames or server.cpu() - before < _ENOUGH * share:
            seconds += read_burst(server.port, f"/?shape={shape}", LINES)
            frames += LINES
        used = server.cpu() - before
        return Figures(1e6 * used / frames, frames / seconds, memory_mib=server.memory() / 2**20)

    return measure


def _paced(streams: int, seconds: float) -> Callable[[Serving, float], Figures]:
    def measure(server: Serving, share: float) -> Figures:
        with ExitStack() as stack:
            targets = ["/?shape=paced"] * max(1, int(streams * share))
            connections = [stack.enter_context(connect(server.port, target)) for target in targets]
            return _followed(server, connections, seconds * share)

    return measure


def _one_run(viewers: int, seconds: float) -> Callable[[Serving, float], Figures]:
    def measure(server: Serving, share: float) -> Figures:
        with ExitStack() as stack:
            first = stack.enter_context(connect(server.port, "/?shape=paced"))
            run = run_of(first)
            others = [f"/{run}?shape=paced"] * max(1, int(viewers * share) - 1)
            connections = [first, *(stack.enter_context(connect(server.port, target)) for target in others)]
            return _followed(server, connections, seconds * share)

    return measure


def _followed(server: Serving, connections: list[socket.socket], seconds: float) -> Figures:
    followers = Followers(connections)
    followers.settle()
    before = server.cpu()
    paced = followers.follow(max(seconds, 0.5))
    used = server.cpu() - before
    return Figures(
        1e6 * used / max(1, paced.frames),
        p50_ms=paced.percentile(0.5),
        p99_ms=paced.percentile(0.99),
        memory_mib=server.memory() / 2**20,
    )


def warm_up() -> None:
    """Processors change their pace; the first repetition should not pay for that."""
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        pass


ALL: Final = ("bridge", "httpx", "nginx", "node", "passthrough", "tutorial")
SHAPES: Final = {
    "S1": Shape("a burst, one HTTP chunk per line", ALL, _burst("burst")),
    "S2": Shape("a burst, 64 KiB chunks", ("verbatim", *ALL), _burst("chunks")),
    "S3": Shape("300 streams of 20 lines a second", ALL, _paced(300, 5.0)),
    "S4": Shape("1,000 viewers of one run, 20 lines a second", ("bridge",), _one_run(1000, 5.0)),
    "S7": Shape("one stream, a line every 50 ms", ALL, _paced(1, 5.0)),
}
