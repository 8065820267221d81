"""The files in `examples/monitoring/`: each query asks for what the collector exports, and Prometheus takes it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, RowPanel

from benchmarks.crews import a_redis
from benchmarks.monitoring import DASHBOARD, ask, exporting, panels, prometheus
from benchmarks.traffic import fill, made
from sse_bridge.metrics.instruments import CANCEL_DURATION, COUNTED, RUN_DURATION, Instrument
from sse_bridge.metrics.prometheus import prometheus_name
from sse_bridge.relay.kinds import KINDS
from tests.support.programs import find

ALERTS = DASHBOARD.parent / "alerts.yml"
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
#: What histograms add to their names.
PARTS = ("_bucket", "_count", "_sum")
EXPORTED = {prometheus_name(each): each for each in COUNTED} | {
    prometheus_name(each) + part: each for each in (RUN_DURATION, CANCEL_DURATION) for part in PARTS
}


def queries() -> list[str]:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    return [query for panel in panels() for query, _ in panel.queries] + [rule["expr"] for rule in rules]


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_what_is_exported(query: str) -> None:
    """Each name, each label, and each way in which a run ends."""
    names = re.findall(r"sse_bridge_\w+", query)
    assert names
    assert set(names) <= set(EXPORTED)
    labels = {"bridge", "job", "le", *(EXPORTED[name].label for name in names)}
    matched = set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", query))
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
    assert matched | grouped <= labels
    for pattern in re.findall(r'outcome=~?"([^"]*)"', query):
        for word in expanded(pattern):
            assert word in KINDS


def expanded(pattern: str) -> list[str]:
    """The words that a pattern of alternatives stands for."""
    head, _, tail = pattern.partition("(")
    return [head + word for word in tail.rstrip(")").split("|")] if tail else head.split("|")


def test_the_dashboard_is_what_grafana_knows() -> None:
    """Grafana's own types read it whole: no field is unknown to them, and none has another type."""
    register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    read = Dashboard.from_json(written)

    shown = [panel for panel in read.panels or [] if not isinstance(panel, RowPanel)]
    options: list[Any] = [getattr(panel, "options", None) for panel in shown]
    assert {type(each).__module__.rpartition(".")[2] for each in options} == {"stat", "timeseries"}
    assert lost(written, json.loads(JSONEncoder(sort_keys=True).encode(read))) == []


def lost(written: Any, kept: Any, at: str = "") -> list[str]:
    """Where `kept` differs from `written`. It may have defaults beside it."""
    if isinstance(written, dict) and isinstance(kept, dict):
        return [word for key in written for word in lost(written[key], kept.get(key, "nothing"), f"{at}/{key}")]
    if isinstance(written, list) and isinstance(kept, list) and len(written) == len(kept):
        return [word for n, one in enumerate(written) for word in lost(one, kept[n], f"{at}[{n}]")]
    return [] if written == kept else [at]


