"""The order of the measurements. A machine that slows down meanwhile must not favour a shape or a peer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from benchmarks import __main__ as program
from benchmarks.client import Incorrect
from benchmarks.figures import Figures
from benchmarks.shapes import Shape

pytestmark = pytest.mark.slow

Measured = list[tuple[str, str]]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """The shapes and peers that were measured, in their order."""
    monkeypatch.setattr(program, "upstream", lambda lines: nullcontext("http://upstream"))
    monkeypatch.setattr(program, "warm_up", lambda: None)
    return []


@pytest.fixture
def shape_of(measured: Measured) -> Callable[..., Shape]:
    """Makes a shape that measures nothing. A peer in `fails` has no figures."""

    def shape_of(name: str, *, fails: str = "", **settings: int) -> Shape:
        def serve(peer: str, url: str) -> AbstractContextManager[str]:
            return nullcontext(peer)

        def measure(peer: str, share: float) -> Figures:
            measured.append((name, peer))
            if peer == fails:
                raise Incorrect("a line is missing")
            return {"cpu_us": 1.0}

        return Shape(name, ("nginx", "node"), measure, serve=serve, **settings)

    return shape_of


def test_shapes_and_peers_take_turns(measured: Measured, shape_of: Callable[..., Shape]) -> None:
    results = program.measure({"a": shape_of("a"), "b": shape_of("b")}, [], 2, 1.0)

    assert measured == 2 * [("a", "nginx"), ("a", "node"), ("b", "nginx"), ("b", "node")]
    assert {name: {peer: len(figures) for peer, figures in of_shape.items()} for name, of_shape in results.items()} == {
        "a": {"nginx": 2, "node": 2},
        "b": {"nginx": 2, "node": 2},
    }


def test_a_shape_may_be_measured_more_often_or_less(measured: Measured, shape_of: Callable[..., Shape]) -> None:
    program.measure({"often": shape_of("often", each=2), "once": shape_of("once", most=1)}, ["node"], 2, 1.0)

    assert [name for name, _ in measured] == ["often", "often", "once", "often", "often"]


def test_a_peer_that_fails_once_has_no_figures_in_that_shape(
    measured: Measured, shape_of: Callable[..., Shape]
) -> None:
    results = program.measure({"a": shape_of("a", fails="node", each=2), "b": shape_of("b")}, [], 2, 1.0)

    assert measured.count(("a", "node")) == 1
    assert results["a"]["node"] == []
    assert len(results["a"]["nginx"]) == 4
    assert len(results["b"]["node"]) == 2
