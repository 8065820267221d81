"""Readers of a run's log beside its viewers: what takes frames to other workers, and the viewers that are there."""

from __future__ import annotations

from math import inf
from typing import Protocol

from ..flow.delivery import Delivery
from .viewer import Gone

__all__ = ["Afar", "Doubt", "Holder", "Tap"]


class Holder(Protocol):
    """A reader of the log for which a run may have to wait."""

    @property
    def delivery(self) -> Delivery:
        """Its place in the log, and its policy."""
        ...

    def stalls_at(self, now: float, held_since: float, timeout: float) -> tuple[float, float]:
        """See `Viewer.stalls_at`."""
        ...

    def end(self, reason: Gone) -> None:
        """It has held the run back for longer than its policy allows."""
        ...


class Tap(Holder, Protocol):
    """A reader of the log other than a viewer. It holds the run back as its policy says, and counts as no viewer where
    the grace period begins.
    """

    def notify(self, now: float) -> None:
        """The log has grown, or has ended. `now` is the time of the run's clock."""
        ...


class Doubt(Protocol):
    """Whether this process may count as dead elsewhere, since it stood still. Nothing is shown until that is known."""

    def arises(self) -> bool:
        """Whether it may. Costs little, since it is asked for each chunk."""
        ...

    def hold(self, chunk: bytes) -> None:
        """Keeps a chunk that arrived in doubt."""
        ...

    async def settle(self) -> list[bytes]:
        """Waits until it is known. Returns the chunks that were kept; the run may have been ended by then."""
        ...


class Afar:
    """The viewers of another worker: the slowest of those that the run waits for."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery

    def stalls_at(self, now: float, held_since: float, timeout: float) -> tuple[float, float]:
        """Their own worker looks after that."""
        return inf, inf

    def end(self, reason: Gone) -> None:
        """Their own worker looks after that."""
