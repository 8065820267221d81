"""Fills the dashboard of `examples/monitoring/` by a load, and draws what a real Prometheus says to its queries.

    python -m benchmarks.monitoring [--seconds N] [--to FILE]

Grafana itself is not needed: it shows what these queries return. Needs Debian's `prometheus` and `redis-server`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import httpx
from prometheus_client import CollectorRegistry, start_http_server

from sse_bridge import SSEBridge
from sse_bridge.metrics.prometheus import BridgeCollector

from .crews import a_redis
from .traffic import fill, made

__all__ = ["DASHBOARD", "Panel", "Series", "ask", "exporting", "panels", "prometheus"]

_ROOT: Final = Path(__file__).parents[1]
DASHBOARD: Final = _ROOT / "examples" / "monitoring" / "grafana.json"
PICTURE: Final = _ROOT / "docs" / "figures" / "dashboard.png"
#: Seconds between two scrapes, and what Grafana would put in place of its variables.
INTERVAL: Final = 1
VARIABLES: Final = {"$__rate_interval": "15s", "$job": ".*", "$bridge": ".*"}
_MIB: Final = 2**20
_COLOURS: Final = {"exit_zero": "#2b8a3e", "exit_nonzero": "#f08c00", "abandoned": "#868e96"}


class Series(NamedTuple):
    """One line of a panel."""

    name: str
    times: list[float]
    values: list[float]


class Panel(NamedTuple):
    """A panel of the dashboard."""

    title: str
    is_stat: bool
    is_bars: bool
    unit: str
    #: Column, row, width and height, in Grafana's grid of 24 columns.
    place: tuple[int, int, int, int]
    #: Each with the pattern of its lines' names.
    queries: list[tuple[str, str]]


def panels() -> list[Panel]:
    """The dashboard's panels without the titles of rows, with values in place of variables."""
    shown = json.loads(DASHBOARD.read_text())["panels"]
    return [_panel(each) for each in shown if each["type"] != "row"]


def _panel(each: Mapping[str, Any]) -> Panel:
    at = each["gridPos"]
    defaults = each["fieldConfig"]["defaults"]
    return Panel(
        each["title"],
        each["type"] == "stat",
        defaults.get("custom", {}).get("drawStyle") == "bars",
        defaults["unit"],
        (at["x"], at["y"], at["w"], at["h"]),
        [(_filled_in(target["expr"]), target["legendFormat"]) for target in each["targets"]],
    )


def _filled_in(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


# -- Prometheus


@contextmanager
def prometheus(target: str) -> Iterator[str]:
    """A Prometheus that scrapes a target; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "prometheus.yml")
        scrape = {"job_name": "app", "scrape_interval": f"{INTERVAL}s", "static_configs": [{"targets": [target]}]}
        config.write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML
        program = shutil.which("prometheus", path="/usr/bin:/usr/sbin:/usr/local/bin")
        if program is None:
            raise FileNotFoundError("There is no prometheus; on Debian: apt-get install prometheus.")
        options = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
        with subprocess.Popen([program, *options]) as running:
            try:
                _wait_for(f"http://127.0.0.1:{port}/-/ready")
                yield f"http://127.0.0.1:{port}"
            finally:
                running.terminate()


def _wait_for(url: str) -> None:
    give_up_at = time.monotonic() + 30
    while True:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > give_up_at:
            raise TimeoutError(url)
        time.sleep(0.1)


def ask(url: str, query: str, name: str, since: float, until: float) -> list[Series]:
    """What a query returns.

    Raises:
        httpx.HTTPStatusError: Prometheus rejects the query.
    """
    span = {"start": since, "end": until, "step": INTERVAL}
    answer = httpx.get(f"{url}/api/v1/query_range", params={"query": query, **span}, timeout=30)
    answer.raise_for_status()
    return [
        Series(
            _named(name, found["metric"]),
            [at - since for at, _ in found["values"]],
            [float(value) for _, value in found["values"]],
        )
        for found in answer.json()["data"]["result"]
    ]


def _named(pattern: str, labels: Mapping[str, str]) -> str:
    for label, value in labels.items():
        pattern = pattern.replace("{{" + label + "}}", value)
    return pattern


@contextmanager
def exporting(bridges: Mapping[str, SSEBridge]) -> Iterator[str]:
    """Exports the metrics of bridges in a thread; host and port."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(BridgeCollector(bridges))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# -- the picture


def draw(url: str, since: float, until: float, to: Path) -> None:
    """Draws all panels as the dashboard lays them out."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot as plt

    shown = panels()
    rows = max(panel.place[1] + panel.place[3] for panel in shown)
    figure = plt.figure(figsize=(13, rows * 0.4), facecolor="white")
    grid = figure.add_gridspec(rows, 24, wspace=3.2, hspace=5.2, left=0.045, right=0.985, top=0.965, bottom=0.03)
    for panel in shown:
        x, y, width, height = panel.place
        axes = figure.add_subplot(grid[y : y + height - (1 if panel.is_stat else 2), x : x + width])
        series = [found for query, name in panel.queries for found in ask(url, query, name, since, until)]
        axes.set_title(panel.title, loc="left", fontsize=9, fontweight="bold")
        if panel.is_stat:
            _draw_stat(axes, panel, series)
        else:
            _draw_series(axes, panel, series, until - since)
    figure.savefig(to, dpi=100)


def _draw_stat(axes: Any, panel: Panel, series: list[Series]) -> None:
    value = series[0].values[-1] if series else 0
    alarming = "24 h" in panel.title and value >= 1
    axes.text(
        0.5, 0.45, f"{value:.0f}", ha="center", va="center", fontsize=24, color="white" if alarming else "#2b8a3e"
    )
    axes.set_facecolor("#c92a2a" if alarming else "white")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_series(axes: Any, panel: Panel, series: list[Series], seconds: float) -> None:
    divisor, unit = {"bytes": (_MIB, "MiB"), "Bps": (_MIB, "MiB/s"), "s": (1, "s"), "ops": (1, "/s")}.get(
        panel.unit, (1, "")
    )
    below: dict[float, float] = {}
    for found in series:
        values = [value / divisor for value in found.values]
        if panel.is_bars:
            bottom = [below.get(at, 0.0) for at in found.times]
            axes.bar(
                found.times, values, width=INTERVAL, bottom=bottom, label=found.name, color=_COLOURS.get(found.name)
            )
            below.update(
                {at: at_bottom + value for at, at_bottom, value in zip(found.times, bottom, values, strict=True)}
            )
        else:
            axes.plot(found.times, values, linewidth=1.2, label=found.name)
    axes.set_xlim(0, seconds)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit)
    axes.tick_params(labelsize=7)
    if series:
        axes.legend(
            fontsize=6,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.11),
            ncols=4 if panel.place[2] >= 8 else 2,
            columnspacing=1.0,
            handlelength=1.2,
            frameon=False,
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long the load lasts")
    parser.add_argument("--to", type=Path, default=PICTURE, help="the picture")
    options = parser.parse_args()
    with a_redis() as redis, exporting(bridges := made(redis.port)) as target, prometheus(target) as url:
        since = time.time()
        anyio.run(fill, bridges, options.seconds)
        draw(url, since, since + options.seconds, options.to)
    print(options.to)


if __name__ == "__main__":
    main()
