"""Tells the bridge that its server stops accepting connections: the sign that all ways to stop have in common.

A server that ends after so many requests, or that a program tells to stop, gets no signal, and waits for its open
responses all the same. But it closes its listening sockets first. The ones that requests come through are found among
the descriptors of this process, and looked at a few times a second while a request or a run is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

from ..relay.clock import Clock, Timer
from . import uvicorn
from .messages import Scope
from .sockets import Descriptor, listening

__all__ = ["Watch"]

#: Seconds between two looks, each of 1 to 3 µs. uvicorn itself asks ten times a second whether it may end, and some
#: servers give their responses a few seconds only.
INTERVAL: Final = 0.2
#: Addresses to look for in vain before the search ends: test clients make addresses up, and a server may keep its
#: listening sockets in another process.
TRIES: Final = 3


class Watch:
    """Calls `stop` when the server of this event loop accepts no more connections. See `Clocked`.

    Args:
        stop: is called on the event loop, once.
        clock: of the event loop.
    """

    def __init__(self, stop: Callable[[], None], clock: Clock) -> None:
        #: Whether the server has stopped.
        self.has_ended = False
        self._stop = stop
        self._clock = clock
        self._timer: Timer | None = None
        self._tried: set[object] = set()
        self._sockets: list[Descriptor] = []
        self._servers: list[Any] | None = None

    def learn(self, scope: Scope) -> None:
        """Finds the server that a request came through, unless it is known. Call it before `begin`."""
        if self._sockets or len(self._tried) == TRIES:
            return
        address: Sequence[Any] = scope.get("server") or ()
        host, port, *_ = (*address, None, None)
        if host is not None and (host, port) not in self._tried:
            self._tried.add((host, port))
            self._sockets = listening(host, port)

    def begin(self) -> None:
        """Looks from now on. May be called again."""
        if self._servers is None:
            self._servers = uvicorn.servers()
        if self._timer is None and not self.has_ended and (self._sockets or self._servers):
            self._timer = self._clock.start(self)

    def end(self) -> None:
        """Stops looking. May be called again."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def tick(self, now: float) -> float:
        """See `Clocked.tick`."""
        if not self._sees_end():
            return now + INTERVAL
        self.has_ended = True
        self._stop()
        return inf

    def _sees_end(self) -> bool:
        if self._servers and all(uvicorn.is_stopping(server) for server in self._servers):
            return True
        # Copies of a listening socket come and go, so one that is closed proves nothing.
        return bool(self._sockets) and not any(one.is_open() for one in self._sockets)
