"""A run that another worker reads: its frames come from a store, under the numbers that they have there.

For its viewers it is a run like any other: they read a log of this process, by their own policies.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple, TypeAlias

from ..upstream.base import Cancelled
from ..wire.ids import FrameIds, gone
from . import observer
from .audience import Audience
from .clock import Clock, Timer
from .ending import Cause, Done
from .info import Outcome, RunInfo, RunState
from .options import RunOptions
from .run import Refused, Run
from .signal import Latch, Signal
from .statistics import RunStatistics, Totals

__all__ = ["NOTHING_TO_WAIT_FOR", "Followed", "Halting", "Mirror", "MirrorFacts", "Place"]

#: Seconds that a mirror is kept after its last viewer has left: a browser comes back sooner.
KEEP: Final = 10.0
#: For viewers whose run goes on when their server stops.
NOTHING_TO_WAIT_FOR: Final = Latch()
NOTHING_TO_WAIT_FOR.set()


class _Nobody(str):
    """A name to read, which equals no identity: `authorize` compares the owner's with that of the request."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = str.__hash__


#: The owner of a run that another worker reads, for all but the owner. The store keeps no names.
ANOTHER: Final = _Nobody("(another identity)")


class MirrorFacts(NamedTuple):
    """What is known of another worker's run."""

    #: The run's public name.
    token: str
    #: Says whether an identity is the one that started it. The store keeps no name of an identity.
    is_owner: Callable[[str | None], bool]
    #: Whether an identity started it at all.
    is_owned: bool
    #: Seconds since the epoch.
    started_at: float
    #: There is no source here: it may hold a command, which stays out of the store.
    source: None = None


class Place(NamedTuple):
    """How far the viewers of a mirror are, for the worker that reads the run."""

    viewers: int
    #: The frame that the slowest viewer needs next that the run waits for; `None` if it waits for none.
    number: int | None
    #: The bytes that this viewer may be behind.
    mark: int
    #: Without viewers: the seconds in which one comes back that was sent away.
    returns_within: float


class Halting(Latch):
    """Ending another worker's run. Set once that worker has said how far it got.

    Args:
        ask: asks that worker for it.
    """

    __slots__ = ("__weakref__", "ask", "cancelled")

    def __init__(self, ask: Callable[[Halting], None]) -> None:
        super().__init__()
        self.ask = ask
        #: How far it got; `None` if nothing had to be ended, or that is unknown.
        self.cancelled: Cancelled | None = None

    def halt(self, cancelled: Cancelled | None) -> None:
        """That worker has ended the run."""
        self.cancelled = cancelled
        self.set()


