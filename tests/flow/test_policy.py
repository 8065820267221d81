"""`Block`, `Drop` and `Coalesce`: what they ask of their arguments, and when a run must wait."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.flow.policy import Block, Coalesce, Drop, Policy


def test_block_waits_above_the_mark_and_goes_on_below_a_quarter() -> None:
    """Between the marks the answer stays the same: the run wakes up once for three quarters of a mark."""
    block = Block(high_water=1000)

    assert [block.holds(pending, held=False) for pending in (0, 250, 999, 1000, 1001)] == [False] * 4 + [True]
    assert [block.holds(pending, held=True) for pending in (1001, 999, 251, 250, 0)] == [True] * 3 + [False] * 2


@given(st.integers(1, 10**6), st.lists(st.integers(0, 2 * 10**6)))
def test_block_lets_a_run_go_on_whose_viewer_has_every_frame(high_water: int, steps: list[int]) -> None:
    """Whatever the backlog was before. And a run waits for every viewer that is above the mark."""
    block, held = Block(high_water), False
    for pending in steps:
        held = block.holds(pending, held)
        assert held or pending <= high_water

    assert not block.holds(0, held)


@pytest.mark.parametrize("policy", [Block, Drop, Coalesce])
@pytest.mark.parametrize("mark", [0, -1, 0.5, 1.5])
def test_a_mark_is_a_positive_number_of_bytes(policy: type[Policy], mark: int) -> None:
    """A mark of zero would make a run wait for a viewer that has every frame."""
    with pytest.raises(ValueError, match="high_water"):
        policy(mark)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_and_rates_are_above_zero(seconds: float) -> None:
    """Zero would disconnect every viewer at once, or hold all frames back."""
    with pytest.raises(ValueError, match="stall_timeout"):
        Block(stall_timeout=seconds)
    with pytest.raises(ValueError, match="max_rate"):
        Coalesce(max_rate=seconds)


@pytest.mark.parametrize("limit", [0.5, 1, None])
def test_times_and_rates_may_be_fractions_or_off(limit: float | None) -> None:
    """`None` switches a limit off."""
    assert Block(stall_timeout=limit).stall_timeout == Coalesce(max_rate=limit).max_rate == limit


def test_defaults() -> None:
    """A viewer may fall 1 MiB behind, a stalled one has 30 seconds, and a browser gets 60 merged events a second."""
    assert Block() == Block(high_water=1048576, stall_timeout=30.0)
    assert Drop() == Drop(high_water=1048576)
    assert Coalesce() == Coalesce(high_water=1048576, max_rate=60.0)


@pytest.mark.parametrize("policy", [Block(), Drop(), Coalesce()])
def test_a_policy_stays_as_it_was_checked(policy: Policy) -> None:
    """One policy may serve many viewers."""
    with pytest.raises(FrozenInstanceError):
        policy.high_water = 0  # type: ignore[misc]