def test_panels_have_their_own_place() -> None:
    """None covers another one, or leaves the grid of 24 columns."""
    taken = [
        (x, y)
        for left, top, width, height in (panel.place for panel in panels())
        for x in range(left, left + width)
        for y in range(top, top + height)
    ]

    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(
        [find("promtool"), "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


#: By alert: series and their values, a minute each, behind which it fires.
FIRES = {
    "SSEBridgeWorkMayRunOn": {'sse_bridge_cancels_total{result="requested"}': "0x20 1x20"},
    "SSEBridgeOrphansMayRunOn": {'sse_bridge_store_orphans_total{result="acknowledged"}': "0x20 1x20"},
    "SSEBridgeKeyRefused": {'sse_bridge_runs_ended_total{outcome="upstream_unauthorized"}': "0x26 1 1 1 1"},
    "SSEBridgeUpstreamFails": {
        'sse_bridge_runs_ended_total{outcome="upstream_lost"}': "0+2x40",
        'sse_bridge_runs_ended_total{outcome="exit_zero"}': "0+10x40",
    },
    "SSEBridgeTurnsRequestsAway": {"sse_bridge_requests_turned_away_total": "0+3x40"},
    "SSEBridgeBug": {'sse_bridge_runs_ended_total{outcome="bridge_failed"}': "0x10 1x20"},
    "SSEBridgeViewersStall": {"sse_bridge_viewers_stalled_total": "0+2x60"},
    "SSEBridgeScriptsWait": {"sse_bridge_stalls_total": "0+200x60", "sse_bridge_runs_active": "2x60"},
    "SSEBridgeStoreLags": {"sse_bridge_store_lag_seconds": "0x20 20+60x19"},
    "SSEBridgeStoreLosesLines": {"sse_bridge_store_frames_refilled_total": "0x20 40x20"},
    "SSEBridgeRunsTakenOver": {"sse_bridge_store_runs_refused_total": "0x20 1x20"},
    "SSEBridgeLinesDropped": {
        "sse_bridge_frames_dropped_total": "0+20x60",
        "sse_bridge_frames_sent_total": "0+1000x60",
    },
}
#: The same where it stays quiet.
IS_QUIET = {
    "SSEBridgeWorkMayRunOn": {
        'sse_bridge_cancels_total{result="confirmed"}': "0+1x30",
        'sse_bridge_cancels_total{result="requested"}': "3x30",
    },
    "SSEBridgeOrphansMayRunOn": {
        'sse_bridge_store_orphans_total{result="confirmed"}': "0+1x30",
        'sse_bridge_store_orphans_total{result="requested"}': "3x30",
    },
    "SSEBridgeKeyRefused": {'sse_bridge_runs_ended_total{outcome="not_found"}': "0+1x30"},
    "SSEBridgeUpstreamFails": {
        'sse_bridge_runs_ended_total{outcome="upstream_lost"}': "0+1x40",
        'sse_bridge_runs_ended_total{outcome="exit_zero"}': "0+20x40",
    },
    "SSEBridgeTurnsRequestsAway": {"sse_bridge_requests_turned_away_total": "7x40"},
    "SSEBridgeBug": {'sse_bridge_runs_ended_total{outcome="exit_nonzero"}': "0+1x30"},
    "SSEBridgeViewersStall": {"sse_bridge_viewers_stalled_total": "0+1x60"},
    "SSEBridgeScriptsWait": {"sse_bridge_stalls_total": "0+100x60", "sse_bridge_runs_active": "2x60"},
    "SSEBridgeStoreLags": {"sse_bridge_store_lag_seconds": "0x30 60x3 0x30"},
    "SSEBridgeStoreLosesLines": {"sse_bridge_store_frames_refilled_total": "0x5 40x35"},
    "SSEBridgeRunsTakenOver": {"sse_bridge_store_runs_refused_total": "2x40"},
    "SSEBridgeLinesDropped": {
        "sse_bridge_frames_dropped_total": "0+5x60",
        "sse_bridge_frames_sent_total": "0+1000x60",
    },
}


#: Alerts that fire as soon as it happens, and are quiet again after a while.
AT_ONCE = (
    "SSEBridgeWorkMayRunOn",
    "SSEBridgeOrphansMayRunOn",
    "SSEBridgeKeyRefused",
    "SSEBridgeBug",
    "SSEBridgeStoreLosesLines",
    "SSEBridgeRunsTakenOver",
)


def test_every_alert_is_tried() -> None:
    rules = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

    assert rules == list(FIRES) == list(IS_QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("alert", FIRES)
def test_an_alert_fires_and_is_quiet(alert: str, tmp_path: Path) -> None:
    """Prometheus's own tester reads the rules over half an hour, or an hour, of made-up numbers."""
    at = "29m" if alert in AT_ONCE else "39m"
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in of.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": fires,
                }
            ],
        }
        for of, fires in [(FIRES[alert], [{"labels": "{}", "value": 1}]), (IS_QUIET[alert], [])]
    ]
    config = tmp_path / "test.json"
    config.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([find("promtool"), "test", "rules", str(config)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_prometheus_answers_every_panel() -> None:
    """It scrapes three bridges under load, whose event loop is another thread's. Each query returns numbers."""
    find("prometheus")
    find("redis-server")
    with a_redis() as redis, exporting(bridges := made(redis.port)) as target, prometheus(target) as url:
        since = time.time()
        anyio.run(fill, bridges, 25.0)
        until = time.time()
        numbers = {
            query: [value for found in ask(url, query, name, since, until) for value in found.values]
            for panel in panels()
            for query, name in panel.queries
        }
        counters = [prometheus_name(each) for each in COUNTED if each.kind == "counter"]
        resets = {
            name: [value for found in ask(url, f"resets({name}[1m])", "", since, until) for value in found.values]
            for name in counters
        }

    assert [query for query, values in numbers.items() if not values and not may_be_empty(query)] == []
    for name in ("max(sse_bridge_viewers_lag_bytes", "sum by (bridge) (sse_bridge_store_mirrors"):
        assert max(numbers[name + '{job=~".*", bridge=~".*"})']) > 0
    assert {name: max(values) for name, values in resets.items() if max(values, default=0)} == {}


def may_be_empty(query: str) -> bool:
    """Whether a panel may stay empty for half a minute: one that shows only what has happened."""
    return query.endswith("> 0")


def test_the_documentation_has_every_name() -> None:
    """With its unit and its label, as the table in the package has them."""
    rows = dict(re.findall(r"^\| `(sse_bridge[\w.]+)` \| (`sse_bridge_.*) \|$", DOCS.read_text(), re.MULTILINE))

    for each in (*COUNTED, RUN_DURATION, CANCEL_DURATION):
        assert rows.pop(each.name).startswith(row_of(each))
    assert rows == {}


def row_of(each: Instrument) -> str:
    label = f"`{each.label}`" if each.label else ""
    return f"`{prometheus_name(each)}` | {each.kind} | {each.unit.strip('{}')} | {label}"
