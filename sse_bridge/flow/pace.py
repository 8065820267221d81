"""Pace: how often a viewer may get frames. Time comes in as an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from ..arguments import how_to_make_a_number, is_a, number, shown

__all__ = ["Pace", "TokenBucket"]

#: A wait lasts until the bucket holds the tokens of this many seconds, or is full: a fast pace then wakes its viewer
#: twenty times a second instead of once a frame.
_SECONDS_PER_WAKE_UP: Final = 0.05
#: A token that lacks this little counts as whole. Clocks round, and a wait that ends a little early would spin.
_MISSING_SHARE: Final = 1e-3
#: Frames that may go out where no bucket is asked.
_UNLIMITED: Final = 2.0**53


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """A limit on the frames that a viewer gets, under any policy.

    Under `Block` it slows the sandbox down, under `Drop` it thins the output, under `Coalesce` it merges more lines.

    Args:
        rate: frames a second, in the long run.
        burst: frames that may go out at once after a silence; `None` for one second's worth.

    Raises:
        ValueError: an argument is zero, negative or of another kind.
    """

    rate: float
    burst: int | None = None

    def __post_init__(self) -> None:
        rate, burst = number(self.rate), number(self.burst)
        if rate is None or not 0 < rate < inf:
            raise ValueError(
                f"rate must be frames a second above zero, not {shown(self.rate)}.{how_to_make_a_number(self.rate)}"
            )
        if self.burst is not None and (burst is None or burst < 1 or not is_a(self.burst, int)):
            raise ValueError(
                f"burst must be a positive number of frames or None, not {shown(self.burst)}."
                f"{how_to_make_a_number(self.burst)}"
            )

    @property
    def capacity(self) -> int:
        """Frames that may go out at once."""
        return max(1, int(self.rate)) if self.burst is None else self.burst


class Pace:
    """The buckets of one viewer. They start full, and a frame goes out when every bucket has a token for it.

    Args:
        buckets: at least one.
        now: seconds, on the clock of all later calls.
    """

    def __init__(self, buckets: Sequence[TokenBucket], now: float) -> None:
        self._buckets = buckets
        self._tokens = [float(bucket.capacity) for bucket in buckets]
        self._filled_at = now

    def available(self, now: float, skipped: int = 0) -> int:
        """Frames that may go out now.

        Args:
            skipped: how many buckets at the beginning of the list are not asked this time.
        """
        passed = max(0.0, now - self._filled_at)
        self._filled_at = now
        for index, bucket in enumerate(self._buckets):
            self._tokens[index] = min(bucket.capacity, self._tokens[index] + passed * bucket.rate)
        return int(min(self._tokens[skipped:], default=_UNLIMITED) + _MISSING_SHARE)

    def spend(self, frames: int) -> None:
        """Takes the tokens of `frames` frames that went out. A bucket that was skipped may have had fewer."""
        self._tokens = [max(0.0, tokens - frames) for tokens in self._tokens]

    def ready_at(self, now: float) -> float:
        """When to call `available` again after it returned 0."""
        return now + max(
            (_wake_up_tokens(bucket) - tokens) / bucket.rate
            for bucket, tokens in zip(self._buckets, self._tokens, strict=True)
        )

    @property
    def longest_wait(self) -> float:
        """The most seconds that `ready_at` is away."""
        return max(_wake_up_tokens(bucket) / bucket.rate for bucket in self._buckets)


def _wake_up_tokens(bucket: TokenBucket) -> float:
    """How many tokens a wait is for."""
    return min(bucket.capacity, max(1.0, _SECONDS_PER_WAKE_UP * bucket.rate))
