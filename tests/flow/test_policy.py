"""`Block`, `Drop` and `Coalesce`: what they ask of their arguments, what may be lost, and when a run must wait."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.flow.policy import Block, Coalesce, Drop, Policy

LOSSLESS: list[type[Block | Coalesce]] = [Block, Coalesce]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_run_waits_above_the_mark_and_goes_on_below_a_quarter(kind: type[Block | Coalesce]) -> None:
    """Between the marks the answer stays the same: the run wakes up once for three quarters of a mark."""
    policy = kind(high_water=1000)

    assert [policy.holds(pending, held=False) for pending in (0, 250, 999, 1000, 1001)] == [False] * 4 + [True]
    assert [policy.holds(pending, held=True) for pending in (1001, 999, 251, 250, 0)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("kind", LOSSLESS)
@given(high_water=st.integers(1, 10**6), steps=st.lists(st.integers(0, 2 * 10**6)))
def test_a_run_goes_on_whose_viewer_has_every_frame(
    kind: type[Block | Coalesce], high_water: int, steps: list[int]
) -> None:
    """Whatever the backlog was before. And a run waits for every viewer that is above the mark."""
    policy, held = kind(high_water), False
    for pending in steps:
        held = policy.holds(pending, held)
        assert held or pending <= high_water

    assert not policy.holds(0, held)


@pytest.mark.parametrize(
    ("policy", "may_lose"),
    [(Block(9), False), (Coalesce(9), False), (Coalesce(9, beyond="drop"), True), (Drop(9), True)],
    ids=repr,
)
def test_a_run_waits_where_no_frame_may_be_lost(policy: Policy, may_lose: bool) -> None:
    """Either the run waits beyond the mark, or frames are given up. By default `Coalesce` waits."""
    assert policy.may_lose == may_lose
    assert policy.holds(10, held=False) == policy.holds(10, held=True) == (not may_lose)


def test_only_coalesce_merges_and_only_at_its_rate() -> None:
    """It alone has a pace of its own."""
    assert [(policy.merges, policy.max_rate) for policy in (Block(), Drop(), Coalesce(max_rate=5))] == [
        (False, None),
        (False, None),
        (True, 5),
    ]


def test_a_viewer_that_may_lose_frames_has_no_time_to_stall() -> None:
    """The run reads on, however long it takes."""
    assert Drop().stall_timeout is None


@pytest.mark.parametrize("policy", [Block, Drop, Coalesce])
@pytest.mark.parametrize("mark", [0, -1, 0.5, 1.5, "1 MiB"])
def test_a_mark_is_a_positive_number_of_bytes(policy: type[Policy], mark: int) -> None:
    """A mark of zero would make a run wait for a viewer that has every frame."""
    with pytest.raises(ValueError, match=re.escape(f"high_water must be a positive number of bytes, not {mark!r}")):
        policy(mark)


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "30"])
def test_times_are_above_zero(kind: type[Block | Coalesce], seconds: float) -> None:
    """Zero would disconnect every viewer at once. The error says what to pass."""
    message = f"stall_timeout must be seconds above zero or None, not {seconds!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(stall_timeout=seconds)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "60"])
def test_rates_are_above_zero_and_finite(rate: float) -> None:
    """Zero would hold all frames back. A bucket of infinitely many tokens cannot be counted: `None` is unlimited."""
    with pytest.raises(
        ValueError, match=re.escape(f"max_rate must be events a second above zero or None, not {rate!r}")
    ):
        Coalesce(max_rate=rate)


@pytest.mark.parametrize("beyond", ["Drop", "", None, True, ["drop"]])
def test_beyond_the_mark_a_run_blocks_or_drops(beyond: Any) -> None:
    """Anything else is refused, with the two words to choose from."""
    with pytest.raises(ValueError, match=re.escape(f'beyond must be "block" or "drop", not {beyond!r}')):
        Coalesce(beyond=beyond)


@pytest.mark.parametrize("limit", [0.5, 1, None])
def test_times_and_rates_may_be_fractions_or_off(limit: float | None) -> None:
    """`None` switches a limit off."""
    assert Block(stall_timeout=limit).stall_timeout == limit
    assert Coalesce(max_rate=limit, stall_timeout=limit) == Coalesce(1048576, limit, "block", limit)


def test_defaults() -> None:
    """A viewer may fall 1 MiB behind and stall for 30 seconds; a browser gets all lines in 60 events a second."""
    assert Block() == Block(high_water=1048576, stall_timeout=30.0)
    assert Drop() == Drop(high_water=1048576)
    assert Coalesce() == Coalesce(high_water=1048576, max_rate=60.0, beyond="block", stall_timeout=30.0)


@pytest.mark.parametrize("policy", [Block(), Drop(), Coalesce()])
def test_a_policy_stays_as_it_was_checked(policy: Policy) -> None:
    """One policy may serve many viewers."""
    with pytest.raises(FrozenInstanceError):
        policy.high_water = 0  # type: ignore[misc]
