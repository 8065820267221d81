"""Which state a sandbox is in, when it takes commands, and how it refuses them otherwise.

Independent of processes and folders: `state` acts on these, and says here what it did. The names of the states are
MIOSA's.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Literal

import anyio

from .errors import ApiError, not_running

__all__ = ["Life", "State"]

#: Pausing and resuming take effect at once here, so `pausing` is seen while a stop ends the processes, and `resuming`
#: never.
State = Literal["running", "pausing", "paused", "stopped", "destroying", "destroyed"]

#: The components in the platform's readiness reports (`PLATFORM_READINESS_COMPONENTS` in the SDK).
_COMPONENTS: Final = (
    "command_agent",
    "process_control",
    "resource_contract",
    "clock",
    "identity",
    "durability",
    "filesystem",
    "internal_probe",
)

#: Seconds. Timers run by the event loop's clock. uvloop's ticks in milliseconds, so a sleeping task may wake up a
#: rounding error too early.
_CLOCK_TICK: Final = 0.001


class Life:
    """The life of one sandbox, from its creation on.

    Args:
        ready_after: seconds until it takes commands. It counts as running meanwhile.
    """

    def __init__(self, ready_after: float) -> None:
        self.created = datetime.now(UTC)
        self.destroyed: datetime | None = None
        self._state: State = "running"
        self._ready_at = time.monotonic() + ready_after  # the event loop's clock needs a loop, which may start later
        self._change = anyio.Event()

    @property
    def state(self) -> State:
        """The state, as clients see it."""
        return self._state

    @property
    def is_closing(self) -> bool:
        """Whether its destruction has begun."""
        return self._state in ("destroying", "destroyed")

    @property
    def is_ready(self) -> bool:
        """Whether the sandbox takes commands."""
        return self._state == "running" and self._seconds_to_ready < _CLOCK_TICK

    def enter(self, state: State) -> None:
        """Changes the state. Destruction is final: what ends later than its beginning changes nothing."""
        if state == "destroyed":
            self.destroyed = self.destroyed or datetime.now(UTC)
        elif self.is_closing:
            return
        self._state = state
        self._change.set()
        self._change = anyio.Event()

    async def wait_until_ready(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until the sandbox takes commands. False on a timeout, or if it is closing."""
        with anyio.move_on_after(max(0, timeout)):
            while not self.is_ready and not self.is_closing:
                # What is paused or stopped becomes ready by a change only.
                with anyio.move_on_after(self._seconds_to_ready if self._state == "running" else None):
                    await self._change.wait()
        return self.is_ready

    async def admit(self, wait: float, starting: str) -> None:
        """Lets a command in, or refuses it.

        Args:
            wait: seconds to wait for a sandbox that is starting.
            starting: the code of the refusal of one that is still starting then.

        Raises:
            ApiError: 409, the sandbox is not running, or not ready.
        """
        if self._state == "running":
            await self.wait_until_ready(wait)
        self.demand_running()
        if not self.is_ready:
            raise ApiError(
                409,
                starting,
                "the sandbox does not take commands yet",
                retryable=True,
                retry_after_ms=max(1, round(self._seconds_to_ready * 1000)),
            )

    def demand_running(self) -> None:
        """Refuses what needs a machine that runs.

        Raises:
            ApiError: 409, the sandbox is paused, stopped or destroyed. Asking again would not help.
        """
        if self._state != "running":
            raise not_running(self._state)

    def readiness(self) -> dict[str, object]:
        """The answer of the polling route. The SDK looks for `ready` at the top, rather than under `data`."""
        status = "ready" if self.is_ready else "starting" if self._state == "running" else self._state
        return {"ready": self.is_ready, "status": status, "components": dict.fromkeys(_COMPONENTS, status)}

    @property
    def _seconds_to_ready(self) -> float:
        return self._ready_at - time.monotonic()
