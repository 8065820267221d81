"""One exec being relayed: an upstream is read into an audience, from its start to every end it can have.

A run does not know HTTP, on either side. A task of its own carries it: servers cancel a request's task natively,
through every shield and more than once, and a run outlives the request that started it.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Final, TypeAlias

import anyio

from ..errors import UpstreamError, UpstreamLost
from ..upstream.base import Cancelled, EndAware, Interruption, Reopened, Resumable, Stream, Work
from ..wire.continuity import Continuity
from ..wire.ids import FrameIds
from ..wire.pipeline import Pipeline
from ..wire.shapes import Exit
from . import observer
from .audience import Audience
from .clock import ROUND_INTERVAL, Clock, Timer
from .elsewhere import Doubt
from .ending import Cause, Done, Ending
from .info import Lifetime, Outcome, RunFacts, RunInfo, RunState
from .options import RunOptions
from .signal import Latch
from .statistics import RunStatistics, Totals

__all__ = ["Refused", "Run"]

#: Seconds after its first byte at which an unfinished line is shown.
FLUSH_AFTER: Final = 0.5
#: Seconds an upstream gets to end its response after the exit, so that the connection can be reused.
END_AFTER_EXIT: Final = 1.0

#: Of a run whose stream is never opened again.
_NO_CONTINUITY: Final = Continuity(keeps_ids=False, keeps_frames=False)

#: Why a run has no stream: the upstream's answer, or the bridge's own reason.
Refused: TypeAlias = UpstreamError | Cause


class Run:
    """An exec that is read once, into an audience.

    Args:
        facts: its name, its owner and its source.
        work: the source's work, not yet started.
        options: the bridge's, with the dialect of this run.
        totals: where everything is counted that outlives the run.
        clock: of the event loop that reads it.
    """

    __slots__ = (
        "_clock",
        "_ending",
        "_flush_at",
        "_lifetime",
        "_pipeline",
        "_reading",
        "_timer",
        "_totals",
        "_work",
        "answered",
        "audience",
        "done",
        "doubt",
        "facts",
        "refused",
    )

    def __init__(self, facts: RunFacts, work: Work, options: RunOptions, totals: Totals, clock: Clock) -> None:
        ids = FrameIds(facts.token if options.ids else None)
        self.facts = facts
        self.audience = Audience(self, ids, options, totals, clock)
        #: Whether another process may have ended the run in this one's sleep; `None` without a shared store.
        self.doubt: Doubt | None = None
        #: Set once the upstream has said yes or no.
        self.answered = Latch()
        #: Why there is no stream; `None` if there is one, or no answer yet.
        self.refused: Refused | None = None
        self.done = Done()
        self._lifetime = Lifetime(clock.now(), options.max_run_time, clock.lost)
        self._work = work
        continuity = None
        if isinstance(work, Resumable):
            continuity = Continuity(
                keeps_ids=work.has_event_ids, keeps_frames=work.may_repeat, end_marks=work.shape.end_marks
            )
        self._pipeline = Pipeline(options.dialect, work.shape, ids, options.max_frame_size, continuity)
        self._ending = Ending(work, options.cancel_timeout, observer.name_of(facts.token), totals, clock)
        self._reading = anyio.CancelScope()
        self._clock = clock
        self._timer: Timer | None = None  # while it is read
        self._flush_at = inf
        self._totals = totals

    @property
    def token(self) -> str:
        """The run's public name."""
        return self.facts.token

    @property
    def state(self) -> RunState:
        """How far the run has come."""
        return "ended" if self.is_over else "running" if self.answered.is_set else "starting"

    @property
    def info(self) -> RunInfo:
        """The run as it is now, for the application."""
        return RunInfo(*self.facts, self._lifetime.started_at, self.state)

    def info_for(self, identity: str | None) -> RunInfo:
        """The run as it is now, for that identity. It makes no difference here."""
        return self.info

    def is_owned_by(self, identity: str | None) -> bool:
        """Whether that identity may act as its owner: it started the run, or the run was started without one."""
        return self.facts.owner is None or self.facts.owner == identity

    @property
    def closing(self) -> Latch:
        """What its viewers wait for where a server stops: granian ends its process with its last response."""
        return self.done

    @property
    def ended_at(self) -> float | None:
        """Seconds since the epoch; `None` while the run goes on."""
        return self._lifetime.ended_at

    def outcome(self) -> Outcome:
        """How the run ended; what is known so far while it goes on."""
        ending, log = self._pipeline.ending, self.audience.log
        body = {} if ending is None else ending.body
        exited = isinstance(ending, Exit)
        return Outcome(
            exit_code=body.get("code") if exited else None,
            error=None if exited else body.get("code"),
            message=None if exited else body.get("message"),
            duration=self._lifetime.duration,
            lines=max(0, log.next - 1 - (exited or self._pipeline.finished)),
            bytes=log.size,
            cancelled=self.cancelled,
            timed_out=exited and body.get("timed_out") is True,
            cancel_duration=self._ending.duration,
        )

    @property
    def began(self) -> bool:
        """Whether it is being read, or was."""
        return self._timer is not None

    @property
    def is_over(self) -> bool:
        """Whether its terminal frame is out. Ending its work may take longer; see `done`."""
        return self.audience.log.closed

    @property
    def started_nothing(self) -> bool:
        """Whether it is certain that the upstream started no work, so that the same request may be sent again."""
        return isinstance(self.refused, UpstreamError) and self.refused.started_nothing

    @property
    def cancelled(self) -> Cancelled | None:
        """How far ending the work got; `None` if the work ended by itself, or still goes on."""
        return self._ending.outcome

    def statistics(self) -> RunStatistics:
        """The count so far."""
        pipeline = self._pipeline
        return self.audience.statistics(
            observer.name_of(self.token),
            discarded_frames=pipeline.discarded_frames,
            discarded_bytes=pipeline.discarded_bytes,
        )

    # -- reading

    async def read(self) -> None:
        """Carries the run from its start to its end. When this returns, none of its work is left running.

        The log ends however the run ends, so no viewer waits for more. An exception other than `UpstreamError` is a
        bug in the bridge; it leaves this method, but only after the work was ended.
        """
        self._timer, watchers = self._clock.start(self), self._totals.watchers
        watchers.began(self.info)
        try:
            with self._reading:
                await self._read()
        except anyio.get_cancelled_exc_class():  # its task is cancelled only when the event loop ends
            self._fail(Cause.SERVER_STOPPED)
            raise
        finally:
            self._timer.stop()
            self._fail(Cause.BRIDGE_FAILED)
            try:
                if self._work.may_run and not self._pipeline.exited:
                    watchers.ending(self.info)
                    await self._ending.end()
            finally:
                self.done.set()
                outcome = self.outcome()
                observer.ended(self.facts, outcome)
                self._totals.add_end(outcome)
                watchers.ended(self.info, outcome)

    async def _read(self) -> None:
        try:
            async with self._work.stream() as stream:
                self.answered.set()
                self._totals.runs_started += 1
                observer.started(self.facts, self._work)
                self._totals.watchers.started(self.info)
                interruption = await self._read_stream(stream)
            while resumed := self._resumed(interruption):
                async with resumed as (stream, is_exact):
                    if not self.is_over:  # it may have been ended in the same step
                        self._go_on(exactly=is_exact)
                    interruption = await self._read_stream(stream)
            if interruption.lost is not None:
                raise interruption.lost
        except UpstreamError as error:
            self._fail(error)
        else:
            if isinstance(self._work, EndAware) and self._pipeline.ending is None and not self._pipeline.is_amid_frame:
                self._work.saw_end()
            if self._work.shape.is_command:
                self._fail(UpstreamError("The upstream ended its stream without an exit.", code="upstream_ended"))
            elif not self.is_over:  # other streams end so
                self._append(self._pipeline.finish())
                self._end()

    async def _read_stream(self, stream: Stream) -> Interruption:
        """Reads one stream to its end; says how it ended."""
        lost = None
        try:
            await stream.push(self._take, self._wait_for_room)
        except UpstreamLost as error:
            lost = error
            self._pipeline.interrupt()
        else:
            if not self.is_over:
                self._took(self._pipeline.release())
        at = self._pipeline.continuity or _NO_CONTINUITY
        return Interruption(lost, at.last_event_id, at.retry, at.has_news, not self._pipeline.is_amid_frame)

    def _resumed(self, interruption: Interruption) -> AbstractAsyncContextManager[Reopened] | None:
        """What goes on where a stream was interrupted; `None` if the run is over, or is to end with this stream."""
        work, pipeline = self._work, self._pipeline
        if not isinstance(work, Resumable) or self.is_over or (pipeline.continuity and pipeline.continuity.is_done):
            return None
        if work.shape.is_command and pipeline.ending is not None:  # `verbatim` ends with the stream
            return None
        return work.resume(interruption)

    def _go_on(self, *, exactly: bool) -> None:
        """The next stream begins."""
        observer.resumed(self.facts)
        self._totals.watchers.resumed(self.info, exactly=exactly)
        self._append(self._pipeline.go_on(exactly=exactly))
        if self._pipeline.unfinished:  # what the last stream has left waits for this one, which may stay silent
            self._flush_soon()

    def _take(self, chunk: bytes) -> bool:
        """Takes a chunk to the log; says whether there is room for more.

        Transports call this in a callback of the event loop, where anyio cannot tell which library runs.
        """
        pipeline, audience = self._pipeline, self.audience
        if audience.log.closed:  # what follows the terminal frame is ignored
            return True
        if self.doubt is not None and self.doubt.arises():
            self.doubt.hold(chunk)
            return False
        frames = pipeline.feed(chunk)
        has_room = audience.append(frames, pipeline.next) if frames else audience.has_room()
        if pipeline.discards:
            for discard in pipeline.discards:
                observer.discarded(self.facts, discard.size)
                self._totals.watchers.discarded(self.info, discard.size)
        if pipeline.finished:
            self._finished()
        elif pipeline.unfinished:
            self._flush_soon()
        return has_room

    async def _wait_for_room(self) -> None:
        if self.doubt is not None:
            for chunk in await self.doubt.settle():
                self._take(chunk)
        await self.audience.wait_for_room()

    def _took(self, frames: bytes) -> None:
        """Adds frames that the upstream had sent before."""
        self._append(frames)
        if self._pipeline.finished:
            self._finished()

    def _finished(self) -> None:
        """The terminal frame is out. The upstream gets a moment to end its stream."""
        if not self.is_over:
            if not self._pipeline.exited:
                observer.broken_off(self.facts, self.outcome())
            self._end()
            self._lifetime.leaves_at = self._clock.now() + END_AFTER_EXIT
            self.hasten(self._lifetime.leaves_at)

    # -- time

    def tick(self, now: float) -> float:
        """See `Clocked.tick`."""
        lifetime = self._lifetime
        if now >= lifetime.expires:
            self.cancel(Cause.TIME_LIMIT)
        elif now >= lifetime.abandoned_at:
            self.cancel(Cause.ABANDONED)
        elif now >= lifetime.leaves_at:
            lifetime.leaves_at = inf
            self._reading.cancel()
        due = min(lifetime.expires, lifetime.abandoned_at, lifetime.leaves_at)
        return min(self._flush(now), self.audience.end_stalls(now), due)

    def _flush_soon(self) -> None:
        self._flush_at = self._pipeline.due(self._clock.now() + FLUSH_AFTER)
        self.hasten(self._flush_at)

    def _flush(self, now: float) -> float:
        if now >= self._flush_at:
            if self.audience.is_held and not self.audience.has_room():  # the rest may be waiting for a slow viewer
                self._flush_at = now + FLUSH_AFTER
            else:
                self._took(self._pipeline.flush(now + ROUND_INTERVAL))  # the next round would be too late for these
                self._flush_at = self._pipeline.due(now + FLUSH_AFTER)
        return self._flush_at

    # -- what the audience tells its feeder

    def hasten(self, due: float) -> None:
        """See `Feeder.hasten`."""
        if self._timer is not None:
            self._timer.hasten(due)

    def deserted(self, until: float) -> None:
        """See `Feeder.deserted`.

        The log ends in the same step as the grace period. A viewer that comes any later finds a run that is over, even
        if its upstream takes time to be left.
        """
        self._lifetime.abandoned_at = until
        if until == -inf:
            self.cancel(Cause.ABANDONED)
        else:
            self.hasten(until)

    def followed(self) -> None:
        """See `Feeder.followed`."""
        self._lifetime.abandoned_at = inf

    # -- ending

    def cancel(self, cause: Cause = Cause.CANCELLED) -> None:
        """Ends the run and its work, even while viewers follow; they are told the cause. Never waits; see `done`."""
        self._fail(cause)
        self._reading.cancel()

    def skip(self) -> None:
        """Ends a run that is never read. A viewer that attached meanwhile does not wait for it. May be called again."""
        self.cancel()
        self.done.set()

    def let_go(self) -> None:
        """Stops waiting for the work to end. The log then says that its end was not seen."""
        self._ending.let_go()

    def _fail(self, reason: Refused) -> None:
        """Ends the run with an error, unless it is over."""
        if self.is_over:
            return
        if not self.answered.is_set:
            self.refused = reason
            self.answered.set()
        frames = self._pipeline.fail(reason.code, reason.message)
        if isinstance(reason, UpstreamError) and not self._pipeline.exited:  # an exit may turn up at the end
            observer.failed(self.facts, reason)
        self._append(frames)
        if not self.is_over:  # a `send` of this frame may have cancelled the run
            self._end()

    def _append(self, frames: bytes) -> None:
        if frames:
            self.audience.append(frames, self._pipeline.next)

    def _end(self) -> None:
        """Ends the log."""
        self._pipeline.close()
        self._lifetime.end(self._clock.now(), self._clock.lost)
        self.audience.close()
        self._totals.add_run(self.statistics())
