"""Who may become a viewer of a run: the last one that left, those that were sent away, and requests that wait."""

from __future__ import annotations

from math import inf

from .viewer import Viewer

__all__ = ["Expected"]


class Expected:
    """Who is no viewer now, and may become one."""

    __slots__ = ("_away", "requests", "until", "viewer")

    def __init__(self) -> None:
        #: The last viewer to leave, during the grace period.
        self.viewer: Viewer | None = None
        #: How many wait for the upstream's answer.
        self.requests = 0
        #: When the last one of those that were sent away must have come back; negative infinity if none is away.
        self.until = -inf
        self._away = 0

    def send_away(self, until: float) -> None:
        """A viewer, or all those of another worker, were sent away, and come back until then."""
        self._away += 1
        self.until = max(self.until, until)

    def come_back(self) -> None:
        """A viewer has come that saw a part of the run."""
        self._away = max(0, self._away - 1)
        if not self._away:
            self.until = -inf
