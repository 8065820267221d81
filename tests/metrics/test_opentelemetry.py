"""`instrument`: what OpenTelemetry collects, and the span of each run."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sse_bridge import Cancelled, Miosa, Outcome, RunInfo, SandboxExec, SSEBridge, Watcher
from sse_bridge.errors import UpstreamLost, UpstreamRefused
from sse_bridge.metrics.instruments import CANCEL_DURATION, COUNTED, RUN_DURATION
from sse_bridge.metrics.opentelemetry import instrument
from sse_bridge.testing import Script
from sse_bridge.upstream.base import Interruption, Reopened
from tests.support.site import never, site
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

pytestmark = pytest.mark.anyio


class Telemetry:
    """An SDK that keeps what it gets in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self, bridges: Any) -> None:
        instrument(bridges, meter_provider=self.meters, tracer_provider=self.tracers)

    def shutdown(self) -> None:
        self.meters.shutdown()
        self.tracers.shutdown()

    @property
    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for of_resource in data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        }

    def points(self, name: str, **attributes: str) -> list[Any]:
        wanted = {f"sse_bridge.{key}": value for key, value in attributes.items()}
        points = self.metrics["sse_bridge." + name].data.data_points
        return [point for point in points if wanted.items() <= point.attributes.items()]

    def value(self, name: str, **attributes: str) -> Any:
        (point,) = self.points(name, **attributes)
        return point.value

    @property
    def spans(self) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == "sse_bridge.run"]

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.shutdown()


def events_of(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]


# -- metrics


async def test_every_collection_sees_the_present(anyio_backend: str, telemetry: Telemetry) -> None:
    async with site(finished("a", "b"), finished("c")) as it:
        telemetry.instrument(it.bridge)
        assert telemetry.value("runs.started") == 0
        await it.answer()
        assert telemetry.value("runs.started") == 1
        await it.answer()

    assert telemetry.value("runs.started", bridge="default") == 2
    assert telemetry.value("runs.ended", outcome="exit_zero") == 2
    assert telemetry.value("runs.ended", outcome="not_found") == 0
    assert telemetry.value("frames.sent") == 5
    assert telemetry.value("runs.active") == 0
    (duration,) = telemetry.points("run.duration", outcome="exit_zero")
    assert duration.count == 2
    assert tuple(duration.explicit_bounds) == RUN_DURATION.buckets


