"""A process that stood still may have been taken for dead. Until that is known, it shows nothing that arrives."""

from __future__ import annotations

from typing import Final

import anyio

from ...relay.clock import Clock
from .outlet import Outlet

__all__ = ["Sleep"]

#: Seconds for which this process may stand still before it may count as dead elsewhere: the shortest lease.
_ASLEEP: Final = 1.0
#: Seconds that a run waits to hear whether it was ended meanwhile.
_PATIENCE: Final = 3.0


class Sleep:
    """The doubt of one run; see `Doubt`.

    Args:
        outlet: the run's, which looks at what Redis has of it.
        clock: of the event loop, which notices when the process stands still.
    """

    def __init__(self, outlet: Outlet, clock: Clock) -> None:
        self._outlet = outlet
        self._clock = clock
        self._lost = clock.lost
        self._kept: list[bytes] = []

    def arises(self) -> bool:
        """See `Doubt.arises`."""
        return bool(self._kept) or self._clock.lost - self._lost >= _ASLEEP

    def hold(self, chunk: bytes) -> None:
        """See `Doubt.hold`."""
        self._kept.append(chunk)

    async def settle(self) -> list[bytes]:
        """See `Doubt.settle`. While Redis is away for all workers, none of them counts as dead."""
        if not self._kept:
            return []
        outlet = self._outlet
        outlet.is_doubtful = True
        outlet.notify(self._clock.now())
        with anyio.move_on_after(_PATIENCE):
            while outlet.is_doubtful and not outlet.ended.is_set:
                await outlet.checked.wait()
        self._lost = self._clock.lost
        kept, self._kept = self._kept, []
        return kept
