"""Hosting: the tasks that carry runs and viewers, and the limits on how many there are.

A run has a task of the event loop, and outlives every request: the one that started it, too. A viewer has one as well,
in which all that needs cleaning up happens, since a server may cancel the request's own task natively, and repeatedly.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final, NamedTuple, TypeAlias

import anyio
import anyio.lowlevel

from ..errors import BridgeUnavailable
from ..flow.pace import TokenBucket
from ..flow.policy import Policy
from ..relay.ending import Cause
from ..relay.info import RunFacts
from ..relay.mirror import Followed, Mirror
from ..relay.options import RunOptions, ViewerOptions
from ..relay.run import Run
from ..relay.standin import StandIn
from ..relay.statistics import BridgeStatistics, Totals, WorkerStatistics
from ..relay.viewer import Gone, Viewer
from ..relay.watching import Watcher
from ..stores.base import Census, SharedStore, Stage, StoreAway
from ..stores.memory import Key, MemoryStore
from ..upstream.base import Source, Work
from ..wire.ids import new_token
from .application import OnEnd, OnStart, Threads
from .finding import Finder
from .http2 import Windows
from .looking import Look
from .messages import Receive, Scope, Send
from .refusals import RETRY_AFTER_STOP, Refusal
from .reporting import report
from .response import Downstream, begin, farewell, first_frames
from .sockets import Sockets
from .stopping import Open, StopTimes

__all__ = ["Answer", "Beginning", "Host", "HostOptions", "Limits", "Visit"]

logger: Final = logging.getLogger("sse_bridge")

#: Rounds of the event loop that `receive` gets to report a client that left while the request was resolved. Measured:
#: no server needs more than 2 by itself. Behind five layers of Starlette's `BaseHTTPMiddleware`, uvicorn needs 12, and
#: hypercorn 36 for a `POST` whose body was not read, because the body comes first, in two messages. 40 rounds take
#: 0.2 ms on an idle event loop.
_ROUNDS_TO_NOTICE: Final = 40
#: `Retry-After` for requests over a limit, in seconds. A guess: we cannot know when a stream will end.
RETRY_AFTER_LIMIT: Final = 5.0
#: Seconds that stopping may take beyond `cancel_timeout`.
STOP_OVERHEAD: Final = 2.0
#: Seconds a server gets to notice that we cut its connection. Return any sooner and it logs an incomplete response.
NOTICE_CUT: Final = 0.3


class Limits(NamedTuple):
    """How one viewer is written to."""

    policy: Policy
    rate: TokenBucket | None


class Beginning(NamedTuple):
    """A run to be started."""

    source: Source
    work: Work
    owner: str | None
    key: Key | None
    #: Seconds that the work goes on after the last viewer has left, instead of the bridge's own `grace`.
    grace: float | None


class Visit(NamedTuple):
    """A request that becomes a viewer."""

    scope: Scope
    receive: Receive
    send: Send
    limits: Limits
    #: Whether a refusal goes out as a frame.
    refuses_in_frames: bool


#: Answers a request. It is awaited in the request's own task, in the step in which it was made.
Answer: TypeAlias = Coroutine[Any, Any, None]


class HostOptions(NamedTuple):
    """What a host is made with."""

    run: RunOptions
    viewer: ViewerOptions
    max_runs: int | None
    max_viewers: int | None
    keep: float | None
    keep_bytes: int | None
    on_start: OnStart | None
    on_end: OnEnd | None
    store: SharedStore | None = None
    drain: float = 0.0


class Host:
    """The runs and viewers of one bridge."""

    def __init__(self, options: HostOptions) -> None:
        self.options = options
        self.threads = Threads()
        self.finder = Finder(MemoryStore(options.keep, options.keep_bytes), options.store, self._stage)
        self._store = self.finder.store
        self._totals = Totals()
        self._sockets = Sockets()
        self._windows = Windows()
        self._open: Open | None = None
        self._shared = options.store  # with other workers
        self._look = Look(self._count)

    def statistics(self) -> BridgeStatistics:
        """What happens now, and what was counted since the bridge was made. See `SSEBridge.statistics`."""
        return self._look.take()

    def watch(self, watcher: Watcher) -> None:
        """Tells a watcher of every run from now on."""
        self._totals.watchers.add(watcher)

    def count_refusal(self, refusal: Refusal) -> None:
        """Counts a request that gets no stream."""
        self._totals.add_refusal(refusal.status)

    def _count(self) -> BridgeStatistics:
        shown = [run for run in self._store.runs if not run.is_over or run.audience.viewers]
        store = None if self._shared is None else self._shared.statistics()
        return self._totals.snapshot(tuple(run.statistics() for run in shown), store)

    def _census(self) -> Census:
        runs = self._store.runs
        reads = sum(isinstance(run, Run) and not run.done.is_set for run in runs)
        return Census(reads, sum(run.audience.viewers for run in runs))

    async def everywhere(self) -> tuple[WorkerStatistics, ...]:
        """What each worker says of itself. See `SSEBridge.everywhere`."""
        if self._shared is None:
            return (WorkerStatistics("", is_here=True, beat=0, **self._census()._asdict()),)
        return await self._shared.everywhere(self._stage())

    async def shutdown(self) -> None:
        """Ends every stream and exec in this event loop. See `SSEBridge.shutdown`."""
        await self.here(listen=False).shutdown()

    def here(self, listen: bool = True) -> Open:
        """What is open in the running event loop. A bridge may see one loop, or server, after another."""
        token = anyio.lowlevel.current_token()
        if self._open is None or not self._open.is_in(token) or self._open.is_over:
            times = StopTimes(STOP_OVERHEAD + self.options.run.cancel_timeout, self.options.drain)
            self._open = Open(token, lambda run: farewell(run.audience.options, self.options.viewer), times)
            self._look.settle_in(token)
            if listen:
                self._open.listen()
            if self._shared is not None:
                self._shared.enter(self._stage())
        return self._open

    def _stage(self) -> Stage:
        here = self.here()
        return Stage(here.start_soon, here.clock, self.options.run, self._totals, self._census)

    # -- runs

    def launch(self, beginning: Beginning, *, is_followed: bool, token: str = "") -> Run:
        """Starts a run in a task of its own.

        There is no wait between the call and the store: of two requests with one key, the second finds the first's run.

        Args:
            is_followed: whether a viewer follows in the same step. If that viewer's client has left by the time that
                the run would begin, the run is skipped.
            token: its name, if that was settled before.

        Raises:
            BridgeUnavailable: there are too many runs or viewers, or the server stops.
        """
        here = self.here()
        with self.finder.freeing(token, beginning.key):
            if here.stopping:
                raise stopping()
            if self.options.max_runs is not None:  # counting takes a look at every run
                self._check_limit("runs", self._census().runs, self.options.max_runs)
            if is_followed:
                self._check_viewers()
        options = self.options.run.for_run(beginning.work.shape, beginning.grace)
        facts = RunFacts(token or new_token(), beginning.owner, beginning.source)
        run = Run(facts, beginning.work, options, self._totals, here.clock)
        self._store.add(run, beginning.key)
        if self._shared is not None:
            outlet = self._shared.publish(run, beginning.work, beginning.key, self._stage())
            here.start_for(run, outlet.until_published)
        here.start_for(run, self._carry, run, is_followed, finally_call=self._drop)
        if self.options.on_start is not None or self.options.on_end is not None:
            here.start_for(run, report, here, self.threads, run, self.options.on_start, self.options.on_end)
        return run

    async def launch_apart(self, beginning: Beginning, limits: Limits, token: str = "") -> Run:
        """Starts a run without a viewer; returns once the upstream has answered, whatever it said."""
        run = self.launch(beginning, is_followed=False, token=token)
        self.here().set_apart(run)
        run.audience.expect(*limits, self.options.viewer, self.here().clock)
        with run.audience.awaited():  # a caller that gives up leaves the run to its first viewer
            await run.answered.wait()
        return run

    async def _carry(self, run: Run, is_followed: bool) -> None:
        """Reads the run, unless its client left while the request was resolved, or the run was ended meanwhile."""
        here = self.here()
        commits_at = here.clock.now() + self.options.viewer.commit_after  # no viewer knows its name before that
        try:
            if is_followed:
                for _ in range(_ROUNDS_TO_NOTICE):
                    await anyio.lowlevel.checkpoint()
            if run.is_over or (is_followed and not run.audience.is_followed):
                run.skip()
            else:
                if self._shared is not None:
                    await self._shared.register(run)
                await run.read()
        except Exception as error:
            run.done.failure = alone(error)
            logger.exception("run %s...: a bug in the bridge ended it. Please report this traceback", run.token[:6])
        finally:
            run.done.set()
            is_known = run.began and (not run.started_nothing or here.clock.now() >= commits_at)
            if not run.began or run.started_nothing:
                self._store.free(run)
                if self._shared is not None:
                    self._shared.withdraw(run, is_known=is_known)
            if is_known:
                self._store.settle(run, here.clock.now())
            else:
                self._store.forget(run)

    def _drop(self, run: Run) -> None:
        """Forgets a run whose event loop ended at the moment of its start, before `_carry` began."""
        if not run.done.is_set:
            run.skip()
            self._store.forget(run)

    # -- viewers

    def host(self, beginning: Beginning, visit: Visit, token: str = "") -> Answer:
        """Starts a run with the request as its first viewer. The answer takes until the run is done.

        Servers wait for open requests when they stop, and so for the run, and for the application to be told of it.

        Raises:
            BridgeUnavailable: there are too many runs or viewers, or the server stops.
        """
        run = self.launch(beginning, is_followed=True, token=token)
        viewer = run.audience.view(*visit.limits, 1, self.options.viewer, self.here().clock)
        return self._host(run, self._serve(run, viewer, self._downstream(visit)))

    async def _host(self, run: Run, answer: Answer) -> None:
        try:
            await answer
        finally:  # granian waits for no request whose client has left, and daphne cancels it
            self.here().set_apart(run)
        await run.done.wait()
        await self.here().closed(run)
        if run.done.failure is not None:
            raise run.done.failure

    async def attach(self, run: Followed, number: int, visit: Visit, *, resumes: bool) -> Answer:
        """Adds the request as a viewer from frame `number` on.

        Args:
            resumes: whether the viewer has seen a part of the run.

        Raises:
            BridgeUnavailable: there are too many viewers.
            StoreAway: the viewer is ahead of what the store has told so far.
        """
        self._check_viewers()
        if isinstance(run, Mirror):
            with self.here().wait(), anyio.move_on_after(self.options.viewer.commit_after):
                await run.reaches(number)
            if number > run.audience.log.next and not run.is_over:
                raise StoreAway("Redis has yet to tell what the client has seen already.")
            self._check_viewers()  # others have come meanwhile
            number = run.begins(number)
        viewer = run.audience.view(*visit.limits, number, self.options.viewer, self.here().clock)
        self._store.settle(run, self.here().clock.now())
        return self._serve(run, viewer, self._downstream(visit, resumes=resumes))

    def _downstream(self, visit: Visit, *, resumes: bool = False) -> Downstream:
        scope, receive, send, _, refuses_in_frames = visit
        send = self._windows.waiting(scope, send)
        return Downstream(scope, receive, send, self._sockets, refuses_in_frames=refuses_in_frames, resumes=resumes)

    async def _serve(self, run: Followed, viewer: Viewer, downstream: Downstream) -> None:
        """Reads `receive` until the client leaves, ends the viewer then, and returns once its task has ended.

        This is the only reader of `receive`, which brings the request's body first. It runs in the request's own task,
        which servers may cancel natively at any time: it has no cleaning up to do.
        """
        context = self.here().own_context()
        self.here().start_soon(
            self._show, run, viewer, downstream, context, context=context, finally_call=downstream.done
        )
        try:
            with downstream.watching:
                while (await downstream.receive())["type"] != "http.disconnect":
                    pass
        except Exception as error:
            downstream.fail(error)
        finally:
            if not downstream.shown.is_set:
                downstream.left.set()
                viewer.end(Gone.DISCONNECTED)
                with anyio.CancelScope(shield=True):
                    await downstream.shown.wait()
            self._leave(run, viewer)  # `_show` does, but a task that is cancelled before its first step does nothing
        if downstream.failure is not None:
            raise downstream.failure

    def _leave(self, run: Followed, viewer: Viewer) -> None:
        run.audience.leave(viewer)
        self._store.settle(run, self.here().clock.now())

    def _check_viewers(self) -> None:
        if self.options.max_viewers is not None:
            there_are = sum(run.audience.viewers for run in self._store.runs)
            self._check_limit("viewers", there_are, self.options.max_viewers)

    def _check_limit(self, what: str, there_are: int, limit: int) -> None:
        if there_are >= limit:
            self._totals.requests_turned_away += 1
            message = f"There are too many {what} here now. Try again in a moment."
            raise BridgeUnavailable(message, code="busy", retry_after=RETRY_AFTER_LIMIT)

    async def _show(self, run: Followed, viewer: Viewer, downstream: Downstream, context: Context | None) -> None:
        """Writes one viewer's response. All that is sent to the viewer comes from this task, or from its stand-in.

        What fails here concerns this viewer alone, since others may follow the run: it goes to `downstream`.
        """
        here, options = self.here(), self.options
        timer = viewer.clock.start(viewer)
        here.add_viewer(viewer, run)
        viewer.progress.acknowledged = downstream.acknowledged
        try:
            with viewer.scope:
                if await begin(run, viewer, downstream, options.viewer.commit_after):
                    first = first_frames(run, options.viewer, resumes=downstream.resumes)
                    await viewer.write(downstream.send, first, None if context is None else StandIn(context))
                elif run.refused is not None:
                    self.count_refusal(Refusal.of_run(run.refused))
            if viewer.scope.cancelled_caught:
                viewer.end(Gone.STOPPED)
            await self._see_off(run, viewer, downstream)
        except OSError:  # how servers of ASGI HTTP 2.4 say that the client has left; others say nothing
            viewer.end(Gone.DISCONNECTED)
        except Exception as error:
            downstream.fail(error)
        finally:
            here.remove_viewer(viewer)
            timer.stop()
            viewer.progress.forget()
            self._leave(run, viewer)

    async def _see_off(self, run: Followed, viewer: Viewer, downstream: Downstream) -> None:
        """Cuts the connection of a client that does not read. The server would wait for it without limit."""
        here = self.here()
        is_stuck = viewer.gone in (Gone.STALLED, Gone.STOPPED)
        if here.stopping and not is_stuck and downstream.unsent():
            with here.wait():  # it was sent its end, and still has to take what came before
                await anyio.sleep_forever()
            is_stuck = downstream.unsent() > 0
        if is_stuck:
            if here.stopping:  # granian ends its process with its last connection, and leaves the run's work behind
                await run.closing.wait()
            if downstream.cut():
                with anyio.move_on_after(NOTICE_CUT):
                    await downstream.left.wait()


def stopping() -> BridgeUnavailable:
    """What a request gets that comes while the server stops."""
    cause = Cause.SERVER_STOPPED
    return BridgeUnavailable(cause.message, code=cause.code, retry_after=RETRY_AFTER_STOP)


def alone(error: Exception) -> BaseException:
    """The only exception of a group, so that the application's own `except` can catch it; else the exception."""
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found
