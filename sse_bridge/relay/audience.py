"""A run's log and the viewers that read it: what is kept for them, and which of them hold the run back.

An audience takes numbered frames from anybody: a `Run` that reads an upstream, or another feeder. It does not know
where frames come from or how they are written to a viewer's response.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Final, Protocol

from ..flow.delivery import Delivery
from ..flow.log import RunLog
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Drop, Policy
from ..wire.ids import FrameIds
from .clock import Clock
from .elsewhere import Afar, Holder, Tap
from .expected import Expected
from .options import RunOptions, ViewerOptions
from .rounds import Rounds
from .signal import Signal
from .statistics import RunStatistics, Totals
from .viewer import Gone, Viewer

__all__ = ["Audience", "Feeder"]

#: Seconds that the first viewer of a run has to come that was started without one, if `grace` is shorter.
FIRST_VIEWER: Final = 10.0


class Feeder(Protocol):
    """The party that feeds an audience, and what the audience tells it. None of these methods waits."""

    def deserted(self, until: float) -> None:
        """The last viewer has left. The feeder ends at `until` unless `followed` is called first.

        Args:
            until: infinity for never, negative infinity for at once.
        """
        ...

    def followed(self) -> None:
        """There is a viewer again."""
        ...

    def hasten(self, due: float) -> None:
        """The feeder is to call `end_stalls` at `due` at the latest."""
        ...


class Audience:
    """The viewers of one run, and the log they read.

    Args:
        feeder: is told when the last viewer leaves, until `close`.
        ids: how the run's frames are numbered.
        options: the bridge's.
        totals: where everything is counted that outlives the run.
        clock: of the event loop that feeds.
        first: the number of the first frame.
    """

    __slots__ = (
        "_calm_until",
        "_clock",
        "_expected",
        "_feeder",
        "_held_since",
        "_ids",
        "_others",
        "_rounds",
        "_stalls",
        "_totals",
        "_viewers",
        "log",
        "options",
        "taken",
    )

    def __init__(
        self, feeder: Feeder, ids: FrameIds, options: RunOptions, totals: Totals, clock: Clock, first: int = 1
    ) -> None:
        self.log = RunLog(options.replay, first)
        self._feeder: Feeder | None = feeder
        self._ids = ids
        self.options = options
        self._totals = totals
        self._clock = clock
        self._viewers: list[Viewer] = []
        self._expected = Expected()
        self._others: dict[Tap | str, Holder] = {}  # taps, and other workers' viewers by the worker
        #: Notified whenever a reader has taken something, or there may be room for another reason.
        self.taken = Signal()
        self._rounds = Rounds(clock, self.taken)  # of all that read the log
        self._held_since: float | None = None
        self._calm_until: float = -1  # up to this size of the log every viewer is within its mark: skip the look
        self._stalls = 0

    # -- viewers

    @property
    def viewers(self) -> int:
        """How many viewers there are."""
        return len(self._viewers)

    @property
    def is_followed(self) -> bool:
        """Whether at least one viewer is still there, or a request that waits for the upstream's answer."""
        return (
            self._expected.requests > 0
            or self._is_followed_from_afar
            or any(viewer.gone is None for viewer in self._viewers)
        )

    def view(
        self, policy: Policy, rate: TokenBucket | None, number: int, options: ViewerOptions, clock: Clock
    ) -> Viewer:
        """Adds a viewer that reads from frame `number` on. Call `leave` when it is gone.

        Args:
            policy: what happens when the viewer falls behind.
            rate: a limit on frames; `None` for none.
            number: of the first frame it needs.
            options: the bridge's.
            clock: of the event loop that writes to the viewer. It counts once the run is over. Until then the viewer
                uses the run's clock: a second server in the same event loop has another one.

        Raises:
            ValueError: `number` is beyond the next frame.
        """
        clock = clock if self.log.closed else self._clock
        delivery = Delivery(self.log, self.options.dialect, self._ids, policy, rate, number, clock.now())
        viewer = Viewer(delivery, self.taken, options, clock)
        self._viewers.append(viewer)
        self._rounds.readers.append(viewer)
        self._calm_until = -1  # the newcomer may be far behind already: look
        self._totals.viewers_seen += 1
        self._forget_absent()
        if number > 1:
            self._expected.come_back()
        if self._feeder is not None:
            self._feeder.followed()
        self.taken.notify()
        return viewer

    def expect(self, policy: Policy, rate: TokenBucket | None, options: ViewerOptions, clock: Clock) -> None:
        """Keeps a place for the first viewer of a run that starts without one, as if a viewer had just left.

        It holds the run back as its policy allows, so that the first viewer gets the run from its beginning.
        """
        delivery = Delivery(self.log, self.options.dialect, self._ids, policy, rate, 1, clock.now())
        self._expected.viewer = Viewer(delivery, self.taken, options, clock)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Keeps the run while somebody waits for its upstream's answer. Its first viewer has time to come then."""
        self._expected.requests += 1
        if self._feeder is not None:
            self._feeder.followed()
        try:
            yield
        finally:
            self._expected.requests -= 1
            self.begin_grace(FIRST_VIEWER)

    def begin_grace(self, least: float) -> None:
        """Begins the grace period of a run without a viewer.

        Args:
            least: seconds that a viewer has to come, however short the grace period is.
        """
        if (
            not self._viewers
            and not self._expected.requests
            and not self._is_followed_from_afar
            and self._feeder is not None
        ):
            grace = self.options.grace
            until = inf if grace is None else self._clock.now() + max(grace, least)
            self._feeder.deserted(max(until, self._expected.until))

    def leave(self, viewer: Viewer) -> None:
        """Forgets a viewer. May be called again.

        When the last viewer leaves, the grace period begins. Its cursor stays, and may hold the run back. A viewer that
        we sent away because its time was up has time to come back, however short the grace period is.
        """
        if viewer not in self._viewers:
            return
        self._viewers.remove(viewer)
        self._rounds.readers.remove(viewer)
        self._totals.add_viewer(viewer.delivery.statistics())
        self._totals.viewers_stalled += viewer.gone is Gone.STALLED
        now = self._clock.now()
        if viewer.returns_within:
            self._expected.send_away(now + viewer.returns_within)
        if self._viewers or self._is_followed_from_afar or self._feeder is None:
            viewer.delivery.cursor.close()
            self.taken.notify()
            return
        self._expected.viewer = viewer
        if self.options.grace is None:
            self._feeder.hasten(self.end_stalls(now))  # the absent viewer holds the run only as its policy allows
            self._feeder.deserted(inf)
        elif not self._expected.requests:
            until = max(now + self.options.grace, self._expected.until)
            self._feeder.deserted(until if until > now else -inf)

    def _forget_absent(self) -> None:
        """Stops waiting for the viewer that left last."""
        if self._expected.viewer is not None:
            self._expected.viewer.delivery.cursor.close()
            self._expected.viewer = None

    @property
    def returns_within(self) -> float:
        """Seconds in which viewers come back that we have sent away, or are sending away. 0 if there is none."""
        due = max(0.0, self._expected.until - self._clock.now())
        return max((viewer.returns_within for viewer in self._viewers), default=due)

    def slowest(self) -> tuple[int | None, int]:
        """The frame that the slowest viewer needs next that the run waits for, and the bytes that it may be behind."""
        held = [viewer.delivery for viewer in self._viewers if not viewer.delivery.policy.may_lose]
        if not held:
            return None, 0
        slowest = max(held, key=lambda delivery: delivery.pending)
        return slowest.cursor.next, slowest.policy.high_water

    def behind(self) -> int:
        """The bytes that the slowest viewer is behind for which the run waits."""
        return max((each.delivery.pending for each in self._viewers if not each.delivery.policy.may_lose), default=0)

    # -- other readers

    def tap(self, tap: Tap) -> None:
        """Adds a reader of the log. Call `untap` when it is done."""
        self._others[tap] = tap
        self._rounds.readers.append(tap)
        self._calm_until = -1

    def untap(self, tap: Tap) -> None:
        """Removes a reader of the log. May be called again."""
        if self._others.pop(tap, None) is not None:
            self._rounds.readers.remove(tap)
            self.taken.notify()

    def follow_from_afar(self, worker: str, number: int | None, mark: int) -> None:
        """Notes that there are viewers on another worker.

        Args:
            number: of the frame that the slowest of those needs that the run waits for; `None` if it waits for none.
            mark: the bytes that this one may be behind.
        """
        policy = Drop() if number is None else Block(high_water=mark, stall_timeout=None)
        place = self.log.next if number is None else min(max(number, 1), self.log.next)
        delivery = Delivery(self.log, self.options.dialect, self._ids, policy, None, place, self._clock.now())
        self._end_afar(worker)
        self._others[worker] = Afar(delivery)
        self._calm_until = -1
        self._forget_absent()
        if self._feeder is not None:
            self._feeder.followed()
        self.taken.notify()

    def leave_from_afar(self, worker: str, returns_within: float = 0.0) -> None:
        """Notes that the viewers of another worker have left. Without others, the grace period begins.

        Args:
            returns_within: seconds in which they come back, since that worker has sent them away.
        """
        if self._end_afar(worker):
            self.taken.notify()
            if returns_within:
                self._expected.send_away(self._clock.now() + returns_within)
            self.begin_grace(returns_within)

    def needed_elsewhere(self) -> int:
        """The number of the oldest frame that viewers of other workers need for which the run waits, or the next."""
        waits = [
            other for other in self._others.values() if isinstance(other, Afar) and not other.delivery.policy.may_lose
        ]
        return min((each.delivery.cursor.next for each in waits), default=self.log.next)

    def _end_afar(self, worker: str) -> bool:
        afar = self._others.pop(worker, None)
        if afar is not None:
            afar.delivery.cursor.close()
        return afar is not None

    @property
    def _is_followed_from_afar(self) -> bool:
        return any(isinstance(other, Afar) for other in self._others.values())

    # -- feeding

    def append(self, frames: bytes, next_number: int) -> bool:
        """Adds whole, numbered frames and wakes the viewers. Says whether there is room for more, as `has_room` does.

        `next_number` follows the last frame. The feeder may call this in a callback of the event loop, where anyio
        cannot tell which library runs.

        Raises:
            ValueError: the log is closed, or the numbers do not rise.
        """
        log = self.log
        log.append(frames, next_number)
        self._rounds.tell()
        return log.size <= self._calm_until or not self._must_wait()

    def send_away(self) -> None:
        """Ends the responses of all viewers between two frames, so that their clients come back with their places."""
        for viewer in self._viewers:
            viewer.send_away()

    def close(self) -> None:
        """Ends the log: viewers take what is there and are done. The feeder is told nothing from now on."""
        self.log.close()
        self._feeder = None
        self._rounds.tell()

    def has_room(self) -> bool:
        """Whether the feeder may add more. Above a viewer's mark it waits, see `wait_for_room`."""
        return self.log.size <= self._calm_until or not self._must_wait()

    async def wait_for_room(self) -> None:
        """Returns once no viewer is too far behind."""
        while self._must_wait():
            await self.taken.wait()

    @property
    def is_held(self) -> bool:
        """Whether the feeder was last told to wait."""
        return self._held_since is not None

    def _must_wait(self) -> bool:
        was_held = self._held_since is not None
        deliveries = [viewer.delivery for viewer in self._counted]
        is_held = any(delivery.holds(was_held) for delivery in deliveries)
        self._calm_until = -1 if is_held else min((delivery.calm_until for delivery in deliveries), default=inf)
        if not is_held:
            self._held_since = None
        elif not was_held:
            self._stalls += 1
            self._held_since = self._clock.now()
            if self._feeder is not None:
                self._feeder.hasten(self.end_stalls(self._held_since))
        return is_held

    @property
    def _counted(self) -> Sequence[Holder]:
        """All that can hold the run back. The last viewer to leave counts: it may come back."""
        viewers = self._viewers or ([self._expected.viewer] if self._expected.viewer else [])
        return [*viewers, *self._others.values()] if self._others else viewers

    def end_stalls(self, now: float) -> float:
        """Disconnects viewers that held the run back for longer than their policy allows; says when to ask again.

        The grace period bounds how long an absent viewer is waited for. Without a grace period its policy does, and
        then the run goes on without it.
        """
        due = inf
        if self._held_since is None:
            return due
        for viewer in self._counted:
            timeout = viewer.delivery.stall_timeout
            is_bounded = viewer is self._expected.viewer and self.options.grace is not None
            if timeout is None or is_bounded or not viewer.delivery.holds(True):
                continue
            stalled_at, look_at = viewer.stalls_at(now, self._held_since, timeout)
            if now < stalled_at:
                due = min(due, stalled_at, look_at)
            elif viewer is self._expected.viewer:
                self._forget_absent()
                self.taken.notify()
            else:
                viewer.end(Gone.STALLED)
        return due

    # -- counting

    def statistics(
        self, name: str, *, discarded_frames: int, discarded_bytes: int, is_mirrored: bool = False
    ) -> RunStatistics:
        """The count so far, with what the feeder knows beside it."""
        return RunStatistics(
            name=name,
            is_over=self.log.closed,
            frames_in=self.log.next - 1,
            bytes_in=self.log.size,
            bytes_kept=self.log.kept,
            frames_discarded=discarded_frames,
            bytes_discarded=discarded_bytes,
            stalls=self._stalls,
            viewers=tuple(viewer.delivery.statistics() for viewer in self._viewers),
            is_mirrored=is_mirrored,
        )
