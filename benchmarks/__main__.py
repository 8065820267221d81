"""Measures what a line costs in the bridge and in its alternatives ("peers"), in one run.

    python -m benchmarks [--shape S1 ...] [--peer node ...] [--growth] [--repeat N] [--quick] [--json FILE]

Each repetition goes through all shapes, and in each through all peers, once or several times (`Shape.each`). Each time
the peer gets a process of its own, on a core of its own. The upstream and the client run in two more processes, on the
other cores, and are never the bottleneck. CPU time is the operating system's figure for the serving process. A peer
gets figures only if it delivers all lines in order, and the exit. The tables show medians of the repetitions. Figures
go to `benchmarks/results/`, plots to `docs/figures/`, or both to where `--json` says. Without arguments everything is
measured, which takes fifty minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from .client import Incorrect
from .figures import Figures, medians
from .plots import draw
from .report import show, show_targets
from .servers import PEERS, leave_a_core, upstream
from .shapes import GROWTH, LINES, SHAPES, Shape, warm_up

#: By shape and peer, all repetitions; empty for a peer that failed.
Runs = dict[str, dict[str, list[Figures]]]

_RESULTS: Final = Path(__file__).parent / "results" / "latest.json"
_FIGURES: Final = Path(__file__).parents[1] / "docs" / "figures"
_PACKAGES: Final = (
    *("sse_bridge", "uvicorn", "uvloop", "httptools", "httpx", "h11", "anyio", "starlette", "redis"),
    *("fastapi", "litestar", "sse-starlette", "httpx-sse", "miosa"),
)
_PROGRAMS: Final = (["node", "--version"], ["nginx", "-v"], ["redis-server", "--version"])
#: Descriptors of a process: each of thousands of streams needs two.
_DESCRIPTORS: Final = 20_000


def measure(shapes: dict[str, Shape], peers: list[str], repeat: int, share: float) -> Runs:
    """Makes `repeat` repetitions. Peers take turns, and so do shapes, because S4's target divides by a figure of S3."""
    wanted = {name: [peer for peer in shape.peers if not peers or peer in peers] for name, shape in shapes.items()}
    results: Runs = {name: {peer: [] for peer in of_shape} for name, of_shape in wanted.items()}
    failed: set[tuple[str, str]] = set()
    with upstream(LINES) as url:
        for turn in range(repeat):
            for name, shape in shapes.items():
                turns = min(repeat, shape.most)
                for peer in wanted[name] * shape.each if turn < turns else ():
                    if (name, peer) in failed:
                        continue
                    _say(f"{name} {turn + 1}/{turns} {PEERS[peer].title}")
                    warm_up()
                    try:
                        with shape.serve(peer, url) as server:
                            results[name][peer].append(shape.measure(server, share))
                    except (Incorrect, FileNotFoundError, RuntimeError, OSError) as error:
                        failed.add((name, peer))
                        results[name][peer] = []
                        _say(f"{name} {PEERS[peer].title} has no figure: {error}\n")
    _say("")
    return results


def _say(text: str) -> None:
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)


def _machine() -> dict[str, Any]:
    """The machine and the versions that were measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "programs": {command[0]: _answer(command) for command in _PROGRAMS},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _answer(command: list[str]) -> str:
    """What a program prints about its version; empty if it is missing."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return (said.stdout + said.stderr).strip()


def _allow_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this one (may be given again)")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one (may be given again)")
    parser.add_argument(
        "--growth", action="store_true", help="only the curves: what more streams, viewers and bytes cost"
    )
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short repetition, whose figures mean little")
    parser.add_argument("--json", type=Path, help="a file for all figures, with the plots beside it")
    arguments = parser.parse_args()
    _allow_descriptors()
    leave_a_core()
    repeat, share = (1, 0.1) if arguments.quick else (arguments.repeat, 1.0)
    peers = arguments.peer or []
    is_all = not (arguments.shape or arguments.growth)
    results: dict[str, Any] = {"machine": _machine()}
    if arguments.growth or (is_all and not arguments.quick):
        results["growth"] = {
            curve: measure({str(number): shape for number, shape in by_number.items()}, peers, repeat, 1.0)
            for curve, by_number in GROWTH.items()
        }
    wanted = SHAPES if is_all else arguments.shape or ()
    results["runs"] = runs = measure({name: SHAPES[name] for name in wanted}, peers, repeat, share)
    figures = {name: medians(by_peer) for name, by_peer in runs.items()}
    for name, of_shape in figures.items():
        show(name, of_shape)
    show_targets(figures)
    target = arguments.json or (_RESULTS if is_all and not arguments.quick and not peers else None)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(results, indent=1) + "\n")
        draw(results, target.parent if arguments.json else _FIGURES)
    if not all(of for by_peer in runs.values() for of in by_peer.values()):
        print("\nSome peers have no figures: see above.", file=sys.stderr)


if __name__ == "__main__":
    main()
