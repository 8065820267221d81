"""Hosting: the tasks that carry runs and viewers, and the limits on how many there are.

The request that starts a run hosts it, and may outlive its own viewer. All that needs cleaning up happens in child
tasks: a server may cancel the request's own task natively, and repeatedly.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..flow.pace import TokenBucket
from ..flow.policy import Policy
from ..relay.options import RunOptions, ViewerOptions
from ..relay.run import Run
from ..relay.statistics import BridgeStatistics, Totals
from ..relay.viewer import Gone, Viewer
from ..stores.memory import MemoryStore
from ..upstream.base import Work
from ..wire.ids import new_token
from . import messages
from .messages import Send
from .response import Downstream, begin, farewell, first_frames
from .sockets import Sockets, with_own_addresses
from .stopping import Open

__all__ = ["Host", "Limits"]

#: Rounds of the event loop that `receive` gets to report a client that left while the request was resolved. Measured:
#: no server needs more than 2 by itself. Behind five layers of Starlette's `BaseHTTPMiddleware`, uvicorn needs 12, and
#: hypercorn 36 for a `POST` whose body was not read, because the body comes first, in two messages. 40 rounds take
#: 0.2 ms on an idle event loop.
_ROUNDS_TO_NOTICE: Final = 40
#: `Retry-After` for requests over a limit, in seconds. A guess: we cannot know when a stream will end.
_RETRY_AFTER: Final = "5"
#: Seconds that stopping may take beyond `cancel_timeout`.
STOP_OVERHEAD: Final = 2.0
#: Seconds a server gets to notice that we cut its connection. Return any sooner and it logs an incomplete response.
NOTICE_CUT: Final = 0.3


class Limits(NamedTuple):
    """How one viewer is written to."""

    policy: Policy
    rate: TokenBucket | None


class Host:
    """The runs and viewers of one bridge.

    Args:
        run_options: hold for every run.
        viewer_options: hold for every viewer.
        max_runs: execs that may run at once; `None` for no limit.
        max_viewers: responses that may stream at once; `None` for no limit.
    """

    def __init__(
        self,
        run_options: RunOptions,
        viewer_options: ViewerOptions,
        *,
        max_runs: int | None,
        max_viewers: int | None,
    ) -> None:
        self._run_options = run_options
        self._viewer_options = viewer_options
        self._max_runs = max_runs
        self._max_viewers = max_viewers
        self._store = MemoryStore()
        self._totals = Totals()
        self._sockets = Sockets()
        self._open: Open | None = None

    def statistics(self) -> BridgeStatistics:
        """What happens now, and what was counted since the bridge was made."""
        shown = [run for run in self._store.runs if not run.is_over or run.audience.viewers]
        return self._totals.snapshot(tuple(run.statistics() for run in shown))

    async def shutdown(self) -> None:
        """Ends every stream and exec in this event loop. See `SSEBridge.shutdown`."""
        await self.here(listen=False).shutdown(STOP_OVERHEAD + self._run_options.cancel_timeout)

    def here(self, listen: bool = True) -> Open:
        """What is open in the running event loop. A bridge may see one loop after another."""
        token = anyio.lowlevel.current_token()
        if self._open is None or not self._open.is_in(token):
            self._open = Open(token, lambda: farewell(self._run_options, self._viewer_options))
            if listen:
                self._open.listen()
        return self._open

    # -- finding runs

    def find(self, token: str) -> Run | None:
        """The run of that name; `None` if it is unknown or has expired."""
        return self._store.get(token, anyio.current_time())

    def started_with(self, key: str) -> Run | None:
        """The run that a request with this idempotency key started."""
        return self._store.started_with(key, anyio.current_time())

    # -- runs

    async def start(self, work: Work, key: str | None, limits: Limits, request: Request, send: Send) -> None:
        """Hosts a new run from start to end, with the request as its first viewer.

        Nothing waits between the call and the store: of two requests with one key, the second finds the first's run.

        Raises:
            HTTPException: there are too many runs or viewers.
        """
        if self._max_runs is not None:
            self._check("runs", sum(not other.done.is_set for other in self._store.runs), self._max_runs)
        here = self.here()
        run = Run(new_token(), work, self._run_options, self._totals, here.clock)
        viewer = self._view(run, limits, 1)
        self._store.add(run, key)
        watching = anyio.CancelScope()
        downstream = Downstream(request.scope, request.receive, send, watching)
        here.add_run(run)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._show, run, viewer, downstream)
                tasks.start_soon(self._read, run)
                with watching:
                    await downstream.watch(viewer)
        except BaseExceptionGroup as group:
            raise _alone(group) from None
        finally:
            here.remove_run(run)
            run.audience.leave(viewer)
            if not run.began:
                run.skip()
                self._store.forget(run)
        if downstream.failures:
            raise downstream.failures[0]

    async def _read(self, run: Run) -> None:
        """Reads the run, unless its client left while the request was resolved, or the run was ended meanwhile."""
        for _ in range(_ROUNDS_TO_NOTICE):
            await anyio.lowlevel.checkpoint()
        if not run.audience.is_followed or run.is_over:
            return run.skip()
        try:
            await run.read()
        finally:
            if run.started_nothing:
                self._store.forget(run)
            else:
                self._store.finish(run, anyio.current_time())

    # -- viewers

    async def attach(self, run: Run, number: int, limits: Limits, request: Request, send: Send) -> None:
        """Adds the request as a viewer from frame `number` on, of a run that another request hosts, or that is over.

        Raises:
            HTTPException: there are too many viewers.
        """
        viewer = self._view(run, limits, number)
        try:
            async with anyio.create_task_group() as tasks:
                downstream = Downstream(request.scope, request.receive, send, tasks.cancel_scope)
                tasks.start_soon(self._show, run, viewer, downstream)
                await downstream.watch(viewer)
        finally:
            run.audience.leave(viewer)  # `_show` does, but a task that is cancelled before its first step does nothing
        if downstream.failures:
            raise downstream.failures[0]

    def _view(self, run: Run, limits: Limits, number: int) -> Viewer:
        if self._max_viewers is not None:
            self._check("viewers", sum(other.audience.viewers for other in self._store.runs), self._max_viewers)
        return run.audience.view(limits.policy, limits.rate, number, self._viewer_options, self.here().clock)

    def _check(self, what: str, there_are: int, limit: int) -> None:
        if there_are >= limit:
            self._totals.requests_turned_away += 1
            raise HTTPException(503, f"There are too many {what} here now.", {"Retry-After": _RETRY_AFTER})

    async def _show(self, run: Run, viewer: Viewer, downstream: Downstream) -> None:
        """Writes one viewer's response. All that is sent to the viewer comes from this task.

        What fails here concerns this viewer alone, since others may follow the run: it goes to `downstream.failures`.
        """
        here = self.here()
        timer = here.clock.start(viewer)
        here.add_viewer(viewer, run)
        send = downstream.send

        def send_body(content: bytes, more: bool) -> Awaitable[None]:
            return send(messages.body(content, more))

        try:
            with viewer.scope:
                if await begin(run, viewer, send, self._viewer_options.commit_after):
                    await viewer.write(send_body, first_frames(run, viewer, self._run_options, self._viewer_options))
            if viewer.scope.cancelled_caught:
                viewer.end(Gone.STOPPED)
            await self._see_off(run, viewer, downstream)
        except OSError:  # how servers of ASGI HTTP 2.4 say that the client has left; others say nothing
            viewer.end(Gone.DISCONNECTED)
        except Exception as error:
            downstream.failures.append(error)
        finally:
            here.remove_viewer(viewer)
            timer.stop()
            run.audience.leave(viewer)
            downstream.watching.cancel()

    async def _see_off(self, run: Run, viewer: Viewer, downstream: Downstream) -> None:
        """Cuts the connection of a client that does not read. The server would wait for it without limit."""
        here = self.here()
        scope = with_own_addresses(downstream.scope, downstream.receive)
        is_stuck = viewer.gone in (Gone.STALLED, Gone.STOPPED)
        if here.stopping and not is_stuck and self._sockets.unsent(scope):
            with here.wait():  # it was sent its end, and still has to take what came before
                await anyio.sleep_forever()
            is_stuck = self._sockets.unsent(scope) > 0
        if is_stuck:
            if here.stopping:  # granian ends its process with its last connection, and leaves the run's work behind
                await run.done.wait()
            if self._sockets.cut(scope):
                with anyio.move_on_after(NOTICE_CUT):
                    await downstream.left.wait()


def _alone(group: BaseException) -> BaseException:
    """The only exception of a group, so that the application's own `except` can catch it; else the group."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group
