"""What a line costs, beside what people would use instead, in one run.

    python -m benchmarks [--shape S1 ...] [--peer node ...] [--quick] [--json FILE]

Every peer runs in a process of its own, one after the other in each repetition, with an upstream and a client that are
not the bottleneck in two more. CPU time is what the operating system says of the serving process; a peer that does
not deliver all lines in order, and the exit, has no figure. Shown are medians of the repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from .client import Incorrect
from .servers import PEERS, serving, upstream
from .shapes import LINES, SHAPES, Figures, warm_up

Medians = dict[str, Figures]


class Target(NamedTuple):
    """Something that is to be reached, as a ratio (or a difference) of two figures of the same run."""

    shape: str
    title: str
    bound: float
    of: Callable[[Medians], float]
    #: Whether the bound is what may not be overstepped; else it is the least.
    at_most: bool = False

    def is_reached(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound


def _cpu(one: str, other: str) -> Callable[[Medians], float]:
    return lambda medians: medians[one].cpu_us / medians[other].cpu_us


TARGETS: Final = [
    Target("S1", "CPU, the tutorial's pattern / ours", 40, _cpu("tutorial", "bridge")),
    Target("S1", "CPU, Node / ours", 5, _cpu("node", "bridge")),
    Target("S1", "CPU, ours / nginx", 2.5, _cpu("bridge", "nginx"), at_most=True),
    Target("S1", "CPU, the tutorial's pattern / ours without [fast]", 3, _cpu("tutorial", "httpx")),
    Target("S2", "CPU, the tutorial's pattern / ours", 25, _cpu("tutorial", "bridge")),
    Target("S2", "CPU, Node / ours", 5, _cpu("node", "bridge")),
    Target("S2", "CPU, ours / nginx", 2.5, _cpu("bridge", "nginx"), at_most=True),
    Target("S2", "CPU, ours verbatim / nginx", 2, _cpu("verbatim", "nginx"), at_most=True),
    Target("S3", "CPU, ours / Node", 1.1, _cpu("bridge", "node"), at_most=True),
    Target("S3", "CPU, ours / the tutorial's pattern", 0.3, _cpu("bridge", "tutorial"), at_most=True),
    Target("S3", "p99, ours / nginx", 3, lambda of: of["bridge"].p99_ms / of["nginx"].p99_ms, at_most=True),
    Target("S7", "p99, ours - nginx, ms", 1, lambda of: of["bridge"].p99_ms - of["nginx"].p99_ms, at_most=True),
]


def measure(shapes: list[str], peers: list[str], repeat: int, share: float) -> dict[str, dict[str, list[Figures]]]:
    """All repetitions, by shape and peer; a peer that failed has none."""
    results: dict[str, dict[str, list[Figures]]] = {}
    with upstream(LINES) as url:
        for name in shapes:
            shape = SHAPES[name]
            wanted = [peer for peer in shape.peers if not peers or peer in peers]
            results[name] = {peer: [] for peer in wanted}
            failed: set[str] = set()
            for turn in range(repeat):
                for peer in wanted:
                    if peer in failed:
                        continue
                    _say(f"{name} {turn + 1}/{repeat} {PEERS[peer].title}")
                    warm_up()
                    try:
                        with serving(peer, url) as server:
                            results[name][peer].append(shape.measure(server, share))
                    except (Incorrect, FileNotFoundError, RuntimeError, OSError) as error:
                        failed.add(peer)
                        results[name][peer] = []
                        _say(f"{name} {PEERS[peer].title} has no figure: {error}\n")
    _say("")
    return results


def _say(text: str) -> None:
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)


def medians(results: dict[str, list[Figures]]) -> Medians:
    """The median of each figure, for peers that have any."""
    return {
        peer: Figures(**{key: statistics.median(asdict(run)[key] for run in runs) for key in asdict(runs[0])})
        for peer, runs in results.items()
        if runs
    }


def show(name: str, figures: Medians) -> None:
    """One table."""
    ours = figures["bridge"].cpu_us if "bridge" in figures else None
    print(f"\n{name}: {SHAPES[name].title}\n")
    print(f"{'':28} {'CPU us/line':>12} {'x ours':>8} {'lines/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'MiB':>6}")
    for peer, figure in sorted(figures.items(), key=lambda item: item[1].cpu_us):
        ratio = f"{figure.cpu_us / ours:8.2f}" if ours else f"{'':8}"
        rate = f"{figure.rate:10,.0f}" if figure.rate else f"{'':10}"
        latency = f"{figure.p50_ms:8.2f} {figure.p99_ms:8.2f}" if figure.p50_ms else f"{'':17}"
        print(f"{PEERS[peer].title:28} {figure.cpu_us:12.2f} {ratio} {rate} {latency} {figure.memory_mib:6.0f}")


def show_targets(figures: dict[str, Medians]) -> None:
    """What was to be reached, and whether it was."""
    print(f"\n{'':2} {'':50} {'target':>14} {'figure':>8}")
    for target in TARGETS:
        with suppress(KeyError):  # a shape or a peer that was not measured
            _show_target(target, target.of(figures[target.shape]))
    with suppress(KeyError):
        ratio = figures["S4"]["bridge"].cpu_us / figures["S3"]["bridge"].cpu_us
        _show_target(Target("S4", "CPU, a delivered line / one of S3", 0.5, lambda of: ratio, at_most=True), ratio)


def _show_target(target: Target, figure: float) -> None:
    bound = f"{'at most' if target.at_most else 'at least'} {target.bound:5.1f}"
    verdict = "reached" if target.is_reached(figure) else "NOT reached"
    print(f"{target.shape:2} {target.title:50} {bound:>14} {figure:8.2f}  {verdict}")


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    packages = ["sse_bridge", "uvicorn", "uvloop", "httptools", "httpx", "starlette", "fastapi", "miosa"]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this one (may be given again)")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one (may be given again)")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short repetition, for a look: figures mean little")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    arguments = parser.parse_args()
    repeat, share = (1, 0.1) if arguments.quick else (arguments.repeat, 1.0)
    results = measure(arguments.shape or list(SHAPES), arguments.peer or [], repeat, share)
    figures = {name: medians(by_peer) for name, by_peer in results.items()}
    for name, of_shape in figures.items():
        if of_shape:
            show(name, of_shape)
    show_targets(figures)
    if arguments.json is not None:
        runs = {
            name: {peer: [asdict(run) for run in of] for peer, of in peers.items()} for name, peers in results.items()
        }
        arguments.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
    if not all(of for by_peer in results.values() for of in by_peer.values()):
        sys.exit("Not every peer has a figure.")


if __name__ == "__main__":
    main()
