"""What is measured: one table of names, units and labels, from which Prometheus and OpenTelemetry are both served.

Counters and gauges are read from a snapshot when they are asked for. Durations are recorded when a run ends. A line
costs no more than it does without metrics.

A label takes few values, and all of them are known: how a run ended, a status, how far ending its work got. Owners,
runs and sources are no labels. Each of them would be a time series of its own, and a system for metrics would keep the
names of users for months.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf
from threading import Lock
from typing import Final, Literal, NamedTuple, TypeAlias

from ..arguments import described, is_a
from ..asgi.app import SSEBridge
from ..errors import ConfigurationError
from ..relay.info import Outcome, RunInfo
from ..relay.statistics import BridgeStatistics, StoreStatistics
from ..relay.watching import Watcher

__all__ = [
    "CANCEL_DURATION",
    "COUNTED",
    "RUN_DURATION",
    "Bridges",
    "Durations",
    "Instrument",
    "Kind",
    "Snapshots",
    "by_name",
]

#: One bridge, or several by the names that metrics tell them apart by.
Bridges: TypeAlias = SSEBridge | Mapping[str, SSEBridge]
#: `counter`: never goes back. `sum`: goes up and down, and processes may be added up. `gauge`: they may not.
Kind: TypeAlias = Literal["counter", "sum", "gauge", "histogram"]
#: One number, or one for each value of the label.
Numbers: TypeAlias = float | Mapping[str, int]

#: The name of a bridge that is given without one.
DEFAULT_NAME: Final = "default"
#: Seconds. Scripts take from a moment to hours; steps of about three keep the number of series small.
_RUN_BUCKETS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10800.0, 43200.0)
#: Seconds. `cancel_timeout` is five unless the application says otherwise.
_CANCEL_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: The statuses that the bridge itself answers, so that they are there before the first refusal: Prometheus sees no
#: increase in a series that begins. An application may raise others.
_NONE_REFUSED: Final = dict.fromkeys((403, 404, 405, 409, 410, 422, 500, 502, 503, 504), 0)
#: Seconds after which a snapshot is too old for a reader that has not seen it.
_FRESH: Final = 1.0


class Instrument(NamedTuple):
    """One thing that is measured, as OpenTelemetry names it."""

    name: str
    kind: Kind
    #: In UCUM, which OpenTelemetry prescribes.
    unit: str
    description: str
    #: Takes the numbers from a snapshot. A histogram has none there.
    read: Callable[[BridgeStatistics], Numbers] = lambda now: {}
    #: The label beside the bridge's name; empty for none.
    label: str = ""
    #: Upper bounds of a histogram's buckets.
    buckets: tuple[float, ...] = ()
    #: Values of a histogram's label that Prometheus is to know before the first is recorded.
    usual: tuple[str, ...] = ()

    def numbers(self, now: BridgeStatistics) -> Mapping[str, float]:
        """The number for each value of the label; for `""` without a label."""
        found = self.read(now)
        return {"": found} if isinstance(found, int | float) else found


def _pending(now: BridgeStatistics) -> list[int]:
    return [viewer.bytes_pending for run in now.runs for viewer in run.viewers]


def _refused(now: BridgeStatistics) -> Numbers:
    return {str(status): count for status, count in sorted({**_NONE_REFUSED, **now.requests_refused}.items())}


def _cancels(now: BridgeStatistics) -> Numbers:
    cancels = now.cancels
    return {
        "requested": cancels.requested,
        "acknowledged": cancels.acknowledged,
        "confirmed": cancels.confirmed,
    }


def _of_store(read: Callable[[StoreStatistics], Numbers]) -> Callable[[BridgeStatistics], Numbers]:
    """Reads a number that only bridges with a store have."""
    return lambda now: {} if now.store is None else read(now.store)


# fmt: off
#: What a snapshot gives. A number that only some bridges have is left out for others: its `read` returns `{}` there.
COUNTED: Final = (
    Instrument("sse_bridge.runs.started", "counter", "{run}",
               "Runs whose upstream has said yes.", lambda now: now.runs_started),
    Instrument("sse_bridge.runs.ended", "counter", "{run}",
               "Runs that are over, by how they ended. Refused ones count.", lambda now: now.runs_ended, "outcome"),
    Instrument("sse_bridge.runs.active", "sum", "{run}",
               "Runs that are read and go on.",
               lambda now: sum(not run.is_over and not run.is_mirrored for run in now.runs)),
    Instrument("sse_bridge.runs.kept", "sum", "By",
               "Bytes in the logs of runs that go on or are followed.",
               lambda now: sum(run.bytes_kept for run in now.runs)),
    Instrument("sse_bridge.viewers.seen", "counter", "{viewer}",
               "Viewers so far. One that comes back counts again.", lambda now: now.viewers_seen),
    Instrument("sse_bridge.viewers.active", "sum", "{viewer}",
               "Viewers that are there.", lambda now: now.viewers),
    Instrument("sse_bridge.viewers.stalled", "counter", "{viewer}",
               "Viewers that were disconnected because they stopped reading.", lambda now: now.viewers_stalled),
    Instrument("sse_bridge.viewers.pending", "sum", "By",
               "Bytes that all viewers together have yet to take.", lambda now: sum(_pending(now))),
    Instrument("sse_bridge.viewers.lag", "gauge", "By",
               "Bytes that the viewer which is furthest behind has yet to take.",
               lambda now: max(_pending(now), default=0)),
    Instrument("sse_bridge.requests.refused", "counter", "{request}",
               "Requests that got no stream, by HTTP status.", _refused, "status"),
    Instrument("sse_bridge.requests.turned_away", "counter", "{request}",
               "Requests that got 503 because of max_runs or max_viewers.", lambda now: now.requests_turned_away),
    Instrument("sse_bridge.frames.received", "counter", "{frame}",
               "Frames from upstreams.", lambda now: now.frames_in),
    Instrument("sse_bridge.frames.sent", "counter", "{frame}",
               "Frames that were handed to viewers, before merging.", lambda now: now.frames_out),
    Instrument("sse_bridge.frames.dropped", "counter", "{frame}",
               "Frames that viewers lost to their policy, or to coming late.", lambda now: now.frames_dropped),
    Instrument("sse_bridge.frames.merged", "counter", "{frame}",
               "Frames that became part of another one's event.", lambda now: now.frames_merged),
    Instrument("sse_bridge.frames.discarded", "counter", "{frame}",
               "Upstream frames larger than max_frame_size.", lambda now: now.frames_discarded),
    Instrument("sse_bridge.received", "counter", "By",
               "Bytes from upstreams.", lambda now: now.bytes_in),
    Instrument("sse_bridge.sent", "counter", "By",
               "Bytes that were handed to viewers, before merging.", lambda now: now.bytes_out),
    Instrument("sse_bridge.dropped", "counter", "By",
               "Bytes that viewers lost to their policy.", lambda now: now.bytes_dropped),
    Instrument("sse_bridge.discarded", "counter", "By",
               "Bytes of upstream frames larger than max_frame_size.", lambda now: now.bytes_discarded),
    Instrument("sse_bridge.stalls", "counter", "{stall}",
               "How often reading had to wait for a slow viewer.", lambda now: now.stalls),
    Instrument("sse_bridge.cancels", "counter", "{cancel}",
               "Work that the bridge had to end, by how far that got. Only confirmed work was seen to be gone.",
               _cancels, "result"),
    Instrument("sse_bridge.store.mirrors", "sum", "{run}",
               "Other workers' runs that are followed here.", _of_store(lambda store: store.mirrors)),
    Instrument("sse_bridge.store.frames.mirrored", "counter", "{frame}",
               "Frames of other workers' runs that came here.", _of_store(lambda store: store.frames_mirrored)),
    Instrument("sse_bridge.store.frames.published", "counter", "{frame}",
               "Frames that the store has taken, those that it took anew included.",
               _of_store(lambda store: store.published)),
    Instrument("sse_bridge.store.frames.refilled", "counter", "{frame}",
               "Frames that the store lost, and that were written again.", _of_store(lambda store: store.refilled)),
    Instrument("sse_bridge.store.frames.unpublished", "sum", "{frame}",
               "Frames that the store has yet to take.", _of_store(lambda store: store.publish_lag_frames)),
    Instrument("sse_bridge.store.lag", "gauge", "s",
               "How long the store has lacked the oldest of these frames.",
               _of_store(lambda store: store.publish_lag_seconds)),
    Instrument("sse_bridge.store.reconnects", "counter", "{connection}",
               "Connections to the store that were made again, after one broke.",
               _of_store(lambda store: store.reconnects)),
    Instrument("sse_bridge.store.runs.refused", "counter", "{run}",
               "Runs that another worker ended, because it took this one for dead.",
               _of_store(lambda store: store.refused)),
    Instrument("sse_bridge.store.orphans", "counter", "{run}",
               "Work of dead workers that was ended here, by how far that got.",
               _of_store(lambda store: store.orphans_ended), "result"),
)
# fmt: on
#: What is recorded at the end of a run.
RUN_DURATION: Final = Instrument(
    "sse_bridge.run.duration",
    "histogram",
    "s",
    "How long runs took, by how they ended.",
    label="outcome",
    buckets=_RUN_BUCKETS,
    usual=("exit_zero", "exit_nonzero"),
)
CANCEL_DURATION: Final = Instrument(
    "sse_bridge.cancel.duration",
    "histogram",
    "s",
    "How long ending the work of runs took, by how far that got.",
    label="result",
    buckets=_CANCEL_BUCKETS,
    usual=("requested", "acknowledged", "confirmed"),
)


class Durations(Watcher):
    """Records how long runs took, and how long it took to end their work.

    Args:
        record: takes `RUN_DURATION` or `CANCEL_DURATION`, the value of its label, and seconds.
    """

    def __init__(self, record: Callable[[Instrument, str, float], None]) -> None:
        self._record = record

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        """See `Watcher.ended`."""
        self._record(RUN_DURATION, outcome.kind, outcome.duration)
        if outcome.cancelled is not None and outcome.cancel_duration is not None:
            self._record(CANCEL_DURATION, outcome.cancelled.value, outcome.cancel_duration)


class Snapshots:
    """Snapshots of one bridge for readers that ask for one number after the other.

    A snapshot takes time for each run, and its numbers belong together. So each instrument gets the one that the
    instruments before it got, unless it has had that one already: then another collection has begun.
    """

    def __init__(self, bridge: SSEBridge) -> None:
        self._bridge = bridge
        self._lock = Lock()
        self._served: set[str] = set()
        self._now = bridge.statistics()
        self._taken_at = -inf

    def for_instrument(self, name: str) -> BridgeStatistics:
        """A snapshot that this instrument has not had."""
        with self._lock:
            if name in self._served or time.monotonic() > self._taken_at + _FRESH:
                self._now, self._taken_at = self._bridge.statistics(), time.monotonic()
                self._served.clear()
            self._served.add(name)
            return self._now


def by_name(bridges: Bridges) -> Mapping[str, SSEBridge]:
    """The bridges by their names.

    Raises:
        ConfigurationError: it is neither a bridge nor a mapping of names to bridges.
    """
    if is_a(bridges, SSEBridge):
        return {DEFAULT_NAME: bridges}
    if not isinstance(bridges, Mapping):
        raise ConfigurationError(
            f"Metrics need an SSEBridge, or a dict of them by their names, not {described(bridges)}."
        )
    for name, bridge in bridges.items():
        if not is_a(name, str) or not is_a(bridge, SSEBridge):
            raise ConfigurationError(
                f"Metrics need a dict of SSEBridge by their names, not of {described(name)} and {described(bridge)}."
            )
    return dict(bridges)
