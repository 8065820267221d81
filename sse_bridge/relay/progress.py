"""What is known of a client's progress: whether it takes what it is sent."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

__all__ = ["LOOKS", "Progress"]

#: Looks at the connection in the time that a client may take nothing. Its end may be noticed one look late.
LOOKS: Final = 4


class Progress:
    """The progress of one client.

    A `send` that returns is progress. While one hangs, the server and the kernel hold megabytes, and a slow client may
    read for a minute before they accept more: on Linux, a socket is writable again when a third of its buffer is free.
    So the connection is asked, too, how much the client has acknowledged.
    """

    __slots__ = ("_at", "_seen", "_seen_in", "acknowledged", "sending_since")

    def __init__(self) -> None:
        #: When the `send` began that has not returned; `None` if there is none.
        self.sending_since: float | None = None
        #: Returns how many bytes the client has acknowledged, ever; `None` if that is unknown.
        self.acknowledged: Callable[[], int | None] = _unknown
        self._seen: int | None = None
        self._seen_in: float | None = None  # the `send` in which that was, by its beginning
        self._at = -inf

    def forget(self) -> None:
        """Lets go of the connection, which has nothing more to say of this client."""
        self.acknowledged = _unknown

    def look(self, now: float) -> float:
        """When the client last took something while a `send` hangs, as far as the connection says.

        The first look at a `send` shows no progress: there is nothing to compare with.
        """
        acknowledged = self.acknowledged()
        if self._seen_in == self.sending_since and acknowledged != self._seen:
            self._at = now
        self._seen, self._seen_in = acknowledged, self.sending_since
        return self._at


def _unknown() -> None:
    return None
