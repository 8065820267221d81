"""Instruments and spans for OpenTelemetry (extra `otel`, which is its API alone).

from sse_bridge.metrics.opentelemetry import instrument

instrument(bridge)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from .. import __version__
from .instruments import CANCEL_DURATION, COUNTED, RUN_DURATION, Bridges, Durations, Instrument, Snapshots, by_name

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'sse_bridge.metrics.opentelemetry needs opentelemetry-api: pip install "sse_bridge[otel]".',
        name=missing.name,
    ) from missing

from .spans import Spans

__all__ = ["instrument"]

_Callback = Callable[[CallbackOptions], Iterable[Observation]]


def instrument(
    bridges: Bridges,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> None:
    """Measures bridges, and makes a span for each of their runs. Without an SDK that is set up, it does nothing.

    A collection takes one snapshot of each bridge (see `SSEBridge.statistics`), from whichever thread it comes.

    Args:
        bridges: one bridge, or several by their names, which are the attribute `sse_bridge.bridge`. A provider is to
            see one call: an SDK may take instruments that are made twice for one, and lose half of the numbers.
        meter_provider: `None` takes the global one.
        tracer_provider: `None` takes the global one.

    Raises:
        ConfigurationError: the bridges are of the wrong kind.
    """
    named = by_name(bridges)
    meter = metrics.get_meter("sse_bridge", __version__, meter_provider)
    tracer = trace.get_tracer("sse_bridge", __version__, tracer_provider)
    snapshots = {name: Snapshots(bridge) for name, bridge in named.items()}
    for each in COUNTED:
        _observe(meter, each, partial(_observations, each, snapshots))
    histograms = {each: _histogram(meter, each) for each in (RUN_DURATION, CANCEL_DURATION)}
    for name, bridge in named.items():
        bridge.watch(Spans(tracer, name))
        bridge.watch(Durations(partial(_record, histograms, name)))


def _observe(meter: Meter, each: Instrument, callback: _Callback) -> None:
    make = {
        "counter": meter.create_observable_counter,
        "sum": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }[each.kind]
    make(each.name, [callback], each.unit, each.description)


def _observations(
    each: Instrument, snapshots: Mapping[str, Snapshots], options: CallbackOptions
) -> Iterator[Observation]:
    for name, of_bridge in snapshots.items():
        for value, number in each.numbers(of_bridge.for_instrument(each.name)).items():
            yield Observation(number, _attributes(each, name, value))


def _histogram(meter: Meter, each: Instrument) -> Histogram:
    return meter.create_histogram(
        each.name, each.unit, each.description, explicit_bucket_boundaries_advisory=each.buckets
    )


def _record(
    histograms: Mapping[Instrument, Histogram], name: str, each: Instrument, value: str, seconds: float
) -> None:
    histograms[each].record(seconds, _attributes(each, name, value))


def _attributes(each: Instrument, name: str, value: str) -> dict[str, str]:
    label = {f"sse_bridge.{each.label}": value} if each.label else {}
    return {"sse_bridge.bridge": name, **label}
