"""`TokenBucket` and `Pace`: a limit on the frames that go out at once, and on those in the long run."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.flow.pace import Pace, TokenBucket


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    """Ten frames go out, then two a second; a long silence fills the bucket with ten tokens again."""
    pace = Pace([TokenBucket(2, burst=10)], now=100.0)

    assert pace.available(100.0) == 10
    pace.spend(10)
    assert pace.available(100.0) == 0
    assert pace.ready_at(100.0) == 100.5
    assert pace.available(100.5) == 1
    assert pace.available(1000.0) == 10


def test_a_fast_pace_wakes_its_viewer_for_several_tokens() -> None:
    """Twenty times a second, or whenever the bucket is full."""
    pace = Pace([TokenBucket(1000)], now=0.0)
    pace.spend(pace.available(0.0))
    assert pace.ready_at(0.0) == pytest.approx(0.05)

    small = Pace([TokenBucket(1000, burst=1)], now=0.0)
    small.spend(1)
    assert small.ready_at(0.0) == pytest.approx(0.001)


def test_every_bucket_has_to_agree() -> None:
    """The slowest bucket says when to ask again."""
    pace = Pace([TokenBucket(100, burst=5), TokenBucket(1, burst=2)], now=0.0)

    assert pace.available(0.0) == 2
    pace.spend(2)
    assert pace.available(0.5) == 0
    assert pace.ready_at(0.5) == 1.0
    assert pace.available(1.0) == 1


def test_a_clock_that_stands_still_or_goes_back_leaves_the_tokens_alone() -> None:
    """The bucket fills while time passes, counted from the last time it saw."""
    pace = Pace([TokenBucket(10, burst=2)], now=5.0)
    pace.spend(1)

    assert pace.available(5.0) == pace.available(4.0) == 1
    pace.spend(1)
    assert pace.available(4.05) == 0
    assert pace.available(4.1) == 1


def test_the_longest_wait_is_that_of_the_slowest_bucket() -> None:
    """From empty until one token is there, or those of a twentieth of a second."""
    assert Pace([TokenBucket(1000), TokenBucket(0.5, burst=3), TokenBucket(2)], now=0.0).longest_wait == 2.0
    assert Pace([TokenBucket(1000)], now=0.0).longest_wait == pytest.approx(0.05)


@given(
    st.floats(0.01, 10**5),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 100)), max_size=50),
    st.floats(0, 10**7),
)
def test_the_rate_is_kept_and_a_wait_always_pays(
    rate: float, burst: int, steps: list[tuple[float, int]], start: float
) -> None:
    """In any time t at most burst + t x rate frames go out; a viewer that waits until `ready_at` gets one."""
    pace, now, gone = Pace([TokenBucket(rate, burst)], start), start, 0
    for wait, wanted in steps:
        now += wait
        spent = min(wanted, pace.available(now))
        pace.spend(spent)
        gone += spent
        assert gone <= burst + (now - start) * rate + 1e-3 * max(1.0, rate)
        if not pace.available(now):
            assert pace.ready_at(now) <= now + pace.longest_wait * 1.01 + 1e-6
            now = pace.ready_at(now)
            assert pace.available(now) >= 1


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan"), "10", None, True, Decimal(10), timedelta(1)])
def test_a_rate_is_positive_and_finite(rate: Any) -> None:
    """A rate of zero would hold all frames back; an infinite one is spelled `None` by the caller."""
    with pytest.raises(ValueError, match="rate must be frames a second"):
        TokenBucket(rate)


@pytest.mark.parametrize("burst", [0, -1, 1.5, 2.0, "10", True, Decimal(10)])
def test_a_burst_is_a_number_of_frames(burst: Any) -> None:
    """With fewer than one, all frames would be held back."""
    with pytest.raises(ValueError, match="burst must be a positive number"):
        TokenBucket(1, burst)


def test_a_bucket_holds_a_seconds_worth_by_default() -> None:
    """Rounded down, and at least one token."""
    assert [TokenBucket(rate).capacity for rate in (0.1, 1, 2.9)] == [1, 1, 2]


def test_a_bucket_stays_as_it_was_checked() -> None:
    """One bucket may serve many viewers."""
    with pytest.raises(FrozenInstanceError):
        TokenBucket(1).rate = 0  # type: ignore[misc]
