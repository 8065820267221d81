"""A run in the hands of the application that started it."""

from __future__ import annotations

from typing import Final

import anyio

from ..relay.info import Outcome, RunInfo
from ..relay.mirror import Followed, Mirror
from ..upstream.base import Cancelled
from .finding import Finder
from .joining import ended

__all__ = ["StartedRun"]

#: Seconds that a worker and the owner of a run take to tell each other.
_MESSAGES: Final = 1.0


class StartedRun:
    """A run that `SSEBridge.start` has started, or has found by its key."""

    __slots__ = ("_cancel_timeout", "_finder", "_run")

    def __init__(self, run: Followed, finder: Finder, cancel_timeout: float) -> None:
        self._run = run
        self._finder = finder
        self._cancel_timeout = cancel_timeout

    def __repr__(self) -> str:
        return f"StartedRun({self.info!r})"

    @property
    def token(self) -> str:
        """The run's public name. A page follows it at `<mount>/<token>`."""
        return self._run.token

    @property
    def info(self) -> RunInfo:
        """The run as it is now."""
        return self._run.info

    async def wait(self) -> Outcome:
        """Waits until the run has ended and has left no work running; says how it ended.

        Of a run that another worker reads, this is known as soon as its last frame is.

        Raises:
            BridgeUnavailable: another worker had the run, and no worker knows it any more.
        """
        self._run = await ended(self._run, self._finder)
        return self._run.outcome()

    async def cancel(self) -> Cancelled | None:
        """Ends the run and its command, and waits for that, for `cancel_timeout` seconds at most.

        Returns:
            How far ending the command got; `None` if it had ended by itself.
        """
        run = self._run
        run.cancel()
        if not isinstance(run, Mirror):
            await run.done.wait()
            return run.cancelled
        with anyio.move_on_after(self._cancel_timeout + _MESSAGES):
            await run.halting.wait()
        return run.cancelled if run.halting.is_set else Cancelled.REQUESTED
