"""A bucket of tokens: so many at once, so many in the long run."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.flow.pace import Pace, TokenBucket


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    """Ten tokens are there; after them two a second."""
    pace = Pace([TokenBucket(2, burst=10)], now=100.0)

    assert pace.available(100.0) == 10
    pace.spend(10)
    assert pace.available(100.0) == 0
    assert pace.ready_at(100.0) == 100.5
    assert pace.available(100.5) == 1
    assert pace.available(1000.0) == 10


def test_a_fast_pace_wakes_nobody_for_every_token() -> None:
    """Twenty times a second is enough; and never later than a full bucket."""
    pace = Pace([TokenBucket(1000)], now=0.0)
    pace.spend(pace.available(0.0))
    assert pace.ready_at(0.0) == pytest.approx(0.05)

    small = Pace([TokenBucket(1000, burst=1)], now=0.0)
    small.spend(1)
    assert small.ready_at(0.0) == pytest.approx(0.001)


def test_every_bucket_has_to_agree() -> None:
    """The slowest one says when."""
    pace = Pace([TokenBucket(100, burst=5), TokenBucket(1, burst=2)], now=0.0)

    assert pace.available(0.0) == 2
    pace.spend(2)
    assert pace.available(0.5) == 0
    assert pace.ready_at(0.5) == 1.0
    assert pace.available(1.0) == 1


def test_a_clock_that_stands_still_gives_nothing_and_takes_nothing() -> None:
    """Nor one that goes back."""
    pace = Pace([TokenBucket(10, burst=1)], now=5.0)
    pace.spend(1)

    assert pace.available(5.0) == pace.available(4.0) == 0


@given(
    st.floats(0.01, 10**5),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 100)), max_size=50),
    st.floats(0, 10**7),
)
def test_no_more_than_the_rate_allows_and_no_waiting_in_vain(
    rate: float, burst: int, steps: list[tuple[float, int]], start: float
) -> None:
    """In any time t no more than burst + t x rate go; and who waits until it is ready gets something."""
    pace, now, gone = Pace([TokenBucket(rate, burst)], start), start, 0
    for wait, wanted in steps:
        now += wait
        spent = min(wanted, pace.available(now))
        pace.spend(spent)
        gone += spent
        assert gone <= burst + (now - start) * rate + 1e-3 * max(1.0, rate)
        if not pace.available(now):
            now = pace.ready_at(now)
            assert pace.available(now) >= 1


@pytest.mark.parametrize("rate", [0, -1, inf, float("nan")])
def test_a_rate_is_above_zero_and_has_an_end(rate: float) -> None:
    """Nothing would ever go, or the limit would be none."""
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(rate)


@pytest.mark.parametrize("burst", [0, -1, 1.5])
def test_a_burst_is_a_number_of_frames(burst: int) -> None:
    """At least one, or nothing would ever go."""
    with pytest.raises(ValueError, match="burst"):
        TokenBucket(1, burst)


def test_a_bucket_holds_a_seconds_worth_unless_somebody_says() -> None:
    """At least one."""
    assert [TokenBucket(rate).capacity for rate in (0.1, 1, 2.9)] == [1, 1, 2]
