"""One exec being relayed: its reader, its log, its viewers, and all its endings (`design.md` §8).

The tasks that carry a run are children of the request that started it, because servers cancel a request's own task
natively, past every shield, and twice if they like; what has to be cleaned up is cleaned up in these.
"""

from __future__ import annotations

import logging
from math import inf
from typing import Final

import anyio

from ..errors import UpstreamError
from ..flow.delivery import Delivery
from ..flow.log import RunLog
from ..flow.pace import TokenBucket
from ..flow.policy import Policy
from ..upstream.base import Cancelled, Work, push
from ..wire.dialects import Dialect
from ..wire.ids import FrameIds
from ..wire.pipeline import Pipeline
from .clock import Clock, Timer
from .signal import Latch, Signal
from .statistics import RunStatistics, Totals
from .viewer import Viewer

__all__ = ["Run"]

logger: Final = logging.getLogger("sse_bridge")

#: Seconds of silence after which the beginning of a line is shown (`design.md` §6).
FLUSH_AFTER: Final = 0.5
#: Seconds an upstream gets to end its response after the exit, so that the connection can be used again.
END_AFTER_EXIT: Final = 1.0
#: Seconds after which the next process may be there, when this one is stopped: what we tell browsers, too.
RETRY_AFTER: Final = 2.0


