"""The targets, as ratios or differences of figures from the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from .figures import Medians

__all__ = ["TARGETS", "Target"]

#: By shape.
Results = Mapping[str, Medians]


class Target(NamedTuple):
    """Two bounds for a value computed from the results: one to reach, and one to aim at."""

    shape: str
    title: str
    bound: float
    of: Callable[[Results], float]
    #: The aim; `None` if it is the bound.
    goal: float | None = None
    #: Whether the bound is an upper one; otherwise it is a lower one.
    at_most: bool = True

    def figure(self, results: Results) -> float | None:
        """The value, or `None` if the results lack a shape or a peer that it needs."""
        try:
            return self.of(results)
        except KeyError:
            return None

    def verdict(self, figure: float) -> str:
        """Which of the two bounds a value reaches."""
        if self.goal is not None and self._is_within(figure, self.goal):
            return "goal reached"
        return "reached" if self._is_within(figure, self.bound) else "NOT reached"

    def _is_within(self, figure: float, bound: float) -> bool:
        return figure <= bound if self.at_most else figure >= bound


def _cpu(shape: str, one: str, other: str) -> Callable[[Results], float]:
    return lambda results: results[shape][one]["cpu_us"] / results[shape][other]["cpu_us"]


def _ours(shape: str, name: str) -> Callable[[Results], float]:
    return lambda results: results[shape]["bridge"][name]


def _share(results: Results) -> float:
    return results["S4"]["bridge"]["cpu_us"] / results["S3"]["bridge"]["cpu_us"]


def _added(shape: str, figure: str, one: str, other: str) -> Callable[[Results], float]:
    return lambda results: results[shape][one][figure] - results[shape][other][figure]


def _p99(results: Results, shape: str, peer: str) -> float:
    return results[shape][peer]["p99_ms"]


def _at_mirror(shape: str, figure: str) -> Callable[[Results], float]:
    return lambda results: results[shape]["mirror"][figure]


def _redis_per_viewer(results: Results) -> float:
    return results["R6"]["per-viewer"]["redis_us"] / results["R6"]["mirror"]["redis_us"]


TARGETS: Final = [
    Target("S1", "CPU, the tutorial's pattern / ours", 40, _cpu("S1", "tutorial", "bridge"), 100, at_most=False),
    Target("S1", "CPU, Node / ours", 5, _cpu("S1", "node", "bridge"), 20, at_most=False),
    Target("S1", "CPU, ours / nginx", 1.2, _cpu("S1", "bridge", "nginx"), 0.8),
    Target("S1", "CPU, the tutorial's / ours without [fast]", 3, _cpu("S1", "tutorial", "h11"), at_most=False),
    Target("S1", "CPU, without C twin / nginx", 2.5, _cpu("S1", "pure", "nginx")),
    Target("S1m", "CPU, ours / nginx", 1.2, _cpu("S1m", "bridge", "nginx"), 0.8),
    Target("S2", "CPU, the tutorial's pattern / ours", 25, _cpu("S2", "tutorial", "bridge"), 80, at_most=False),
    Target("S2", "CPU, Node / ours", 5, _cpu("S2", "node", "bridge"), 16, at_most=False),
    Target("S2", "CPU, ours / nginx", 1.4, _cpu("S2", "bridge", "nginx"), 1.0),
    Target("S2", "CPU, ours verbatim / nginx", 1.0, _cpu("S2", "verbatim", "nginx"), 0.8),
    Target("S2", "CPU, without C twin / nginx", 2.5, _cpu("S2", "pure", "nginx")),
    Target("S2m", "CPU, ours / nginx", 1.4, _cpu("S2m", "bridge", "nginx"), 1.0),
    Target("S3", "CPU, ours / Node", 0.95, _cpu("S3", "bridge", "node"), 0.8),
    Target("S3", "CPU, ours / nginx", 2.2, _cpu("S3", "bridge", "nginx"), 1.8),
    Target("S3", "CPU, ours / the tutorial's pattern", 0.3, _cpu("S3", "bridge", "tutorial")),
    Target("S3", "p99, ours / nginx", 3, lambda of: _p99(of, "S3", "bridge") / _p99(of, "S3", "nginx")),
    Target("S4", "CPU, a delivered line / one of S3", 0.4, _share, 0.35),
    Target("S4x", "p99 of 5,000 viewers, ms", 100, _ours("S4x", "p99_ms")),
    Target("S6", "upstream closed, median, ms", 5, _ours("S6", "closed_ms")),
    Target("S6x", "process gone, median, ms", 100, _ours("S6x", "gone_ms")),
    Target("S7", "p99, ours - nginx, ms", 1, lambda of: _p99(of, "S7", "bridge") - _p99(of, "S7", "nginx")),
    Target("S8", "a stream with its upstream, KB", 28, lambda of: 1.024 * _ours("S8", "kib_each")(of), 24),
    Target("S8x", "a viewer of a shared run, KB", 17, lambda of: 1.024 * _ours("S8x", "kib_each")(of), 15),
    Target("S8", "heartbeats of 5,000 streams, % of a core", 5, _ours("S8", "idle_percent")),
    Target("S8x", "heartbeats of 5,000 viewers, % of a core", 5, _ours("S8x", "idle_percent")),
    Target("R1", "p50, at a mirror - at the owner, ms", 0.7, _added("R1", "p50_ms", "mirror", "owner")),
    Target("R1", "p99, at a mirror - at the owner, ms", 3, _added("R1", "p99_ms", "mirror", "owner")),
    Target("R2", "p50, at a mirror - at the owner, ms", 4, _added("R2", "p50_ms", "mirror", "owner")),
    Target("R2", "p99, at a mirror - at the owner, ms", 15, _added("R2", "p99_ms", "mirror", "owner")),
    Target("R2", "CPU, the owner with a store - without, us", 17, _added("R2", "cpu_us", "owner", "bridge")),
    Target("R2", "CPU of a mirror before its viewers, us", 15, _at_mirror("R2", "mirror_us")),
    Target("R2", "CPU of Redis with a mirror, us", 10, _at_mirror("R2", "redis_us")),
    Target("R3", "CPU, the owner with a store - without, us", 0.08, _added("R3", "cpu_us", "owner", "bridge")),
    Target("R3", "CPU of Redis, us", 0.04, lambda of: of["R3"]["owner"]["redis_us"]),
    Target("R4", "CPU, a viewer's line at its run / at a mirror", 0.95, _cpu("R4", "bridge", "mirror"), at_most=False),
    Target("R5", "CPU of a mirror before its viewers, us", 0.05, _at_mirror("R5", "mirror_us")),
    Target("R5", "first frame at a mirror, ms", 50, _at_mirror("R5", "first_ms")),
    Target("R6", "CPU of Redis, a connection per viewer / ours", 50, _redis_per_viewer, at_most=False),
    Target("R7", "an idle run in Redis, KB", 5.5, lambda of: 1.024 * _at_mirror("R7", "redis_kib")(of)),
    Target("R7", "commands of an idle run in a minute", 10, lambda of: of["R7"]["owner"]["commands"]),
    Target("R7", "connections of a worker", 4, _at_mirror("R7", "connections")),
    Target("R8", "a dead owner's viewer is told, s", 6, _at_mirror("R8", "told_s")),
    Target("R8", "a dead owner's command is gone, s", 7, _at_mirror("R8", "ended_s")),
]
