"""The measuring side: raw sockets in one thread, and a check of everything that came."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .upstream import line

__all__ = ["Incorrect", "Paced", "follow", "read_burst", "run_of"]

_LINE: Final = re.compile(rb'"line": ?"([^"]*)"')
_EXIT: Final = re.compile(rb'"(?:exit_code|code)": ?0\}\n\n')
_STAMPED: Final = re.compile(rb'"line": ?"(\d+) (\d{7}) ')
#: Seconds in which a response has to go on.
_PATIENCE: Final = 120.0


class Incorrect(Exception):
    """A peer did not deliver what was printed. It has no figure then."""


def connect(port: int, target: str) -> socket.socket:
    """A request under way."""
    connection = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
    return connection


def read_burst(port: int, target: str, lines: int) -> float:
    """Reads one stream to its end; how many seconds that took.

    Raises:
        Incorrect: a line is missing, wrong or out of order, or there is no exit behind them.
    """
    started = time.perf_counter()
    pieces: list[bytes] = []
    with connect(port, target) as connection:
        while not pieces or not (pieces[-1].endswith(b"0\r\n\r\n") or b"".join(pieces[-2:]).endswith(b"\r\n0\r\n\r\n")):
            piece = connection.recv(1 << 20)
            if not piece:
                raise Incorrect("the response broke off")
            pieces.append(piece)
    seconds = time.perf_counter() - started
    body = _unchunked(b"".join(pieces).partition(b"\r\n\r\n")[2])
    texts = _LINE.findall(body)
    if len(texts) != lines:
        raise Incorrect(f"{len(texts)} lines instead of {lines}")
    if any(text != line(number).encode() for number, text in enumerate(texts)):
        raise Incorrect("lines are wrong, or not in order")
    if not _EXIT.search(body, body.rindex(b'"line"')):
        raise Incorrect("there is no exit at the end")
    return seconds


def _unchunked(body: bytes) -> bytes:
    pieces, start = [], 0
    while size := int(body[start : (end := body.index(b"\r\n", start))], 16):
        pieces.append(body[end + 2 : end + 2 + size])
        start = end + 2 + size + 2
    return b"".join(pieces)


def run_of(connection: socket.socket) -> str:
    """The run that a response of ours names in its head."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    found = re.search(rb"(?i)sse-bridge-run: (\S+)", head)
    if found is None:
        raise Incorrect("there is no run")
    return found[1].decode()


@dataclass
class Paced:
    """What came of streams that get a line now and then."""

    frames: int = 0
    #: Nanoseconds from the upstream's write to the client's read, one for each line.
    latencies: list[int] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        if not self.latencies:
            raise Incorrect("no line came")
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] / 1e6


def follow(connections: Sequence[socket.socket], seconds: float) -> Paced:
    """Reads what comes on all of them for a while.

    Raises:
        Incorrect: a stream ended, or its lines have holes.
    """
    paced = Paced()
    tails = dict.fromkeys(connections, b"")
    last: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        give_up = time.monotonic() + seconds
        while (left := give_up - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                connection = key.fileobj  # type: ignore[assignment]
                data = connection.recv(1 << 18)
                now = time.monotonic_ns()
                if not data:
                    raise Incorrect("a stream ended")
                whole, separator, tails[connection] = (tails[connection] + data).rpartition(b"\n\n")
                for stamp, number in _STAMPED.findall(whole + separator):
                    place = int(number)
                    if place - last.get(connection, place - 10) != 10:  # ten groups of streams take turns
                        raise Incorrect("lines are missing, or not in order")
                    last[connection] = place
                    paced.latencies.append(now - int(stamp))
                    paced.frames += 1
    return paced
