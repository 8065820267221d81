"""A collector for Prometheus (extra `prometheus`).

from prometheus_client import REGISTRY
from sse_bridge.metrics.prometheus import BridgeCollector

REGISTRY.register(BridgeCollector(bridge))
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate
from logging import getLogger
from threading import Lock
from typing import Final

from .instruments import CANCEL_DURATION, COUNTED, RUN_DURATION, Bridges, Durations, Instrument, Kind, by_name

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'sse_bridge.metrics.prometheus needs prometheus-client: pip install "sse_bridge[prometheus]".',
        name=missing.name,
    ) from missing

__all__ = ["BridgeCollector", "prometheus_name"]

logger: Final = getLogger("sse_bridge")

#: Endings of names, as Prometheus asks for, by OpenTelemetry's unit. Units in braces have none.
_ENDINGS: Final = {"By": "_bytes", "s": "_seconds"}
_TYPES: Final[dict[Kind, str]] = {"counter": "counter", "sum": "gauge", "gauge": "gauge", "histogram": "histogram"}
_DURATIONS: Final = (RUN_DURATION, CANCEL_DURATION)
#: Where prometheus-client keeps the numbers of several processes, if the environment says so.
_MULTIPROCESS: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


class BridgeCollector(Collector):
    """What bridges count, for `REGISTRY.register`. Every series has the label `bridge`.

    A scrape takes a snapshot of each bridge (see `SSEBridge.statistics`), from whichever thread it comes. Durations are
    those of runs that end after the collector was made.

    The numbers are those of this process. With several workers each one has to be scraped. prometheus-client's
    multiprocess mode has no collectors like this one.

    Args:
        bridges: one bridge, or several by their names. The registry takes one collector, so give it all bridges.

    Raises:
        ConfigurationError: the argument is of the wrong kind.
    """

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = by_name(bridges)
        self._lock = Lock()
        self._histograms = {
            (instrument, name, value): _Histogram(instrument.buckets)
            for instrument in _DURATIONS
            for name in self._bridges
            for value in instrument.usual
        }
        for name, bridge in self._bridges.items():
            bridge.watch(Durations(partial(self._record, name)))
        if any(variable in os.environ for variable in _MULTIPROCESS):
            logger.warning(
                "prometheus-client is in multiprocess mode, which leaves the metrics of sse_bridge out; scrape each "
                "worker by a registry of its own"
            )

    def describe(self) -> Iterable[Metric]:
        """The families without numbers: a registry looks for names that are taken."""
        return [
            Metric(_base_name(instrument), instrument.description, _TYPES[instrument.kind])
            for instrument in (*COUNTED, *_DURATIONS)
        ]

    def collect(self) -> Iterator[Metric]:
        """Yields all families, with the numbers of this moment."""
        snapshots = {name: bridge.statistics() for name, bridge in self._bridges.items()}
        for instrument in COUNTED:
            make = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
            family = make(_base_name(instrument), instrument.description, labels=_labels(instrument))
            for name, now in snapshots.items():
                for value, number in instrument.numbers(now).items():
                    family.add_metric([name, value] if instrument.label else [name], number)
            yield family
        with self._lock:
            yield from [self._durations(instrument) for instrument in _DURATIONS]

    def _durations(self, instrument: Instrument) -> Metric:
        family = HistogramMetricFamily(_base_name(instrument), instrument.description, labels=_labels(instrument))
        for (of, *labels), histogram in self._histograms.items():
            if of is instrument:
                family.add_metric(labels, histogram.buckets(), histogram.sum)
        return family

    def _record(self, name: str, instrument: Instrument, value: str, seconds: float) -> None:
        with self._lock:
            key = instrument, name, value
            if key not in self._histograms:
                self._histograms[key] = _Histogram(instrument.buckets)
            self._histograms[key].add(seconds)


class _Histogram:
    """Counts by size. prometheus-client's own would be split among processes in its multiprocess mode."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """How many values are at most each bound."""
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


def prometheus_name(instrument: Instrument) -> str:
    """The name that a query has, as OpenTelemetry's exporters for Prometheus would write it."""
    total = "_total" if instrument.kind == "counter" else ""
    return _base_name(instrument) + total


def _base_name(instrument: Instrument) -> str:
    return instrument.name.replace(".", "_") + _ENDINGS.get(instrument.unit, "")


def _labels(instrument: Instrument) -> list[str]:
    return ["bridge", instrument.label] if instrument.label else ["bridge"]
