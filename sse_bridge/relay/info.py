"""What an application is told about a run: while it goes on, and when it has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, TypeAlias

from ..upstream.base import Cancelled, Source
from .kinds import kind_of

__all__ = ["Lifetime", "Outcome", "RunFacts", "RunInfo", "RunState"]

#: `starting` until the upstream has answered, `ended` once the terminal frame is out.
RunState: TypeAlias = Literal["starting", "running", "ended"]


class RunFacts(NamedTuple):
    """What is settled about a run before it begins."""

    #: The run's public name.
    token: str
    #: The identity that starts it; `None` for an anonymous one.
    owner: str | None
    #: What it reads.
    source: Source


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run at one moment, for the application's eyes. `repr` leaves the token out."""

    #: The run's public name. It lets its holder follow and end the run, unless the bridge knows identities.
    token: str
    #: The identity that started it; `None` for an anonymous one. A worker that follows another worker's run can name it
    #: only if it is the identity that asks; else this is `(another identity)`.
    owner: str | None
    #: What it reads: the source that `resolve` returned, or that `start` was given. `None` on a worker that follows
    #: another worker's run.
    source: Source | None
    #: Seconds since the epoch.
    started_at: float
    state: RunState

    def __repr__(self) -> str:
        return f"RunInfo({self.token[:6]}..., owner={self.owner!r}, source={self.source!r}, state={self.state!r})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    #: The command's exit code. `None` if it was not seen to exit, or the platform named none.
    exit_code: int | None
    #: The code of the `error` frame; `None` after an exit, and if a stream that is no command's just ended.
    error: str | None
    #: The message of the `error` frame; `None` if there was none.
    message: str | None
    #: Seconds from start to end.
    duration: float
    #: Frames before the terminal one. One frame is one line, except in `verbatim`.
    lines: int
    #: Bytes of all frames, as the dialect spells them.
    bytes: int
    #: How far ending the work got; `None` if the work ended by itself.
    cancelled: Cancelled | None
    #: Whether the platform ended the command because its time was up.
    timed_out: bool = False
    #: Seconds that ending the work took; `None` if the work ended by itself, or that is unknown here.
    cancel_duration: float | None = None

    @property
    def kind(self) -> str:
        """How it ended, in one word of a bounded set, for metrics.

        `exit_zero`, `exit_nonzero`, `timed_out`, `ended` (a stream without an exit code), or the `error` if the bridge
        chose that word. A word that the upstream chose is `upstream_error`.
        """
        return kind_of(self.error, self.exit_code, timed_out=self.timed_out)


class Lifetime:
    """When a run began, when it ended, and how long it may take.

    Args:
        now: seconds, on the clock of all later calls.
        limit: seconds; infinity for no limit.
        lost: seconds that the clock has left out so far.
    """

    __slots__ = ("_began", "_ended", "abandoned_at", "ended_at", "expires", "leaves_at", "started_at")

    def __init__(self, now: float, limit: float = inf, lost: float = 0.0) -> None:
        #: Seconds since the epoch.
        self.started_at = time.time()
        #: Seconds since the epoch; `None` while it goes on.
        self.ended_at: float | None = None
        #: When it has to end, on the clock.
        self.expires = now + limit
        #: When the grace period of a run without a viewer ends, on the clock; infinity while there is a viewer.
        self.abandoned_at = inf
        #: When a run that is over leaves an upstream that has not ended its stream, on the clock.
        self.leaves_at = inf
        self._began = self._ended = now + lost

    def end(self, now: float, lost: float = 0.0) -> None:
        """The run has ended."""
        self.ended_at = time.time()
        self.expires = self.abandoned_at = inf
        self._ended = now + lost

    @property
    def duration(self) -> float:
        """Seconds from its beginning to its end."""
        return self._ended - self._began