class Mirror:
    """Another worker's run, as far as it is known here.

    Args:
        facts: its name, its owner and its beginning.
        options: the bridge's, with the dialect of this run.
        totals: where everything is counted that outlives the mirror.
        clock: of the event loop that feeds it.
        first: the number of the first frame that can still be had.
        halting: asks the worker that reads the run to end it.
        moved: is called when a viewer has come, or has left.
    """

    def __init__(
        self,
        facts: MirrorFacts,
        options: RunOptions,
        totals: Totals,
        clock: Clock,
        first: int,
        halting: Halting,
        moved: Callable[[], None],
    ) -> None:
        self.facts = facts
        self._ids = FrameIds(facts.token if options.ids else None)
        self.audience = Audience(self, self._ids, options, totals, clock, first)
        #: Set once the upstream has said yes or no.
        self.answered = Latch()
        #: Why there is no stream; `None` if there is one, or no answer yet.
        self.refused: Refused | None = None
        self.done = Done()
        #: Notified when frames have come, or the end.
        self.grown = Signal()
        #: Is called when the run has ended, or the mirror is dropped.
        self.over: Callable[[], None] = _nothing
        #: When it is dropped, since it has no viewer.
        self.drop_at = clock.now() + KEEP
        #: Whether the worker that read the run is gone.
        self.is_lost = False
        self.halting = halting
        self._end: tuple[Outcome | None, float | None] = None, None
        self._moved = moved
        self._clock = clock
        self._timer: Timer = clock.start(self)

    # -- as a run

    @property
    def token(self) -> str:
        """The run's public name."""
        return self.facts.token

    @property
    def is_over(self) -> bool:
        """Whether its terminal frame is here."""
        return self.audience.log.closed

    @property
    def state(self) -> RunState:
        """How far the run has come."""
        return "ended" if self.is_over else "running" if self.answered.is_set else "starting"

    @property
    def ended_at(self) -> float | None:
        """Seconds since the epoch; `None` while the run goes on, or if that is unknown."""
        return self._end[1]

    @property
    def closing(self) -> Latch:
        """See `Run.closing`. The viewers of a mirror wait for nothing."""
        return NOTHING_TO_WAIT_FOR

    @property
    def cancelled(self) -> Cancelled | None:
        """See `Halting.cancelled`."""
        return self.halting.cancelled

    @property
    def info(self) -> RunInfo:
        """The run as it is now, without the name of its owner."""
        return self.info_for(None)

    def info_for(self, identity: str | None) -> RunInfo:
        """The run as it is now, for that identity. Its owner is named only if that is who asks."""
        owner = identity if self.is_owned_by(identity) and self.facts.is_owned else None
        if owner is None and self.facts.is_owned:
            owner = ANOTHER
        return RunInfo(self.token, owner, None, self.facts.started_at, self.state)

    def is_owned_by(self, identity: str | None) -> bool:
        """Whether that identity may act as its owner: it started the run, or the run was started without one."""
        return not self.facts.is_owned or self.facts.is_owner(identity)

    def outcome(self) -> Outcome:
        """How the run ended, as far as that is known here."""
        log, lost = self.audience.log, Cause.OWNER_LOST if self.is_lost else None
        return self._end[0] or Outcome(
            None, lost and lost.code, lost and lost.message, 0.0, log.next - 1, log.size, None
        )

    def statistics(self) -> RunStatistics:
        """The count so far."""
        name = observer.name_of(self.token)
        return self.audience.statistics(name, discarded_frames=0, discarded_bytes=0, is_mirrored=True)

    def cancel(self, cause: Cause = Cause.CANCELLED) -> None:
        """Asks the worker that reads the run to end it. Never waits; see `halting`."""
        self.halting.ask(self.halting)

    # -- feeding

    def feed(self, frames: bytes, next_number: int) -> None:
        """Adds whole frames from the log's next number on."""
        self.answered.set()
        self.audience.append(frames, next_number)
        self.grown.notify()

    def end(self, outcome: Outcome | None = None, ended_at: float | None = None) -> None:
        """The run has ended, as its last frame tells. Nothing follows.

        Args:
            outcome: how; `None` if that is unknown.
            ended_at: seconds since the epoch; `None` if that is unknown.
        """
        if not self.is_over:
            self._end = outcome, ended_at
            self.answered.set()
            self._close()

    def lose(self) -> None:
        """The worker that read the run is gone."""
        if self.is_over:
            return
        self.is_lost = True
        self.answered.set()
        dialect, log = self.audience.options.dialect, self.audience.log
        lost = Cause.OWNER_LOST
        if frame := dialect.own_frame("error", {"code": lost.code, "message": lost.message}):
            # A viewer of the dead worker may have seen a frame of that number that was never shared. So this frame
            # has an id that tells, when its viewer comes back, that it was told.
            self.audience.append(gone(self.token, frame) if self._ids.visible else frame + b"\n\n", log.next + 1)
        self._close()

    def refuse(self, reason: Refused) -> None:
        """The upstream has refused."""
        self.refused = reason
        self.answered.set()
        self._close()

    def restart(self) -> None:
        """Frames are missing that will not come. The viewers come back, to a mirror that begins behind the hole."""
        self.audience.send_away()
        self.discard()

    def keep(self) -> None:
        """Somebody needs it who is no viewer, and says so every few seconds."""
        if not self.is_discarded:
            self.drop_at = max(self.drop_at, self._clock.now() + KEEP)

    def discard(self) -> None:
        """The mirror is not kept."""
        self.drop_at = -inf
        self._close()

    @property
    def is_discarded(self) -> bool:
        """Whether the next request for the run gets another mirror."""
        return self.drop_at == -inf

    def _close(self) -> None:
        self._timer.stop()
        if not self.is_over:
            self.audience.close()
        self.done.set()
        self.grown.notify()
        self.over()

    async def reaches(self, number: int) -> None:
        """Returns once all frames before `number` are here, or are known to never come."""
        while self.audience.log.next < number and not self.is_over:
            await self.grown.wait()

    def begins(self, number: int) -> int:
        """Where a viewer begins that needs frame `number`. One that is ahead of a lost run is told of its end."""
        log = self.audience.log
        return min(number, log.next - (self.is_lost and self.audience.options.dialect.has_own_frames))

    # -- as the feeder of its audience

    def deserted(self, until: float) -> None:
        """See `Feeder.deserted`. The grace period is the business of the worker that reads the run."""
        self.drop_at = self._clock.now() + KEEP
        self._moved()

    def followed(self) -> None:
        """See `Feeder.followed`."""
        self.drop_at = inf
        self._moved()

    def hasten(self, due: float) -> None:
        """See `Feeder.hasten`."""
        self._timer.hasten(due)

    def tick(self, now: float) -> float:
        """See `Clocked.tick`."""
        return self.audience.end_stalls(now)

    def place(self) -> Place:
        """How far its viewers are."""
        audience = self.audience
        viewers = audience.viewers
        return Place(viewers, *audience.slowest(), 0.0 if viewers else audience.returns_within)


def _nothing() -> None:
    pass


#: What can be followed: a run of this process, or a mirror.
Followed: TypeAlias = Run | Mirror
