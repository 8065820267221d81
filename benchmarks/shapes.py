"""The shapes of traffic, and how each is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Final

from .client import Followers, connect, read_burst, run_of
from .crews import Crew, crew, crew_with_sandbox
from .figures import Figures
from .idle import idle
from .lasting import owner_dies, shared_idle
from .leaving import leaves, process_ends
from .servers import Serving, serving
from .sharing import shared_burst, shared_paced, shared_past
from .stalled import stalled
from .upstream import PACED, SLOW, Rhythm, lines_of

__all__ = ["GROWTH", "LINES", "SHAPES", "Shape"]

#: Lines of a burst.
LINES: Final = 100_000
#: Seconds of CPU that a serving process has to use before its figure counts.
_LEAST_CPU: Final = 0.5

Measure = Callable[[Serving, float], Figures]


@dataclass(frozen=True)
class Shape:
    """One kind of traffic."""

    title: str
    peers: tuple[str, ...]
    #: Measures a running peer. The second argument is the share of a whole measurement to take.
    measure: Callable[[Any, float], Figures]
    #: Most repetitions, for shapes that take long or repeat internally.
    most: int = 100
    #: Starts a peer for it, given its name and the upstream's URL.
    serve: Callable[[str, str], AbstractContextManager[Any]] = serving
    #: Measurements in each repetition, for shapes whose figures differ much from process to process.
    each: int = 1


def _burst(shape: str) -> Measure:
    def measure(server: Serving, share: float) -> Figures:
        texts = lines_of(shape, LINES)
        read_burst(server.port, f"/?shape={shape}", texts)  # warms up
        before, frames, seconds = server.cpu(), 0, 0.0
        while not frames or server.cpu() - before < _LEAST_CPU * share:
            seconds += read_burst(server.port, f"/?shape={shape}", texts)
            frames += len(texts)
        used = server.cpu() - before
        return {"cpu_us": 1e6 * used / frames, "rate": frames / seconds, "memory_mib": server.memory() / 2**20}

    return measure


def _paced(streams: int, seconds: float) -> Measure:
    def measure(server: Serving, share: float) -> Figures:
        with ExitStack() as stack:
            targets = ["/?shape=paced"] * max(1, int(streams * share))
            connections = [stack.enter_context(connect(server.port, target)) for target in targets]
            return _followed(server, Followers(connections), seconds * share)

    return measure


def _one_run(viewers: int, seconds: float, rhythm: Rhythm = PACED) -> Measure:
    def measure(server: Serving, share: float) -> Figures:
        with ExitStack() as stack:
            first = stack.enter_context(connect(server.port, f"/?shape={rhythm.shape}"))
            run = run_of(first)
            others = [f"/{run}?shape={rhythm.shape}"] * max(0, int(viewers * share) - 1)
            connections = [first, *(stack.enter_context(connect(server.port, target)) for target in others)]
            return _followed(server, Followers(connections, rhythm), max(seconds * share, rhythm.interval))

    return measure


def _followed(server: Serving, followers: Followers, seconds: float) -> Figures:
    followers.settle()
    before = server.cpu()
    paced = followers.follow(max(seconds, 0.5))
    used = server.cpu() - before
    return {
        "cpu_us": 1e6 * used / max(1, paced.frames),
        "p50_ms": paced.percentile(0.5),
        "p99_ms": paced.percentile(0.99),
        "memory_mib": server.memory() / 2**20,
    }


def warm_up() -> None:
    """Keeps the processor busy until its clock is up, which the first repetition would otherwise pay for."""
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        pass


def _shared(title: str, peers: tuple[str, ...], measure: Callable[[Crew, float], Figures], most: int = 100) -> Shape:
    return Shape(title, peers, measure, most, crew)


FRAMEWORKS: Final = ("sse-starlette", "fastapi", "litestar", "tutorial")
ALL: Final = ("bridge", "pure", "h11", "httpx", "nginx", "node", "passthrough", *FRAMEWORKS)
SOME: Final = ("bridge", "nginx", "node", "passthrough", "tutorial")
MIXED: Final = ("bridge", "pure", "nginx", "node", "tutorial")
#: Without the tutorial's pattern, which needs a client of 900 KB for each stream.
MANY: Final = ("bridge", "nginx", "node", "passthrough", "sse-starlette", "fastapi", "litestar")
SHAPES: Final = {
    "S1": Shape("a burst, one HTTP chunk per line", ALL, _burst("burst")),
    "S2": Shape("a burst, 64 KiB chunks", ("verbatim", *ALL), _burst("chunks")),
    "S1m": Shape("S1 with every tenth line on stderr", MIXED, _burst("burst-mixed")),
    "S2m": Shape("S2 with every tenth line on stderr", MIXED, _burst("chunks-mixed")),
    "S3": Shape("300 streams of 20 lines a second", ALL, _paced(300, 5.0), each=2),
    "S4": Shape("1,000 viewers of one run, 20 lines a second", ("bridge",), _one_run(1000, 5.0), each=3),
    "S4x": Shape("5,000 viewers of one run, a line a second", ("bridge",), _one_run(5000, 10.0, SLOW)),
    "S5": Shape(
        "1 GB at a viewer that takes nothing for 3 s",
        ("bridge", "drop", "coalesce", "coalesce-drop", "nginx", "node", "passthrough"),
        stalled(100),
        most=1,
    ),
    "S6": Shape("a viewer leaves: until its upstream is closed", ALL, leaves(50), most=1),
    "S6x": Shape("a viewer leaves: until its process is gone", ("bridge",), process_ends(20), most=1),
    "S7": Shape("one stream, a line every 50 ms", ALL, _paced(1, 5.0)),
    "S8": Shape("5,000 idle streams, each with its own upstream", MANY, idle(5000, 40.0, shared=False), most=1),
    "S8x": Shape("5,000 idle viewers of one run", ("bridge",), idle(5000, 40.0, shared=True), most=1),
    "S9": Shape("a burst of lines of 10 KB, one HTTP chunk each", SOME, _burst("length-10000")),
    "S9x": Shape("a burst with CRLF line ends, one HTTP chunk per line", SOME, _burst("crlf")),
    "R1": _shared("a shared run, a line every 50 ms", ("owner", "mirror"), shared_paced(1, 1, 10.0)),
    "R2": _shared("300 shared runs of 20 lines a second", ("bridge", "owner", "mirror"), shared_paced(300, 1, 5.0)),
    "R3": _shared("a shared burst, 64 KiB chunks", ("bridge", "owner"), shared_burst(LINES)),
    "R4": _shared("1,000 viewers of a shared run", ("bridge", "mirror"), shared_paced(1, 1000, 5.0)),
    "R5": _shared("a shared run of 8 MiB, asked for at its end", ("mirror",), shared_past(5), most=1),
    "R6": _shared("10 shared runs with 50 viewers each", ("mirror", "per-viewer"), shared_paced(10, 50, 5.0)),
    "R7": _shared("100 idle shared runs", ("owner", "mirror"), shared_idle(100, 60.0), most=1),
    "R8": Shape("the owner of a shared run is killed", ("mirror",), owner_dies, serve=crew_with_sandbox),
}
#: Curves of growing cost: by name, the shapes for each number of streams, viewers or bytes.
GROWTH: Final = {
    "streams": {
        count: Shape(f"{count} streams", ("bridge", "node", "nginx"), _paced(count, 3.0))
        for count in (1, 3, 10, 30, 100, 300, 1000)
    },
    "viewers": {
        count: Shape(f"{count} viewers of one run", ("bridge",), _one_run(count, 3.0))
        for count in (1, 3, 10, 30, 100, 300, 1000, 2000)
    },
    "length": {
        length: Shape(f"lines of {length} bytes", ("bridge", "node", "nginx"), _burst(f"length-{length}"))
        for length in (20, 100, 500, 2000, 8000, 32_000, 64_000)
    },
}
