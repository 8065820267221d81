"""The figures by name. A repetition yields some of them; tables and plots show those that a result has."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

__all__ = ["COLUMNS", "Column", "Figures", "Medians", "medians"]


class Column(NamedTuple):
    """How tables show one figure."""

    title: str
    form: str


#: Less is better in all of them except `rate`.
COLUMNS: Final = {
    "cpu_us": Column("CPU us/line", ",.2f"),  # of the process that serves the viewers, for each line delivered
    "mirror_us": Column("mirror us", ",.2f"),  # of a worker whose mirrors have no viewers, for each line of a run
    "redis_us": Column("Redis us", ",.2f"),  # of Redis, for each line of a run
    "first_ms": Column("first ms", ",.1f"),  # from a request to its first frame
    "redis_kib": Column("Redis KiB", ",.1f"),  # for each run
    "commands": Column("commands/min", ",.1f"),  # to Redis, for each run
    "connections": Column("connections", ",.1f"),  # to Redis, for each worker
    "told_s": Column("told s", ",.2f"),  # from the owner's death to its viewer's last frame
    "ended_s": Column("ended s", ",.2f"),  # and to the end of its command's process
    "rate": Column("lines/s", ",.0f"),  # of one stream, read at full speed
    "p50_ms": Column("p50 ms", ".2f"),  # from the upstream's write to the client's read
    "p99_ms": Column("p99 ms", ".2f"),
    "memory_mib": Column("MiB", ",.0f"),  # resident, in the end
    "kib_each": Column("KiB each", ",.1f"),  # growth of the serving process for each connection
    "idle_percent": Column("% of a core", ".2f"),  # while only heartbeats are sent
    "closed_ms": Column("closed ms", ",.2f"),  # from a viewer's leaving to the upstream's end of the connection
    "closed_max_ms": Column("max ms", ",.2f"),
    "gone_ms": Column("gone ms", ",.1f"),  # from a viewer's leaving to the end of its command's process
    "gone_max_ms": Column("max ms", ",.1f"),
    "seconds": Column("seconds", ",.1f"),
    "peak_mib": Column("peak MiB", ",.0f"),  # peak growth of the serving process
    "missing_percent": Column("missing %", ".1f"),  # lines that gaps count
}

Figures: TypeAlias = dict[str, float]
#: By peer.
Medians: TypeAlias = dict[str, Figures]


def medians(results: Mapping[str, Sequence[Figures]]) -> Medians:
    """The median of each figure over the repetitions, for peers that have figures."""
    return {
        peer: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for peer, runs in results.items()
        if runs
    }
