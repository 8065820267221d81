"""`BridgeCollector`: what Prometheus scrapes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import anyio
import anyio.to_thread
import pytest
from anyio import wait_all_tasks_blocked
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from sse_bridge import Cancelled, ConfigurationError, Drop, SSEBridge
from sse_bridge.errors import UpstreamRefused
from sse_bridge.metrics.instruments import CANCEL_DURATION, COUNTED, RUN_DURATION
from sse_bridge.metrics.prometheus import BridgeCollector, prometheus_name
from sse_bridge.testing import Script
from tests.support.site import never, site
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

pytestmark = pytest.mark.anyio


def registry_of(*collectors: BridgeCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def metric(registry: CollectorRegistry, name: str, bridge: str = "default", **labels: str) -> float | None:
    return registry.get_sample_value("sse_bridge_" + name, {"bridge": bridge, **labels})


async def test_a_run_and_its_viewer(anyio_backend: str) -> None:
    async with site(finished("a", "b")) as it:
        registry = registry_of(BridgeCollector(it.bridge))
        before = metric(registry, "runs_ended_total", outcome="exit_zero")
        await it.answer()

    assert before == 0  # is there from the start, so that a first increase shows
    assert metric(registry, "runs_started_total") == 1
    assert metric(registry, "runs_ended_total", outcome="exit_zero") == 1
    assert metric(registry, "frames_received_total") == 3
    assert metric(registry, "frames_sent_total") == 3
    assert metric(registry, "received_bytes_total") == metric(registry, "sent_bytes_total")
    assert metric(registry, "viewers_seen_total") == 1
    assert metric(registry, "runs_active") == metric(registry, "viewers_active") == 0
    assert metric(registry, "run_duration_seconds_count", outcome="exit_zero") == 1
    assert metric(registry, "run_duration_seconds_bucket", outcome="exit_zero", le="43200.0") == 1
    assert metric(registry, "cancel_duration_seconds_count", result="confirmed") == 0
    assert metric(registry, "requests_refused_total", status="502") == 0


@pytest.mark.virtual_time
async def test_durations(anyio_backend: str) -> None:
    """Of the run, and of ending its work, which takes until `cancel_timeout` here."""
    async with site(ScriptedWork(outcome="hangs"), cancel_timeout=4.0, grace=0, within=60) as it:
        registry = registry_of(BridgeCollector(it.bridge))
        page, _ = await it.started()
        await anyio.sleep(20)
        page.leave()

    assert metric(registry, "run_duration_seconds_sum", outcome="abandoned") == pytest.approx(20, abs=1)
    assert metric(registry, "run_duration_seconds_bucket", outcome="abandoned", le="10.0") == 0
    assert metric(registry, "run_duration_seconds_bucket", outcome="abandoned", le="30.0") == 1
    assert metric(registry, "cancel_duration_seconds_sum", result="requested") == pytest.approx(4)
    assert metric(registry, "cancels_total", result="requested") == 1
    assert metric(registry, "cancels_total", result="confirmed") == 0


async def test_a_viewer_that_is_behind(anyio_backend: str) -> None:
    """Its bytes are the lag, and what it lost is counted."""
    work = ScriptedWork()
    async with site(work, policy=Drop(high_water=1000), replay=0) as it:
        registry = registry_of(BridgeCollector(it.bridge))
        page, _ = await it.started()
        page.stall()
        work.feed(*(stdout("x" * 100) for _ in range(100)))
        await wait_all_tasks_blocked()
        lag, pending = metric(registry, "viewers_lag_bytes"), metric(registry, "viewers_pending_bytes")
        dropped, active = metric(registry, "frames_dropped_total"), metric(registry, "viewers_active")
        page.resume()
        work.feed(exit_frame(0))
        work.finish()
        await page.until(lambda: page.ended)

    assert lag is not None
    assert lag == pending
    assert lag > 500
    assert dropped
    assert dropped > 50
    assert active == 1
    assert metric(registry, "viewers_lag_bytes") == 0


async def test_refusals(anyio_backend: str) -> None:
    refusal = UpstreamRefused("No.", code="upstream_unauthorized", status=502, started_nothing=True)
    async with site(ScriptedWork(refusal=refusal)) as it:
        registry = registry_of(BridgeCollector(it.bridge))
        await it.answer()
        await it.answer("PUT")

    assert metric(registry, "requests_refused_total", status="502") == 1
    assert metric(registry, "requests_refused_total", status="405") == 1
    assert metric(registry, "runs_ended_total", outcome="upstream_unauthorized") == 1


async def test_several_bridges_are_told_apart(anyio_backend: str) -> None:
    async with site(finished("a")) as one, site() as other:
        registry = registry_of(BridgeCollector({"one": one.bridge, "other": other.bridge}))
        await one.answer()

    assert metric(registry, "runs_started_total", "one") == 1
    assert metric(registry, "runs_started_total", "other") == 0


def test_a_second_collector_is_refused_by_the_registry() -> None:
    """It would export each name twice. The registry tells by the names that the collector describes."""
    registry = registry_of(BridgeCollector(SSEBridge(None, never)))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(BridgeCollector(SSEBridge(None, never)))


def test_the_names_are_those_that_the_table_says() -> None:
    exported = {family.name for family in BridgeCollector(SSEBridge(None, never)).collect()}

    assert {prometheus_name(each) for each in COUNTED} == {
        name + ("_total" if f"{name}_total" in {prometheus_name(each) for each in COUNTED} else "") for name in exported
    } - {prometheus_name(RUN_DURATION), prometheus_name(CANCEL_DURATION)}


async def test_no_label_is_chosen_by_a_user(anyio_backend: str) -> None:
    """Owners, commands and an upstream's codes would be series without end, in a system that keeps them for months."""
    error = 'event: error\ndata: {"code":"s3cret_code","message":"s3cret"}\n\n'
    work = ScriptedWork(command="echo s3cret")
    work.feed(stdout("s3cret"), error)
    work.finish()
    async with site() as it:
        await it.answer("PUT")
        collector = BridgeCollector(it.bridge)
        run = await it.bridge.start(work, owner="s3cret", key="s3cret")
        await run.wait()
        await it.bridge.shutdown()
    families = list(collector.collect())

    assert "s3cret" not in repr(families)
    assert run.token[:6] not in repr(families)
    assert {name for family in families for sample in family.samples for name in sample.labels} == {
        "bridge", "outcome", "status", "result", "le"
    }  # fmt: skip


