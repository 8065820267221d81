"""What a bridge counts of its store, and how far Redis is behind a run."""

from __future__ import annotations

from ...upstream.base import Cancelled

__all__ = ["Counts", "Progress"]


class Counts:
    """The counts of one bridge, whatever event loops it sees."""

    __slots__ = ("frames_mirrored", "orphans", "published", "reconnects", "refilled", "refused")

    def __init__(self) -> None:
        self.frames_mirrored = 0
        self.published = 0
        self.reconnects = 0
        self.refused = 0
        self.refilled = 0
        #: How the work of dead workers was ended.
        self.orphans: dict[Cancelled, int] = dict.fromkeys(Cancelled, 0)


class Progress:
    """How much of a run Redis has acknowledged."""

    __slots__ = ("_taken_at", "next", "settled_at", "since")

    def __init__(self, now: float) -> None:
        #: The number of the first frame that Redis has not acknowledged.
        self.next = 1
        #: Since when Redis lacks a frame; `None` while it has all.
        self.since: float | None = None
        #: When Redis last acknowledged something.
        self.settled_at = now
        self._taken_at = now

    def takes(self, now: float) -> None:
        """All frames so far are on their way. What comes later waits since now at the earliest."""
        self._taken_at = now

    def settles(self, number: int, now: float, *, is_behind: bool) -> int:
        """Redis has the frames before `number`. Returns how many of them it did not have before."""
        new = number - self.next
        self.next, self.settled_at = number, now
        self.since = self._taken_at if is_behind else None
        return new

    def looks(self, number: int, now: float) -> int:
        """Redis was found to have the frames before `number`. Returns how many more that are, or how many fewer."""
        more = number - self.next
        self.next = number
        if more < 0 and self.since is None:
            self.since = now
        return more

    def lag(self, now: float) -> float:
        """Seconds for which Redis has lacked a frame."""
        return 0.0 if self.since is None else now - self.since
