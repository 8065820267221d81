"""The clients that a run waits for while it has no viewers."""

from __future__ import annotations

from math import inf

from .viewer import Viewer

__all__ = ["Expected"]


class Expected:
    """The clients that a run waits for: its last viewer, viewers that the bridge sent away, and waiting requests."""

    __slots__ = ("_away", "requests", "until", "viewer")

    def __init__(self) -> None:
        #: The last viewer to leave, during the grace period.
        self.viewer: Viewer | None = None
        #: How many requests wait for the upstream's answer.
        self.requests = 0
        #: Until when the run waits for viewers that the bridge sent away; negative infinity if it waits for none.
        self.until = -inf
        self._away = 0

    def send_away(self, until: float) -> None:
        """The bridge has sent a viewer away, or all viewers of another worker. The run waits for them until then."""
        self._away += 1
        self.until = max(self.until, until)

    def come_back(self) -> None:
        """A viewer has come that has seen a part of the run. The bridge takes it for one that it sent away."""
        self._away = max(0, self._away - 1)
        if not self._away:
            self.until = -inf
