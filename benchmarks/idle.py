"""Thousands of idle streams: the memory that each takes, and what heartbeats cost."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from .client import Incorrect, connect, run_of
from .figures import Figures
from .servers import Serving

__all__ = ["WARM_UP", "Opener", "idle"]

#: Connections opened before memory is first measured, because the first ones set up what all share.
WARM_UP = 50
#: Connections that are opened at once.
_BATCH = 50
#: Seconds for the garbage of opening connections to be collected.
_SETTLE = 2.0
#: Seconds between heartbeats.
_HEARTBEAT = 15.0


def idle(streams: int, seconds: float, *, shared: bool) -> Callable[[Serving, float], Figures]:
    """`streams` idle streams, each with its own upstream or, if `shared`, all of them viewers of one run."""

    def measure(server: Serving, share: float) -> Figures:
        with ExitStack() as stack:
            opener = Opener(server.port, stack, shared=shared)
            opener.open_until(WARM_UP)
            time.sleep(_SETTLE * min(1.0, 5 * share))
            before = server.memory()
            count = WARM_UP + max(1, int((streams - WARM_UP) * share))
            opener.open_until(count)
            time.sleep(_SETTLE * min(1.0, 5 * share))
            grown = (server.memory() - before) / (count - WARM_UP)

            lasting = seconds * share
            used = server.cpu()
            time.sleep(lasting)
            used = server.cpu() - used
            beats = list(_heartbeats(opener.connections))
            if any(beats) and min(beats) < int(lasting / _HEARTBEAT):  # peers without heartbeats are excused
                raise Incorrect(f"a stream got {min(beats)} heartbeats in {lasting:.0f} s")
            return {"kib_each": grown / 1024, "idle_percent": 100 * used / max(lasting, 0.1)}

    return measure


class Opener:
    """Opens idle streams.

    Args:
        port: of the serving process.
        stack: closes them.
        shared: whether they are viewers of one run.
    """

    def __init__(self, port: int, stack: ExitStack, *, shared: bool) -> None:
        self.connections: list[socket.socket] = []
        self._port = port
        self._stack = stack
        self._target = "/?shape=idle"
        if shared:
            first = self._connect()
            self._target = f"/{run_of(first)}?shape=idle"
            _read_until(first, b'"line"')

    def open_until(self, count: int) -> None:
        """Opens streams until there are `count`, and reads the first line of each."""
        while len(self.connections) < count:
            batch = [self._connect() for _ in range(min(_BATCH, count - len(self.connections)))]
            for connection in batch:
                _read_until(connection, b'"line"')

    def _connect(self) -> socket.socket:
        connection = self._stack.enter_context(connect(self._port, self._target))
        self.connections.append(connection)
        return connection


def _read_until(connection: socket.socket, wanted: bytes) -> None:
    read = b""
    while wanted not in read:
        piece = connection.recv(65536)
        if not piece:
            raise Incorrect("a stream ended before its first line")
        read += piece


def _heartbeats(connections: list[socket.socket]) -> Iterator[int]:
    """The number of heartbeats on each connection; raises `Incorrect` if a stream has ended."""
    for connection in connections:
        connection.setblocking(False)
        try:
            read = connection.recv(1 << 20)
        except BlockingIOError:
            read = b": none"
        if not read:
            raise Incorrect("a stream ended")
        yield read.count(b": heartbeat") + read.count(b": ping")
