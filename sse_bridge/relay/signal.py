"""A wake-up that may be used again.

An `anyio.Event` is for one occasion. Here an event is made only when somebody really waits, so that telling
nobody costs nothing.
"""

from __future__ import annotations

import anyio

__all__ = ["Signal"]


class Signal:
    """Wakes whoever waits right now; it remembers nothing.

    Look at the condition and call `wait` without awaiting in between, and look again after it.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        """Wakes all who wait."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Returns after the next `notify`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
