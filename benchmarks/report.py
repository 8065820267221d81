"""Tables of the results, and of the targets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from .figures import COLUMNS, Figures, Medians
from .servers import PEERS
from .shapes import SHAPES
from .targets import TARGETS

__all__ = ["show", "show_targets"]


def show(name: str, figures: Medians) -> None:
    """Prints one shape: a line for each peer, sorted by the first figure."""
    shown = [column for column in COLUMNS if any(column in of for of in figures.values())]
    if not shown:
        return
    print(f"\n{name}: {SHAPES[name].title}\n")
    print(f"{'':32}" + "".join(f" {COLUMNS[column].title:>12}" for column in shown))
    for peer, of in sorted(figures.items(), key=lambda item: item[1][shown[0]]):
        print(f"{PEERS[peer].title:32}" + "".join(map(partial(_cell, of), shown)))


def _cell(figures: Figures, column: str) -> str:
    """One figure, or as much space if a peer lacks it."""
    return f" {figures[column]:>12{COLUMNS[column].form}}" if column in figures else " " * 13


def show_targets(figures: Mapping[str, Medians]) -> None:
    """Prints the targets of the measured shapes, and whether they were reached."""
    print(f"\n{'':3} {'':50} {'least':>14} {'goal':>6} {'figure':>8}")
    for target in TARGETS:
        if target.shape not in figures:
            continue
        figure = target.figure(figures)
        bound = f"{'at most' if target.at_most else 'at least'} {target.bound:6.2f}"
        goal = "" if target.goal is None else f"{target.goal:6.2f}"
        shown = "no figure" if figure is None else f"{figure:8.2f}"
        verdict = "" if figure is None else target.verdict(figure)
        print(f"{target.shape:3} {target.title:50} {bound:>14} {goal:>6} {shown:>8}  {verdict}")
