"""What a bridge asks of a store that several workers share: the seam behind which runs of other workers are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from ..errors import BridgeUnavailable
from ..relay.clock import Clock
from ..relay.mirror import Mirror
from ..relay.options import RunOptions
from ..relay.run import Run
from ..relay.statistics import StoreStatistics, Totals, WorkerStatistics
from ..upstream.base import Source, Work
from .memory import Key

__all__ = ["Census", "Claim", "Publication", "SharedStore", "Stage", "StoreAway"]

#: Seconds until another try makes sense: a store that restarts is back by then.
_RETRY_AFTER: Final = 2.0


class StoreAway(BridgeUnavailable):
    """The store does not answer now."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="busy", retry_after=_RETRY_AFTER)


class Census(NamedTuple):
    """One worker in numbers."""

    #: Runs that it reads.
    runs: int
    #: Viewers that it serves.
    viewers: int
    #: Other workers' runs that it follows.
    mirrors: int = 0
    #: Frames of its runs that the store has yet to take.
    lag: int = 0


class Stage(NamedTuple):
    """What a store works with in one event loop."""

    #: Runs a function in a task of its own, until the event loop ends.
    start_soon: Callable[..., None]
    clock: Clock
    #: The bridge's.
    options: RunOptions
    totals: Totals
    #: Counts the runs and viewers of this process.
    census: Callable[[], Census]


class Claim(NamedTuple):
    """Who has a key."""

    #: The run that has it: the one that claims it, or another one.
    token: str
    #: The run of another worker that has it.
    mirror: Mirror | None
    #: Whether it stands for something else.
    is_conflict: bool = False


class Publication(Protocol):
    """A run of this worker on its way to the store."""

    async def until_published(self) -> None:
        """Returns when the run has ended and its last frame is in the store, or the store cannot be reached in time."""
        ...


class SharedStore(Protocol):
    """Runs that several workers share. Its methods may wait for the store, and never in the way of a local viewer."""

    def enter(self, stage: Stage) -> None:
        """The bridge is used in an event loop: this worker takes part from now on."""
        ...

    def publish(self, run: Run, work: Work, key: Key | None, stage: Stage) -> Publication:
        """Shares a run from its first frame on."""
        ...

    async def admit(self, stage: Stage) -> None:
        """Returns if a run without a key may start now.

        Raises:
            StoreAway: it may not, because the store is away.
        """
        ...

    async def register(self, run: Run) -> None:
        """Makes a run known before its work is started. While the store is away it returns without that."""
        ...

    def statistics(self) -> StoreStatistics:
        """What this process shares, and what it has counted."""
        ...

    async def everywhere(self, stage: Stage) -> tuple[WorkerStatistics, ...]:
        """What each worker says of itself.

        Raises:
            StoreAway: it cannot be known now.
        """
        ...

    def withdraw(self, run: Run, *, is_known: bool) -> None:
        """The run has started nothing. Its key is free again.

        Args:
            is_known: whether a viewer may know its name, and come back for it.
        """
        ...

    async def claim(self, token: str, key: Key, source: Source, stage: Stage) -> Claim:
        """Claims a key for a run to be started, or finds the run that has it.

        Raises:
            StoreAway: it cannot be known now.
        """
        ...

    def release(self, token: str, key: Key) -> None:
        """No run came of a claim. The key is free again."""
        ...

    async def find(self, token: str, stage: Stage) -> Mirror | None:
        """Another worker's run; `None` if it is unknown.

        Raises:
            StoreAway: it cannot be known now.
        """
        ...
