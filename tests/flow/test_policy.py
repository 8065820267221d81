"""Policies answer questions about numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.flow.policy import Block, Coalesce, Drop


def test_block_waits_above_the_mark_and_goes_on_below_a_quarter() -> None:
    """Between the marks nothing changes: one wake-up for three quarters of a mark, not one a frame."""
    block = Block(high_water=1000)

    assert [block.holds(pending, held=False) for pending in (0, 250, 999, 1000, 1001)] == [False] * 4 + [True]
    assert [block.holds(pending, held=True) for pending in (1001, 999, 251, 250, 0)] == [True] * 3 + [False] * 2


@given(st.integers(1, 10**6), st.lists(st.integers(0, 2 * 10**6)))
def test_block_never_holds_a_run_whose_viewer_has_all(high_water: int, steps: list[int]) -> None:
    """However it got there, a viewer that has taken everything waits for nothing."""
    block, held = Block(high_water), False
    for pending in steps:
        held = block.holds(pending, held)
        assert held or pending <= high_water

    assert not block.holds(0, held)


@pytest.mark.parametrize("mark", [0, -1])
def test_a_mark_must_be_positive(mark: int) -> None:
    """A run that waits for a viewer with nothing pending would wait for ever."""
    with pytest.raises(ValueError, match="high_water"):
        Block(mark)


@pytest.mark.parametrize("policy", [Drop, Coalesce])
@pytest.mark.parametrize("mark", [0, -1, 0.5])
def test_every_mark_is_a_positive_number_of_bytes(policy: type[Drop | Coalesce], mark: int) -> None:
    """Whatever happens beyond it."""
    with pytest.raises(ValueError, match="high_water"):
        policy(mark)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_and_rates_are_above_zero(seconds: float) -> None:
    """`None` is how a limit is switched off."""
    with pytest.raises(ValueError, match="stall_timeout"):
        Block(stall_timeout=seconds)
    with pytest.raises(ValueError, match="max_rate"):
        Coalesce(max_rate=seconds)
    assert Block(stall_timeout=None).stall_timeout is Coalesce(max_rate=None).max_rate is None