class Run:
    """An exec that is read once and written to its viewers.

    Args:
        token: the run's public name.
        work: the exec, not yet started.
        dialect: how its frames are spelled.
        ids: what numbers them.
        max_frame_size: bytes of an upstream frame; see `FrameSplitter`.
        replay: bytes that every viewer has taken and that are kept for those who come late or come back.
        grace: seconds the work goes on after the last viewer has left; `None` lets it go on to its end.
        cancel_timeout: seconds that ending the work may take.
        totals: where everything is counted that outlives the run.
        clock: of the event loop that reads it.
    """

    __slots__ = (
        "_absent",
        "_calm_until",
        "_cancel_timeout",
        "_clock",
        "_dialect",
        "_ending",
        "_flush_at",
        "_grace",
        "_held",
        "_held_since",
        "_ids",
        "_is_let_go",
        "_name",
        "_pipeline",
        "_reading",
        "_room",
        "_stalls",
        "_timer",
        "_totals",
        "_viewers",
        "_work",
        "answered",
        "began",
        "cancelled",
        "done",
        "log",
        "refused",
        "token",
    )

    def __init__(
        self,
        token: str,
        work: Work,
        dialect: Dialect,
        ids: FrameIds,
        *,
        max_frame_size: int | None,
        replay: int,
        grace: float | None,
        cancel_timeout: float,
        totals: Totals,
        clock: Clock,
    ) -> None:
        self.token = token
        self._name = token[:6]  # for logs: who knows the whole token may follow and cancel the run
        self.log = RunLog(replay)
        #: It is being read, or was.
        self.began = False
        #: Set once the upstream has said yes or no.
        self.answered = Latch()
        #: Set once nothing of the run is left running: its work has ended, or nobody waits for that any more.
        self.done = Latch()
        #: Why the upstream gave no stream.
        self.refused: UpstreamError | None = None
        #: How far ending the work got; `None` as long as that was not tried.
        self.cancelled: Cancelled | None = None
        self._work = work
        self._dialect = dialect
        self._ids = ids
        self._pipeline = Pipeline(dialect, work.shape, ids, max_frame_size)
        self._grace = grace
        self._cancel_timeout = cancel_timeout
        self._reading = anyio.CancelScope()
        self._ending: anyio.CancelScope | None = None  # while the work is being ended
        self._is_let_go = False
        self._viewers: list[Viewer] = []
        self._absent: Viewer | None = None  # the last one who left, during the grace period
        self._clock = clock
        self._timer: Timer | None = None  # while it is read
        self._room = Signal()
        self._held = False
        self._held_since = -inf
        self._calm_until: float = -1  # the log's size up to which nobody can be too far behind: no need to look
        self._stalls = 0
        self._flush_at = inf
        self._totals = totals
        totals.runs_started += 1

    @property
    def started_nothing(self) -> bool:
        """The upstream refused, and it is certain that nothing was started."""
        return self.refused is not None and not self._work.may_run

    # -- viewers

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._viewers)

    @property
    def is_followed(self) -> bool:
        """Whether there is a viewer that has not left."""
        return any(viewer.gone is None for viewer in self._viewers)

    def view(
        self,
        policy: Policy,
        number: int,
        clock: Clock,
        *,
        rate: TokenBucket | None,
        heartbeat: float | None,
        send_timeout: float | None,
    ) -> Viewer:
        """One more viewer, from frame `number` on. Call `leave` when it is gone.

        Args:
            clock: of the event loop that writes to it, which need not be the run's own once that is over.

        Raises:
            ValueError: no frame has that number, nor will the next one.
        """
        delivery = Delivery(self.log, self._dialect, self._ids, policy, rate, number, clock.now())
        viewer = Viewer(delivery, self._room, clock, heartbeat=heartbeat, send_timeout=send_timeout)
        self._viewers.append(viewer)
        self._calm_until = -1
        self._totals.viewers_seen += 1
        self._forget_absent()
        if not self.log.closed:
            self._reading.deadline = inf
        self._room.notify()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forgets a viewer. With the last one the grace period begins; its cursor stays and may hold the run.

        May be called again.
        """
        if viewer not in self._viewers:
            return
        self._viewers.remove(viewer)
        self._totals.add_viewer(viewer.delivery.statistics())
        self._totals.viewers_stalled += viewer.gone == "stalled"
        if self._viewers or self.log.closed:
            viewer.delivery.cursor.close()
            self._room.notify()
            return
        self._absent = viewer
        if self._grace is None:
            self._hasten(self._end_stalls(self._clock.now()))  # it may hold the run, as long as its policy allows
        elif self._grace > 0:
            self._reading.deadline = self._clock.now() + self._grace
        else:  # at once, not when the event loop next looks at its timers
            self._reading.cancel()

    def _forget_absent(self) -> None:
        """The last one who left is not waited for any more."""
        if self._absent is not None:
            self._absent.delivery.cursor.close()
            self._absent = None

    def statistics(self) -> RunStatistics:
        """The count so far."""
        return RunStatistics(
            name=self._name,
            is_over=self.log.closed,
            frames_in=self.log.next - 1,
            bytes_in=self.log.size,
            bytes_kept=self.log.kept,
            frames_discarded=self._pipeline.discarded_frames,
            bytes_discarded=self._pipeline.discarded_bytes,
            stalls=self._stalls,
            viewers=tuple(viewer.delivery.statistics() for viewer in self._viewers),
        )

    # -- reading

    def cancel(self) -> None:
        """Ends the run and its work, whoever is still there; they are told."""
        self._fail(UpstreamError("The run was cancelled.", code="cancelled"))
        self._reading.cancel()

    def skip(self) -> None:
        """Ends a run that is not read at all; whoever attached meanwhile does not wait for it. May be called again."""
        self.cancel()
        self.done.set()

    def stop(self) -> None:
        """As `cancel`, because the server stops: ends the run and its work. Never waits; see `done`."""
        self._fail(UpstreamError("The server is stopping.", code="server_stopped", status=503, retry_after=RETRY_AFTER))
        self._reading.cancel()

    def let_go(self) -> None:
        """Waits no longer for the work's end, which is logged as not seen."""
        self._is_let_go = True
        if self._ending is not None:
            self._ending.cancel()

    async def read(self) -> None:
        """Carries the run from its start to its end; when this returns, nothing of it is left running.

        However it ends, the log ends, too, so that nobody waits for more. An exception that is no `UpstreamError` is a
        bug; it gets out, but not before the work was ended.
        """
        self.began = True
        try:
            self._timer = self._clock.start(self)
            with self._reading:
                await self._read()
            self._fail(UpstreamError("The run was ended because nobody followed it.", code="abandoned"))
        finally:
            if self._timer is not None:
                self._timer.stop()
            self._fail(UpstreamError("The server stopped, or failed.", code="bridge_failed"))
            try:
                if self._work.may_run and not self._pipeline.exited:
                    await self._cancel_work()
            finally:
                self.done.set()

    async def _read(self) -> None:
        try:
            async with self._work.stream() as chunks:
                self.answered.set()
                await push(chunks, self._take, self._wait_for_room)
        except UpstreamError as error:
            self._fail(error)
        else:
            self._fail(_ended_early())

    async def _wait_for_room(self) -> None:
        while self._must_wait():
            await self._room.wait()

    def _take(self, chunk: bytes) -> bool:
        """Everything a chunk goes through on its way to the log; says whether there is room for more.

        May be called in a callback of the event loop, where anyio does not know which library runs.
        """
        if self.log.closed:  # after the terminal frame
            return True
        pipeline = self._pipeline
        held_back = pipeline.unfinished
        frames = pipeline.feed(chunk)
        if pipeline.discards:
            self._log_discards()
        if frames:  # as in `_append`
            self.log.append(frames, pipeline.next)
            for viewer in self._viewers:
                viewer.news.notify()
        if pipeline.finished:
            self._end()
            self._reading.deadline = self._clock.now() + END_AFTER_EXIT
        elif pipeline.unfinished and (frames or pipeline.unfinished != held_back):
            self._flush_later()
        return self.log.size <= self._calm_until or not self._must_wait()

    def _log_discards(self) -> None:
        for discard in self._pipeline.discards:
            logger.warning("run %s...: discarded a frame of %d bytes", self._name, discard.size)

    def _append(self, frames: bytes) -> None:
        if frames:
            self.log.append(frames, self._pipeline.next)
            for viewer in self._viewers:
                viewer.news.notify()

    def _must_wait(self) -> bool:
        """Whether somebody is too far behind."""
        was_held = self._held
        deliveries = [viewer.delivery for viewer in self._counted]
        self._held = any(delivery.holds(was_held) for delivery in deliveries)
        self._calm_until = -1 if self._held else min((delivery.calm_until for delivery in deliveries), default=inf)
        if self._held and not was_held:
            self._stalls += 1
            self._held_since = self._clock.now()
            self._hasten(self._end_stalls(self._held_since))
        return self._held

    @property
    def _counted(self) -> list[Viewer]:
        """Those whom the run waits for. The last one who left is one of them: it may come back."""
        return self._viewers or ([self._absent] if self._absent else [])

    # -- time

    def _flush_later(self) -> None:
        self._flush_at = self._clock.now() + FLUSH_AFTER
        self._hasten(self._flush_at)

    def _hasten(self, due: float) -> None:
        if self._timer is not None:
            self._timer.hasten(due)

    def tick(self, now: float) -> float:
        """See `Clocked.tick`."""
        return min(self._flush(now), self._end_stalls(now))

    def _flush(self, now: float) -> float:
        if now >= self._flush_at:
            if self._held:  # the silence is ours: the rest of the line may be waiting for a slow viewer
                self._flush_at = now + FLUSH_AFTER
            else:
                self._flush_at = inf
                self._append(self._pipeline.flush())
        return self._flush_at

    def _end_stalls(self, now: float) -> float:
        """Disconnects who has made the run wait for longer than its policy allows.

        During the grace period, which is bounded itself, the one who left is waited for. Where there is no such
        bound, the run goes on without it.
        """
        due = inf
        for viewer in self._counted if self._held else []:
            timeout = viewer.delivery.stall_timeout
            bounded = viewer is self._absent and self._grace is not None
            if timeout is None or bounded or viewer.gone == "stalled" or not viewer.delivery.holds(True):
                continue
            stalled_at = max(self._held_since, viewer.took_at) + timeout
            if now < stalled_at:
                due = min(due, stalled_at)
            elif viewer is self._absent:
                self._forget_absent()
                self._room.notify()
            else:
                viewer.leave("stalled")
        return due

    # -- endings

    def _fail(self, error: UpstreamError) -> None:
        """The run ends with an error, unless it has ended already: then that is no news."""
        if self.log.closed:
            return
        if not self.answered.is_set:
            self.refused = error
            self.answered.set()
        logger.info(
            "run %s...: %s (upstream status %s, request %s)",
            self._name,
            error.code,
            error.upstream_status,
            error.request_id,
        )
        self._append(self._pipeline.fail(error.code, error.message))
        self._end()

    def _end(self) -> None:
        """No frame will follow."""
        self.log.close()
        self._pipeline.close()
        self._totals.add_run(self.statistics())
        for viewer in self._viewers:
            viewer.news.notify()

    async def _cancel_work(self) -> None:
        """Ends the work, whatever happens to the task that does it.

        The shield keeps out the cancellation that caused it. When `asyncio.run` ends, it cancels every task
        natively, past all shields, and then waits for them: that costs a second try, and no work that runs on.
        """
        self.cancelled = Cancelled.REQUESTED
        try:
            await self._ask_to_end()
        except anyio.get_cancelled_exc_class():
            await self._ask_to_end()
            raise
        finally:
            self._totals.add_cancel(self.cancelled)
            if self.cancelled is not Cancelled.CONFIRMED:
                logger.warning(
                    "run %s...: its work was not seen to end (%s); it may run on", self._name, self.cancelled.value
                )

    async def _ask_to_end(self) -> None:
        """Bounded, even if a `Work` should not keep to its timeout."""
        with anyio.move_on_after(self._cancel_timeout + 1, shield=True) as self._ending:
            if self._is_let_go:
                return
            self.cancelled = await self._work.cancel(self._cancel_timeout)


def _ended_early() -> UpstreamError:
    return UpstreamError("The upstream's stream ended without an exit.", code="upstream_ended")
