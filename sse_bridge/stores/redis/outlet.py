"""A run's frames on their way to Redis: a reader of the run's log, beside its viewers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from ...flow.delivery import Delivery
from ...flow.policy import Block
from ...relay.clock import Clock
from ...relay.run import Run
from ...relay.signal import Latch, Signal
from ...relay.viewer import Gone
from ...wire.ids import FrameIds
from ..memory import Key
from .counting import Progress

__all__ = ["Outlet"]

#: Bytes of an entry.
_MOST: Final = 64 * 1024
#: Bytes that Redis may be behind, and seconds for which it may hold the run then: as a viewer's policy.
_POLICY: Final = Block(high_water=8 * 1024 * 1024, stall_timeout=2.0)
#: Seconds that the end of a run waits for Redis when the server stops.
_LAST_WAIT: Final = 1.0


class Outlet:
    """A run's frames on their way to Redis. For the run it is a reader like a viewer, and holds it back like one.

    Args:
        run: the run.
        name: what it is called in Redis.
        clock: of the event loop that reads the run.
        notice: is called when there are frames to send.
        replay: bytes that Redis keeps once they are published; `None` for as much as the run's log.
        key: what requests for the run share; `None` if it is found by its name alone.
    """

    def __init__(
        self, run: Run, name: str, clock: Clock, notice: Callable[[Outlet], None], replay: int | None, key: Key | None
    ) -> None:
        self.run = run
        self.name = name
        #: `None` also once the key is free for another run.
        self.key = key
        #: Whether a viewer may know the run's name, and come back for it.
        self.is_known = True
        #: The workers that follow it.
        self.listeners: set[str] = set()
        #: Its last entry is in Redis, or can never be.
        self.ended = Latch()
        #: Whether the stream is in Redis, as far as is known: then a missing key is a loss.
        self.exists = False
        #: Redis may lack frames, or have some that it did not acknowledge.
        self.is_doubtful = False
        self._clock = clock
        #: Notified when the tail of the stream was looked at.
        self.checked = Signal()
        self._notice = notice
        #: How much of the run Redis has.
        self.progress = Progress(clock.now())
        self._delivery: Delivery | None = None
        # A reader that never reads: it gives up all but the last bytes, so that its place is where they begin.
        log = run.audience.log
        self._kept = None if replay is None else log.attach(1, max(1, min(replay, log.replay)))
        self._attach(1)

    @property
    def delivery(self) -> Delivery:
        """See `Holder.delivery`."""
        assert self._delivery is not None, "only an attached outlet is asked"
        return self._delivery

    @property
    def is_attached(self) -> bool:
        """Whether it reads the log. One that held the run for too long does not."""
        return self._delivery is not None

    def _attach(self, number: int) -> None:
        audience = self.run.audience
        ids = FrameIds(self.run.token if audience.options.ids else None)
        number = min(number, audience.log.next)
        self._delivery = Delivery(audience.log, audience.options.dialect, ids, _POLICY, None, number, 0.0)
        self._sent = audience.log.attach(self._delivery.cursor.next)
        audience.tap(self)

    def rewind(self, number: int) -> int:
        """Goes on with frame `number`, or with the oldest that is kept: Redis has those before it.

        Returns:
            How many of them were not known to be there, or, below zero, how many Redis has lost.
        """
        self.detach()
        self._attach(number)
        return self.progress.looks(number, self._clock.now())

    def close(self) -> None:
        """Publishes nothing more."""
        self.detach()
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self.ended.set()

    def reopen(self) -> None:
        """Redis may have lost the end of its run."""
        self.ended = Latch()
        self.is_doubtful = True

    def detach(self) -> None:
        """Reads the log no further."""
        self.run.audience.untap(self)
        if self._delivery is not None:
            self._delivery.cursor.close()
            self._sent.close()
            self._delivery = None

    # -- as a holder

    def notify(self, now: float) -> None:
        """See `Tap.notify`. The outlet reads its own clock: the store may outlive the server whose run it publishes."""
        if self.progress.since is None:
            self.progress.since = self._clock.now()
        self._notice(self)

    def stalls_at(self, now: float, held_since: float, timeout: float) -> tuple[float, float]:
        """See `Holder.stalls_at`."""
        since = max(held_since, self.progress.settled_at)
        return since + timeout, since + timeout

    def end(self, reason: Gone) -> None:
        """See `Holder.end`: Redis hangs, and the run goes on without it."""
        self.is_doubtful = True
        self.detach()

    # -- publishing

    def take(self) -> tuple[int, bytes]:
        """The number of the next frame, and the frames that go out next. See `settle`."""
        cursor = self._sent
        self.progress.takes(self._clock.now())
        first = cursor.next
        return first, cursor.take(_MOST)

    @property
    def next(self) -> int:
        """The number behind the frames that were taken."""
        return self._sent.next

    @property
    def first(self) -> int:
        """The number of the oldest frame that Redis is to keep."""
        log = self.run.audience.log
        if self._kept is None:
            return max(1, log.first)
        self._kept.settle()
        return max(1, log.first, min(self._kept.next, self.progress.next, self.run.audience.needed_elsewhere()))

    @property
    def has_more(self) -> bool:
        """Whether there are frames to take."""
        return self._delivery is not None and self._sent.pending > 0

    def settle(self) -> int:
        """Redis has everything that was taken. Returns how many frames it did not have before."""
        self.exists = True
        number = self._sent.next
        new = self.progress.settles(number, self._clock.now(), is_behind=number < self.run.audience.log.next)
        if self._delivery is not None:
            self._delivery.cursor.move_to(self._sent)
            self.run.audience.taken.notify()
        return new

    @property
    def lag(self) -> tuple[int, float]:
        """The frames that Redis lacks, and the seconds for which it has lacked one."""
        return self.run.audience.log.next - self.progress.next, self.progress.lag(self._clock.now())

    async def until_published(self) -> None:
        """See `Publication.until_published`."""
        await self.run.done.wait()
        with anyio.move_on_after(_LAST_WAIT):
            await self.ended.wait()