async def test_a_collection_takes_one_snapshot(
    anyio_backend: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot takes time for each run, and its numbers belong together."""
    taken = 0
    async with site(finished("a")) as it:
        telemetry.instrument(it.bridge)
        statistics = it.bridge.statistics

        def counted() -> Any:
            nonlocal taken
            taken += 1
            return statistics()

        monkeypatch.setattr(it.bridge, "statistics", counted)
        await it.answer()
        _ = telemetry.metrics
        assert taken == 1
        _ = telemetry.metrics
        assert taken == 2


async def test_names_units_and_kinds_are_those_of_the_table(anyio_backend: str, telemetry: Telemetry) -> None:
    async with site(Script(waits=True)) as it:  # type: ignore[arg-type]
        telemetry.instrument(it.bridge)
        await it.answer("PUT")
        run = await it.bridge.start(Script(waits=True))
        await run.cancel()
        await it.bridge.shutdown()
    metrics = telemetry.metrics
    counted = [each for each in COUNTED if not each.name.startswith("sse_bridge.store.")]  # this bridge has none

    assert {name: metric.unit for name, metric in metrics.items()} == {
        each.name: each.unit for each in (*counted, RUN_DURATION, CANCEL_DURATION)
    }
    for each in counted:
        data = metrics[each.name].data
        assert getattr(data, "is_monotonic", None) == {"counter": True, "sum": False, "gauge": None}[each.kind]


async def test_bridges_are_told_apart(anyio_backend: str, telemetry: Telemetry) -> None:
    async with site(finished("a")) as one, site() as other:
        telemetry.instrument({"one": one.bridge, "other": other.bridge})
        await one.answer()

    assert telemetry.value("runs.started", bridge="one") == 1
    assert telemetry.value("runs.started", bridge="other") == 0
    assert telemetry.span.attributes is not None
    assert telemetry.span.attributes["sse_bridge.bridge"] == "one"


async def test_a_reader_in_a_thread(anyio_backend: str, telemetry: Telemetry) -> None:
    """As the periodic one of the SDK, which collects in a thread of its own."""
    async with site(finished("a")) as it:
        telemetry.instrument(it.bridge)
        await it.answer()
        threads: list[int] = []

        def collect() -> Any:
            threads.append(threading.get_ident())
            return telemetry.value("runs.ended", outcome="exit_zero")

        assert await anyio.to_thread.run_sync(collect) == 1
        assert threads != [threading.get_ident()]


# -- spans


async def test_a_run_has_a_trace_of_its_own_with_a_link_to_its_request(
    anyio_backend: str, telemetry: Telemetry
) -> None:
    """The run outlives the request, whose span is over by then."""
    work = ScriptedWork()
    async with site(work, grace=None) as it:
        telemetry.instrument(it.bridge)
        with telemetry.tracers.get_tracer("a server").start_as_current_span("GET /run-sse") as request:
            page, token = await it.started()
        page.leave()
        work.feed(stdout("a"), exit_frame(0))
        work.finish()
    span = telemetry.span

    assert span.parent is None
    assert span.context.trace_id != request.get_span_context().trace_id
    assert [link.context for link in span.links] == [request.get_span_context()]
    assert span.status.status_code is StatusCode.UNSET
    assert events_of(span) == ["sse_bridge.started"]
    assert dict(span.attributes or {}) == {
        "sse_bridge.bridge": "default",
        "sse_bridge.run": token[:6],
        "sse_bridge.source": "ScriptedWork",
        "sse_bridge.outcome": "exit_zero",
        "sse_bridge.lines": 1,
        "sse_bridge.bytes": it.bridge.statistics().bytes_in,
        "process.exit.code": 0,
    }


async def test_a_run_without_a_traced_request_has_no_link(anyio_backend: str, telemetry: Telemetry) -> None:
    async with site(finished("a")) as it:
        telemetry.instrument(it.bridge)
        await it.answer()

    assert telemetry.span.links == ()


class Traced(ScriptedWork):
    """A source whose client is instrumented, too."""

    def __init__(self, tracers: TracerProvider) -> None:
        super().__init__()
        self.tracers = tracers

    async def cancel(self, timeout: float) -> Cancelled:
        with self.tracers.get_tracer("a client").start_as_current_span("DELETE"):
            return await super().cancel(timeout)


async def test_what_an_instrumented_client_does_belongs_to_the_run(anyio_backend: str, telemetry: Telemetry) -> None:
    """The run's span is the current one in the task that reads the run, and in that task only."""
    async with site(Traced(telemetry.tracers)) as it:
        telemetry.instrument(it.bridge)
        page, token = await it.started()
        assert trace.get_current_span() is trace.INVALID_SPAN
        await it.answer("DELETE", "/" + token)
        await page.until(lambda: page.ended)
    (asked,) = [span for span in telemetry.exporter.get_finished_spans() if span.name == "DELETE"]

    assert asked.parent is not None
    assert asked.parent.span_id == telemetry.span.context.span_id
    assert context.get_current() == {}


async def test_the_span_is_not_the_current_one_behind_its_end(anyio_backend: str, telemetry: Telemetry) -> None:
    """A watcher that is told of the end later is outside of it."""

    class Later(Watcher):
        def began(self, run: RunInfo) -> None:
            spans.append(trace.get_current_span())

        def ended(self, run: RunInfo, outcome: Outcome) -> None:
            spans.append(trace.get_current_span())

    spans: list[Any] = []
    async with site(finished("a")) as it:
        telemetry.instrument(it.bridge)
        it.bridge.watch(Later())
        await it.answer()

    assert spans[0].get_span_context() == telemetry.span.context
    assert spans[1] is trace.INVALID_SPAN


async def test_a_run_whose_work_is_ended(anyio_backend: str, telemetry: Telemetry) -> None:
    """A user asked for the end, so it is no error. How far it got is an attribute."""
    async with site(ScriptedWork(outcome=Cancelled.ACKNOWLEDGED)) as it:
        telemetry.instrument(it.bridge)
        page, token = await it.started()
        await it.answer("DELETE", "/" + token)
        await page.until(lambda: page.ended)
    span = telemetry.span

    assert events_of(span) == ["sse_bridge.started", "sse_bridge.cancel"]
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["sse_bridge.outcome"] == "cancelled"
    assert span.attributes["sse_bridge.result"] == "acknowledged"


async def test_an_error_has_a_status_and_a_type(anyio_backend: str, telemetry: Telemetry) -> None:
    """The word of the bridge's, since a message may quote the upstream."""
    refusal = UpstreamRefused("s3cret", code="not_found", status=404, started_nothing=True)
    async with site(ScriptedWork(refusal=refusal)) as it:
        telemetry.instrument(it.bridge)
        await it.answer()
    span = telemetry.span

    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "not_found"
    assert span.attributes is not None
    assert span.attributes["error.type"] == "not_found"


async def test_a_command_that_fails_is_an_error(anyio_backend: str, telemetry: Telemetry) -> None:
    """As OpenTelemetry has it for programs that exit with another code than zero."""
    async with site() as it:
        telemetry.instrument(it.bridge)
        await (await it.bridge.start(Script(["a"], exit=3))).wait()
        await it.bridge.shutdown()

    assert telemetry.span.status.status_code is StatusCode.ERROR
    assert telemetry.span.attributes is not None
    assert telemetry.span.attributes["process.exit.code"] == 3
    assert telemetry.span.attributes["error.type"] == "exit_nonzero"


async def test_a_frame_that_is_too_large_is_an_event(anyio_backend: str, telemetry: Telemetry) -> None:
    work = ScriptedWork()
    work.feed(stdout("x" * 500), exit_frame(0))
    work.finish()
    async with site(work, max_frame_size=100) as it:
        telemetry.instrument(it.bridge)
        await it.answer()
    (gap,) = [event for event in telemetry.span.events if event.name == "sse_bridge.gap"]

    assert gap.attributes is not None
    assert gap.attributes["sse_bridge.reason"] == "discarded"


class Resumed(ScriptedWork):
    """Work whose stream is opened again once."""

    has_event_ids = False
    may_repeat = False

    def __init__(self, *, is_exact: bool) -> None:
        super().__init__()
        self.is_exact = is_exact

    @asynccontextmanager
    async def resume(self, interruption: Interruption) -> AsyncGenerator[Reopened]:
        yield Reopened(self, is_exact=self.is_exact)


@pytest.mark.parametrize("is_exact", [True, False])
async def test_a_stream_that_was_interrupted_is_an_event(
    anyio_backend: str, telemetry: Telemetry, is_exact: bool
) -> None:
    """And another one says that output may be missing."""
    work = Resumed(is_exact=is_exact)
    work.feed(stdout("a"))
    work.fail(UpstreamLost("It broke."))
    work.feed(stdout("b"), exit_frame(0))
    work.finish()
    async with site(work) as it:
        telemetry.instrument(it.bridge)
        await it.answer()

    gap = [] if is_exact else ["sse_bridge.gap"]
    assert events_of(telemetry.span) == ["sse_bridge.started", "sse_bridge.resumed", *gap]


async def test_no_secret_gets_into_a_span(anyio_backend: str, telemetry: Telemetry) -> None:
    """Neither a command, nor output, an owner, a token or what an upstream wrote."""
    error = 'event: error\ndata: {"code":"s3cret","message":"s3cret"}\n\n'
    work = ScriptedWork(command="echo s3cret")
    work.feed(stdout("s3cret"), error)
    work.finish()
    async with site() as it:
        telemetry.instrument(it.bridge)
        run = await it.bridge.start(work, owner="s3cret", key="s3cret")
        await run.wait()
        await it.bridge.shutdown()
    written = telemetry.span.to_json()

    assert "s3cret" not in written
    assert run.token not in written
    assert '"upstream_error"' in written


async def test_a_source_of_the_package_is_named_as_in_the_log(anyio_backend: str, telemetry: Telemetry) -> None:
    """By its `repr`, which leaves secrets out."""
    source = SandboxExec("sbx_1", "echo s3cret", env={"KEY": "s3cret"})
    bridge = SSEBridge(Miosa(base_url="http://127.0.0.1:1/", api_key="s3cret"), never)
    telemetry.instrument(bridge)
    with pytest.raises(Exception, match=r"."):
        await bridge.start(source)
    await bridge.shutdown()

    assert telemetry.span.attributes is not None
    assert telemetry.span.attributes["sse_bridge.source"] == repr(source)
    assert telemetry.span.attributes["sse_bridge.outcome"] == "upstream_unreachable"
    assert "s3cret" not in telemetry.span.to_json()


def test_without_an_sdk_nothing_happens() -> None:
    """The API alone does nothing, and a bridge is unaffected."""

    async def run() -> int | None:
        bridge = SSEBridge(None, never)
        instrument(bridge)
        outcome = await (await bridge.start(Script(["a"], exit=3))).wait()
        await bridge.shutdown()
        return outcome.exit_code

    assert anyio.run(run) == 3