@contextmanager
def exported(registry: CollectorRegistry) -> Iterator[str]:
    """The URL of an exporter in a thread of its own, as applications without an endpoint for metrics have one."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_scrape_over_http_while_lines_flow(anyio_backend: str) -> None:
    """From another thread. No counter goes back from one scrape to the next."""
    async with site(policy=Drop(high_water=2000), replay=0) as it:
        with exported(registry_of(BridgeCollector(it.bridge))) as url:
            before = await anyio.to_thread.run_sync(scrape, url)
            for _ in range(30):
                work = ScriptedWork()
                page, _ = await _visited(it, work)
                now = await anyio.to_thread.run_sync(scrape, url)
                assert [name for name in before if name.endswith("_total") and now[name] < before[name]] == []
                before = now
                work.feed(exit_frame(0))
                work.finish()
                await page.until(lambda page=page: page.ended)

    assert before["sse_bridge_frames_received_total"] > 1000
    assert before["sse_bridge_runs_active"] == 1


async def _visited(it: Any, work: ScriptedWork) -> tuple[Any, str]:
    run = await it.bridge.start(work)
    page = it.open(path="/" + run.token)
    work.feed(*(stdout("x" * 100) for _ in range(50)))
    await page.until(lambda: page.content)
    return page, run.token


def scrape(url: str) -> dict[str, float]:
    with urlopen(url, timeout=10) as response:
        text = response.read().decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_multiprocess_mode_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """prometheus-client leaves out all collectors there."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    with caplog.at_level(logging.WARNING):
        BridgeCollector(SSEBridge(None, never))

    (record,) = caplog.records
    assert "scrape each worker" in record.getMessage()


@pytest.mark.parametrize("wrong", [None, SSEBridge, {"a": None}, {1: SSEBridge(None, never)}, [SSEBridge(None, never)]])
def test_what_is_no_bridge(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="Metrics need "):
        BridgeCollector(wrong)


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("opentelemetry", "opentelemetry", "otel")],
)
def test_a_library_that_is_missing(module: str, library: str, extra: str) -> None:
    """The message names the extra."""
    program = f"import sys; sys.modules[{library!r}] = None; import sse_bridge.metrics.{module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert f'pip install "sse_bridge[{extra}]"' in done.stderr
    assert "ModuleNotFoundError: sse_bridge.metrics." in done.stderr


def test_the_package_imports_neither() -> None:
    """An application without metrics pays nothing for them, and needs neither library."""
    program = (
        "import sys, sse_bridge; print([name for name in sys.modules if 'prometheus' in name or 'telemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_how_far_ending_work_got(anyio_backend: str) -> None:
    async with site() as it:
        registry = registry_of(BridgeCollector(it.bridge))
        for ends in (Cancelled.ACKNOWLEDGED, Cancelled.CONFIRMED, Cancelled.CONFIRMED):
            run = await it.bridge.start(Script(waits=True, ends=ends))
            await run.cancel()
        await it.bridge.shutdown()

    assert metric(registry, "cancels_total", result="acknowledged") == 1
    assert metric(registry, "cancels_total", result="confirmed") == 2
    assert metric(registry, "cancel_duration_seconds_count", result="confirmed") == 2
