"""What a bridge has open in one event loop, and how it ends there when the server stops.

Servers wait for open responses, most of them without limit. So every viewer is told, gets a second to take what is
pending, and goes. This room knows what is open and for how long. How a run or a viewer ends is their own business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple, cast

import anyio
from anyio.lowlevel import EventLoopToken

from ..relay.clock import Clock
from ..relay.ending import Cause
from ..relay.mirror import NOTHING_TO_WAIT_FOR, Followed, Mirror
from ..relay.run import Run
from ..relay.signal import Signal
from ..relay.viewer import Gone, Viewer
from . import granian, gunicorn, hypercorn, signals
from .accepting import Watch
from .messages import Scope
from .signals import Patience

__all__ = ["PATIENCE", "Open", "StopTimes", "call_soon"]

#: Seconds that viewers get to take what is pending and their end, and that an application's functions get to return.
PATIENCE: Final = 1.0
#: Seconds between the end of the last request and a signal that ends the process at once. The last bytes of responses
#: are written meanwhile, and a worker of hypercorn, which got its order to stop in another way, ends by itself.
LINGER: Final = 0.5


class StopTimes(NamedTuple):
    """How long a stop may take, in seconds."""

    #: For runs to end, once they are told to.
    bound: float
    #: For which they go on before that, while other workers serve their viewers.
    drain: float = 0.0


class Open:
    """The requests, runs and viewers of one bridge in one event loop.

    Args:
        token: the event loop.
        farewell: takes a run, and returns what its viewers are sent with their end.
        times: how long a stop may take.
    """

    def __init__(self, token: EventLoopToken, farewell: Callable[[Followed], bytes], times: StopTimes) -> None:
        #: Whether the bridge is stopping; it takes no new request then.
        self.stopping = False
        self.clock = Clock()
        self._token = token
        self._farewell = farewell
        self._times = times
        self._deadline = inf
        self._requests = 0
        self._emptied = Signal()
        self._runs: dict[Run, int] = {}  # with the number of their tasks
        self._apart: set[Run] = set()  # those that no request waits for
        self._viewers: dict[Viewer, Followed] = {}
        self._waits: set[anyio.CancelScope] = set()
        self._tasks = _Tasks()
        self._watch = Watch(self.stop, self.clock)
        self._listener = signals.Listener(self._call_soon, self.stop, self.let_go, self._hold)

    def is_in(self, token: EventLoopToken) -> bool:
        """Whether `token` stands for this event loop."""
        return self._token.native_token is token.native_token

    def listen(self) -> None:
        """Stops by itself when the server is told to stop, where that can be heard at once."""
        signals.listen(self._listener, hypercorn.at_default(), granian.in_loop() or gunicorn.in_loop())
        hypercorn.watch(self.stop, lambda: self._until(lambda: not self._has_apart()))

    def _call_soon(self, function: Callable[[], None]) -> None:
        call_soon(self._token, function)

    def own_context(self) -> Context | None:
        """A context that one task may have for its own, for a `StandIn`; `None` on trio.

        It is `None`, too, with a task factory of the application's, which may know nothing of contexts.
        """
        native = cast(Any, self._token.native_token)
        return copy_context() if hasattr(native, "create_task") and native.get_task_factory() is None else None

    def start_soon(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: object,
        context: Context | None = None,
        finally_call: Callable[[], None] | None = None,
    ) -> None:
        """Runs a function in a task of its own, which outlives the request that starts it.

        The event loop cancels it when it ends. The function lets no exception out: on trio that would end the loop.

        Args:
            context: of the task, see `own_context`; `None` for a copy of the present one.
            finally_call: is called after the function, and instead of it if asyncio cancels the task before its first
                step.
        """
        native = cast(Any, self._token.native_token)  # an asyncio event loop, or a `TrioToken`
        finish = finally_call or _nothing
        if hasattr(native, "create_task"):
            options = {} if context is None else {"context": context}
            self._tasks.keep(native.create_task(function(*arguments), **options), finish)
        else:
            import trio

            async def whole() -> None:  # on trio every task takes its first step
                try:
                    await function(*arguments)
                finally:
                    finish()

            trio.lowlevel.spawn_system_task(whole, context=copy_context())

    def start_for(
        self,
        run: Run,
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: object,
        finally_call: Callable[[Run], None] | None = None,
    ) -> None:
        """Runs a function as `start_soon` does. The run is open until every such task of it has ended."""
        self._runs[run] = self._runs.get(run, 0) + 1
        self._watch.begin()
        self.start_soon(function, *arguments, finally_call=partial(self._ended, run, finally_call))

    def _ended(self, run: Run, finally_call: Callable[[Run], None] | None) -> None:
        if finally_call is not None:
            finally_call(run)
        self._runs[run] -= 1
        if not self._runs[run]:
            del self._runs[run]
            self._apart.discard(run)
        self._notice_end()

    # -- what is open

    @property
    def is_over(self) -> bool:
        """Whether its server has stopped, and all that was open has ended. A later request is another server's."""
        return self._watch.has_ended and not self._has_any()

    def request_began(self, scope: Scope) -> None:
        """Counts a request. Plain calls, because a context manager's generator would hold 1 KB of an idle stream."""
        self._requests += 1
        self._watch.learn(scope)
        self._watch.begin()

    def request_ended(self) -> None:
        """Counts the end of a request."""
        self._requests -= 1
        self._notice_end()

    def _notice_end(self) -> None:
        self._emptied.notify()
        if not self._has_any():
            self._watch.end()

    def set_apart(self, run: Run) -> None:
        """Notes that no request waits for the end of a run. The server would not wait for it either."""
        if run in self._runs:
            self._apart.add(run)

    async def closed(self, run: Run) -> None:
        """Returns once all tasks of a run have ended, if the bridge stops; at once otherwise."""
        while self.stopping and run in self._runs:
            await self._emptied.wait()

    def add_viewer(self, viewer: Viewer, run: Followed) -> None:
        """Adds a viewer that is written to here."""
        self._viewers[viewer] = run
        if self.stopping:
            self._stop_viewer(viewer, run)

    def _stop_viewer(self, viewer: Viewer, run: Followed) -> None:
        """The viewers of a run that goes on are to go on elsewhere."""
        leaves = isinstance(run, Mirror) or bool(self._times.drain)
        viewer.stop(self._farewell(run), self._deadline, NOTHING_TO_WAIT_FOR if leaves else run.done, leaves=leaves)

    def remove_viewer(self, viewer: Viewer) -> None:
        """Removes a viewer."""
        del self._viewers[viewer]

    @contextmanager
    def wait(self, least: float = -inf) -> Iterator[None]:
        """Bounds a wait inside it: when the bridge stops, the wait gets the time that viewers get, and is cancelled.

        Args:
            least: seconds that a wait gets which begins during the stop.
        """
        with anyio.CancelScope(deadline=max(self._deadline, self.clock.deadline(least))) as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

    # -- the end

    def _hold(self, release: Callable[[], None], patience: Patience) -> bool:
        """Keeps a signal from the server until the work that it would not wait for is over. See `Listener`."""
        is_held = self._has_apart if patience is Patience.REQUESTS else self._has_any
        linger = LINGER if patience is Patience.NOTHING else 0.0
        if not is_held():
            return False
        with suppress(RuntimeError):  # the event loop is closed
            self._call_soon(lambda: self.start_soon(self._release, release, is_held, linger))
            return True
        return False

    def _has_apart(self) -> bool:
        return bool(self._apart)

    def _has_any(self) -> bool:
        return bool(self._requests or self._runs)

    async def _release(self, release: Callable[[], None], is_held: Callable[[], bool], linger: float) -> None:
        try:
            await self._until(lambda: not is_held())
            await anyio.sleep(linger)
        finally:
            release()

    async def _until(self, condition: Callable[[], bool]) -> bool:
        """Waits for a condition, as long as a stop may take; says whether it has come true."""
        with anyio.move_on_after(self._times.bound + self._times.drain):
            while not condition():
                await self._emptied.wait()
            return True
        return False

    def stop(self) -> None:
        """Ends all runs, tells all viewers, and takes nothing new. Never waits: a callback of the loop may call it."""
        if self.stopping:
            return
        self.stopping = True
        self._deadline = self.clock.deadline(PATIENCE)
        for viewer, followed in self._viewers.items():
            self._stop_viewer(viewer, followed)
        for scope in self._waits:
            scope.deadline = self._deadline
        if self._times.drain and self._runs:
            self.start_soon(self._end_runs_later)
        else:
            self._end_runs()

    def _end_runs(self) -> None:
        for run in list(self._runs):
            run.cancel(Cause.SERVER_STOPPED)

    async def _end_runs_later(self) -> None:
        try:
            await anyio.sleep(self._times.drain)
        finally:
            self._end_runs()

    def let_go(self) -> None:
        """Stops, and ends every wait at once, even the wait for work that is being ended."""
        self.stop()
        for viewer in self._viewers:
            viewer.end(Gone.STOPPED)
        for run in list(self._runs):
            run.let_go()
        for scope in self._waits:
            scope.cancel()

    async def shutdown(self) -> None:
        """Stops, and returns when every request and run is over. After its bound it lets go of what is left."""
        self.stop()
        if not await self._until(lambda: not self._has_any()):
            self.let_go()


class _Tasks:
    """Tasks of asyncio's, which itself keeps weak references to them, and what to call at the end of each."""

    __slots__ = ("_finishes", "_on_end")

    def __init__(self) -> None:
        self._finishes: dict[asyncio.Task[None], Callable[[], None]] = {}
        self._on_end = self._end  # bound once: thousands of tasks share it

    def keep(self, task: asyncio.Task[None], finish: Callable[[], None]) -> None:
        """Keeps a task until its end, and calls `finish` then."""
        self._finishes[task] = finish
        task.add_done_callback(self._on_end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._finishes.pop(task)()


def call_soon(token: EventLoopToken, function: Callable[[], None]) -> None:
    """Has an event loop call a function between two of its steps. Any thread may ask for it.

    Raises:
        RuntimeError: the event loop is over.
    """
    native = cast(Any, token.native_token)  # an asyncio event loop, or a `TrioToken`
    schedule = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    schedule(function)


def _nothing() -> None:
    pass
