"""A run in the hands of the application that started it."""

from __future__ import annotations

from ..relay.info import Outcome, RunInfo
from ..relay.mirror import Followed
from ..upstream.base import Cancelled

__all__ = ["StartedRun"]


class StartedRun:
    """A run that `SSEBridge.start` has started, or has found by its key."""

    __slots__ = ("_run",)

    def __init__(self, run: Followed) -> None:
        self._run = run

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
        """Waits until the run has ended and has left no work running; says how it ended."""
        await self._run.done.wait()
        return self._run.outcome()

    async def cancel(self) -> Cancelled | None:
        """Ends the run and its command, and waits for that, for `cancel_timeout` seconds at most.

        Returns:
            How far ending the command got; `None` if it had ended by itself.
        """
        self._run.cancel()
        await self._run.done.wait()
        return self._run.cancelled
