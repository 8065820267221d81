"""What a bridge has open in one event loop, and how it ends there when the server stops.

Servers wait for open responses, most of them for ever. So whoever is here is told, gets a second to take what is
pending, and goes. This knows who is open and for how long; how a run or a viewer ends is their own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Final, cast

import anyio
from anyio.lowlevel import EventLoopToken

from ..relay.clock import Clock
from ..relay.run import Run
from ..relay.signal import Signal
from ..relay.viewer import Viewer
from . import hypercorn, signals

__all__ = ["PATIENCE", "Open"]

#: Seconds that viewers have to take what is pending and the end, and that an application's functions have to return.
PATIENCE: Final = 1.0


class Open:
    """The requests, runs and viewers of one bridge in one event loop.

    Args:
        token: the event loop.
        farewell: makes what a viewer gets with its end.
    """

    def __init__(self, token: EventLoopToken, farewell: Callable[[], bytes]) -> None:
        #: Nothing new is taken.
        self.stopping = False
        self.clock = Clock()
        self._token = token
        self._farewell = farewell
        self._deadline = inf
        self._requests = 0
        self._emptied = Signal()
        self._runs: set[Run] = set()
        self._viewers: dict[Viewer, Run] = {}
        self._waits: set[anyio.CancelScope] = set()
        self._listener = signals.Listener(self._call_soon, self.stop, self.let_go)

    def is_in(self, token: EventLoopToken) -> bool:
        """Whether this is the event loop."""
        return self._token.native_token is token.native_token

    def listen(self) -> None:
        """Stops by itself when the server is told to stop, where there are ways to know."""
        signals.listen(self._listener)
        hypercorn.watch(self.stop)

    def _call_soon(self, function: Callable[[], None]) -> None:
        native = cast(Any, self._token.native_token)  # an asyncio event loop, or a `TrioToken`
        schedule = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        schedule(function)

    # -- who is here

    def enter(self) -> None:
        """A request is open. These are no context managers: a generator each would be a kilobyte of an idle stream."""
        self._requests += 1

    def leave(self) -> None:
        """It is over."""
        self._requests -= 1
        if not self._requests:
            self._emptied.notify()

    def add_run(self, run: Run) -> None:
        """A run is hosted."""
        self._runs.add(run)

    def remove_run(self, run: Run) -> None:
        """It is not any more."""
        self._runs.discard(run)

    def add_viewer(self, viewer: Viewer, run: Run) -> None:
        """A viewer of a run is written to."""
        self._viewers[viewer] = run
        if self.stopping:
            viewer.stop(self._farewell(), self._deadline, run.done)

    def remove_viewer(self, viewer: Viewer) -> None:
        """It is not any more."""
        del self._viewers[viewer]

    @contextmanager
    def wait(self) -> Iterator[None]:
        """While something is waited for that a stop waits for no longer than for viewers; then it is cancelled."""
        with anyio.CancelScope(deadline=self._deadline) as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

    # -- the end

    def stop(self) -> None:
        """Ends all runs, tells all viewers, and takes nothing new. Never waits; a loop's callback may call it."""
        if self.stopping:
            return
        self.stopping = True
        self._deadline = self.clock.now() + PATIENCE
        for viewer, run in self._viewers.items():
            viewer.stop(self._farewell(), self._deadline, run.done)
        for run in list(self._runs):
            run.stop()
        for scope in self._waits:
            scope.deadline = self._deadline

    def let_go(self) -> None:
        """As `stop`, and nothing is waited for any more, not even the end of work that is being cancelled."""
        self.stop()
        for viewer in self._viewers:
            viewer.leave("stopped")
        for run in list(self._runs):
            run.let_go()
        for scope in self._waits:
            scope.cancel()

    async def shutdown(self, timeout: float) -> None:
        """Stops, and returns when no request is left, or lets go of what there is after `timeout` seconds."""
        self.stop()
        with anyio.move_on_after(timeout):
            while self._requests:
                await self._emptied.wait()
            return
        self.let_go()
