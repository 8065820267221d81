"""Plots of the results, as SVG and PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from .figures import COLUMNS, Medians, medians
from .servers import PEERS
from .shapes import SHAPES

__all__ = ["draw"]

_OURS: Final = ("bridge", "pure", "verbatim", "h11", "httpx", "drop", "coalesce", "coalesce-drop")
_COLOURS: Final = {True: "#d9480f", False: "#8f99a3"}
_CURVES: Final = {"bridge": "#d9480f", "node": "#4a7a3f", "nginx": "#495057"}
#: Bar charts by name: the shape and the figure that each panel shows.
_BARS: Final = {
    "bursts": [("S1", "cpu_us"), ("S2", "cpu_us"), ("S9", "cpu_us"), ("S9x", "cpu_us")],
    "paced": [("S3", "cpu_us"), ("S3", "p99_ms"), ("S7", "p99_ms")],
    "idle": [("S8", "kib_each"), ("S8", "idle_percent")],
    "ends": [("S5", "peak_mib"), ("S5", "seconds"), ("S6", "closed_ms")],
}
_LOGARITHMIC: Final = ("cpu_us", "closed_ms", "peak_mib", "p99_ms")
#: Characters of a title's line that fit a panel.
_TITLE_WIDTH: Final = 32
_AXES: Final = {
    "streams": "streams of 20 lines a second",
    "viewers": "viewers of one run of 20 lines a second",
    "length": "bytes of a line, in a burst of one HTTP chunk per line",
}


def draw(results: Mapping[str, Any], directory: Path) -> None:
    """Writes all plots for which there are figures.

    Args:
        results: as `python -m benchmarks` writes them as JSON.
        directory: the folder for the files.
    """
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update(
        {"svg.hashsalt": "sse_bridge", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    figures = {name: medians(by_peer) for name, by_peer in results["runs"].items()}
    for name, panels in _BARS.items():
        shown = [(shape, column) for shape, column in panels if _has(figures.get(shape, {}), column)]
        if shown:
            _draw_bars(name, shown, figures, directory)
    if "growth" in results:
        _draw_growth(results["growth"], directory)


def _has(figures: Medians, column: str) -> bool:
    return any(column in of for of in figures.values())


def _draw_bars(name: str, panels: list[tuple[str, str]], figures: Mapping[str, Medians], directory: Path) -> None:
    from matplotlib import pyplot

    most = max(len(figures[shape]) for shape, _ in panels)
    picture, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 0.9 + 0.3 * most), squeeze=False)
    for axis, (shape, column) in zip(axes[0], panels, strict=True):
        rows = sorted(figures[shape].items(), key=lambda item: item[1][column], reverse=True)
        values = [of[column] for _, of in rows]
        axis.barh([PEERS[peer].title for peer, _ in rows], values, color=[_COLOURS[peer in _OURS] for peer, _ in rows])
        for place, value in enumerate(values):
            axis.annotate(
                f"{value:{COLUMNS[column].form}}", (value, place), (3, 0), textcoords="offset points", va="center"
            )
        if column in _LOGARITHMIC and min(values) > 0:
            axis.set_xscale("log")
            axis.set_xlim(min(values) / 2, 2 * max(values) ** 1.1 / min(values) ** 0.1)
        else:
            axis.set_xlim(0, 1.25 * max(values) or 1)
        axis.set_xticks([])
        axis.minorticks_off()
        axis.spines["bottom"].set_visible(False)
        unit = COLUMNS[column].title + (", logarithmic" if axis.get_xscale() == "log" else "")
        axis.set_title(f"{textwrap.fill(SHAPES[shape].title, _TITLE_WIDTH)}\n{unit}", loc="left", fontsize=9)
    _write(picture, directory, name)


def _draw_growth(growth: Mapping[str, Mapping[str, Any]], directory: Path) -> None:
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(1, len(growth), figsize=(4.6 * len(growth), 3.4), squeeze=False)
    for axis, (curve, by_number) in zip(axes[0], growth.items(), strict=True):
        by_peer: dict[str, list[tuple[float, float]]] = {}
        for number, runs in by_number.items():
            for peer, of in medians(runs).items():
                by_peer.setdefault(peer, []).append((float(number), of["cpu_us"]))
        for peer, points in by_peer.items():
            colour = _CURVES.get(peer, "#8f99a3")
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=PEERS[peer].title)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(_AXES[curve])
        for scale, form in ((axis.xaxis, "{x:,.0f}"), (axis.yaxis, "{x:g}")):
            scale.set_major_formatter(form)
            scale.set_minor_formatter("")
        axis.set_ylim(axis.get_ylim()[0] / 1.5, axis.get_ylim()[1] * 1.5)
        axis.legend(frameon=False, fontsize=8)
        axis.set_title("CPU us/line", loc="left", fontsize=9)
    _write(picture, directory, "growth")


def _write(picture: Any, directory: Path, name: str) -> None:
    from matplotlib import pyplot

    picture.tight_layout(w_pad=3)  # or the label of a long bar runs into the names beside it
    for path in _paths(directory, name):
        picture.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(picture)


def _paths(directory: Path, name: str) -> Iterable[Path]:
    return directory / f"{name}.svg", directory / f"{name}.png"
