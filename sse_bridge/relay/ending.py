"""How a run ends other than by its own exit: the causes that lie in the bridge, and the work being ended."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Final

import anyio

from ..upstream.base import Cancelled, Traceable, Work
from .clock import Clock
from .signal import Latch
from .statistics import Totals

__all__ = ["Cause", "Done", "Ending"]

logger: Final = logging.getLogger("sse_bridge")


class Cause(Enum):
    """Why the bridge itself ended a run. Viewers get it as an `error` frame; it is no fault of the upstream."""

    CANCELLED = ("cancelled", "The run was cancelled.")
    ABANDONED = ("abandoned", "The run was ended because its last viewer left.")
    SERVER_STOPPED = ("server_stopped", "The server is stopping.")
    TIME_LIMIT = ("time_limit", "The run was ended because it took longer than the server allows.")
    OWNER_LOST = ("owner_lost", "The server process that followed the run is gone.")
    BRIDGE_FAILED = ("bridge_failed", "The server failed while it followed the run.")

    def __init__(self, code: str, message: str) -> None:
        #: One word in snake_case, stable, for programs.
        self.code = code
        #: One sentence for people.
        self.message = message


class Done(Latch):
    """Set once a run has left no work running, or has stopped waiting for its work to end."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        super().__init__()
        #: The bug that ended the run; `None` if there was none.
        self.failure: BaseException | None = None


class Ending:
    """Ends a run's work, and records how far that got.

    Args:
        work: the work, which may still be running.
        timeout: seconds that ending it may take.
        name: the run's name in logs.
        totals: where the outcome is counted.
        clock: of the event loop that reads the run.
    """

    __slots__ = ("_clock", "_is_let_go", "_name", "_scope", "_timeout", "_totals", "_work", "duration", "outcome")

    def __init__(self, work: Work, timeout: float, name: str, totals: Totals, clock: Clock) -> None:
        #: How far ending the work got; `None` until it is tried.
        self.outcome: Cancelled | None = None
        #: Seconds that it took; `None` until it is over.
        self.duration: float | None = None
        self._work = work
        self._timeout = timeout
        self._name = name
        self._totals = totals
        self._clock = clock
        self._scope: anyio.CancelScope | None = None
        self._is_let_go = False

    async def end(self) -> None:
        """Ends the work, even if the task that does it is cancelled.

        The shield keeps out the cancellation that led here. When `asyncio.run` ends, it cancels every task natively,
        through all shields, and then waits for the tasks: the request is made a second time then, so that the work is
        still ended. Both share the time.
        """
        self.outcome = Cancelled.REQUESTED
        began = anyio.current_time()
        deadline = began + self._timeout
        try:
            await self._ask(deadline)
        except anyio.get_cancelled_exc_class():
            await self._ask(deadline)
            raise
        finally:
            self.duration = anyio.current_time() - began
            self._totals.add_cancel(self.outcome)
            if self.outcome is not Cancelled.CONFIRMED:
                self._warn(self.outcome)

    def tick(self, now: float) -> float:
        """See `Clocked.tick`. A clock with a subject notices when the process stands still."""
        return now + self._timeout

    def let_go(self) -> None:
        """Stops waiting for the work to end. The log then says that its end was not seen."""
        self._is_let_go = True
        if self._scope is not None:
            self._scope.cancel()

    async def _ask(self, deadline: float) -> None:
        """Asks the work to end. The time is bounded, even if the work overruns its timeout.

        If half of the time passed while the process stood still, the work is asked once more.
        """
        timer, lost = self._clock.start(self), self._clock.lost
        try:
            await self._ask_until(deadline)
            lost = self._clock.lost - lost
            if self.outcome is not Cancelled.CONFIRMED and lost >= self._timeout / 2:
                await self._ask_until(deadline + lost)
        finally:
            timer.stop()

    async def _ask_until(self, deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline, shield=True) as self._scope:
            if self._is_let_go:
                return
            self.outcome = await self._work.cancel(max(0.0, deadline - anyio.current_time()))

    def _warn(self, outcome: Cancelled) -> None:
        """One line with all that it takes to look for the work."""
        trace = f": {self._work.trace()}" if isinstance(self._work, Traceable) else ""
        logger.warning(
            "run %s...: its work was not seen to end (%s); it may run on%s", self._name, outcome.value, trace
        )
