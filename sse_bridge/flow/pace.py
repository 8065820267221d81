"""Pace: how often a viewer may be given something. Time comes in as an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

__all__ = ["Pace", "TokenBucket"]

#: Seconds' worth of tokens that are waited for together, if the bucket holds so many: a viewer is woken twenty times a
#: second at most, and not once a frame.
_PATIENCE: Final = 0.05
#: A token that is short of so little is one: clocks round, and a wait that ends too early would spin.
_ROUNDING: Final = 1e-3


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """A limit on the frames that a viewer gets, under any policy.

    Under `Block` it slows the sandbox down, under `Drop` it thins, under `Coalesce` it merges.

    Args:
        rate: frames a second, in the long run.
        burst: frames that may go at once after a silence; `None` is a second's worth.

    Raises:
        ValueError: an argument is not positive.
    """

    rate: float
    burst: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate < inf:
            raise ValueError(f"rate must be frames a second above zero, not {self.rate}")
        if self.burst is not None and (not isinstance(self.burst, int) or self.burst < 1):
            raise ValueError(f"burst must be a positive number of frames or None, not {self.burst}")

    @property
    def capacity(self) -> int:
        """Frames that may go at once."""
        return max(1, int(self.rate)) if self.burst is None else self.burst


class Pace:
    """The buckets of one viewer, all of which must have a token for a frame to go. They begin full.

    Args:
        buckets: at least one.
        now: seconds, on the clock of all later calls.
    """

    def __init__(self, buckets: Sequence[TokenBucket], now: float) -> None:
        self._buckets = buckets
        self._tokens = [float(bucket.capacity) for bucket in buckets]
        self._filled_at = now

    def available(self, now: float) -> int:
        """Frames that may go now."""
        passed = max(0.0, now - self._filled_at)
        self._filled_at = now
        for index, bucket in enumerate(self._buckets):
            self._tokens[index] = min(bucket.capacity, self._tokens[index] + passed * bucket.rate)
        return int(min(self._tokens) + _ROUNDING)

    def spend(self, frames: int) -> None:
        """So many have gone."""
        self._tokens = [tokens - frames for tokens in self._tokens]

    def ready_at(self, now: float) -> float:
        """When to ask again, if there are none now."""
        return now + max(
            (min(bucket.capacity, max(1.0, _PATIENCE * bucket.rate)) - tokens) / bucket.rate
            for bucket, tokens in zip(self._buckets, self._tokens, strict=True)
        )
