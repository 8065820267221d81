"""The measuring client: raw sockets in one thread, and a check of every line received."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .upstream import PACED, Rhythm

__all__ = ["Followers", "Incorrect", "Paced", "connect", "read_burst", "run_of"]

_LINE: Final = re.compile(rb'"line": ?"([^"]*)"')
_EXIT: Final = re.compile(rb'"(?:exit_code|code)": ?0\}\n\n')
_STAMPED: Final = re.compile(rb'"line": ?"(\d+) (\d{7}) ')
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
#: Seconds of silence after which a response counts as stuck.
_SOCKET_TIMEOUT: Final = 120.0
#: Seconds for which the client asks before it sleeps. Its server would pay for waking it, some microseconds a line. A
#: client on another machine costs no such thing.
_POLLING: Final = 0.0002
#: The least share of its lines that a stream has to get in time. A peer that is too slow still gets figures, and its
#: latencies show it; a peer that serves only some of the streams gets none.
_LEAST_SHARE: Final = 0.25


class Incorrect(Exception):
    """A peer failed to deliver the printed lines, so it gets no figure."""


def connect(port: int, target: str, headers: str = "") -> socket.socket:
    """Sends a request; returns the socket that will receive the response.

    Args:
        headers: more of them, each with its line end.
    """
    connection = socket.create_connection(("127.0.0.1", port), _SOCKET_TIMEOUT)
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n"
    connection.sendall(head.encode())
    return connection


def read_burst(port: int, target: str, texts: Sequence[str]) -> float:
    """Reads one stream to its end; returns the seconds that took.

    Args:
        texts: the expected lines.

    Raises:
        Incorrect: a line is missing, wrong or out of order, or the exit is missing.
    """
    started = time.perf_counter()
    pieces: list[bytes] = []
    tail = b""
    with connect(port, target) as connection:
        while tail != _LAST_CHUNK:
            piece = connection.recv(1 << 20)
            if not piece:
                raise Incorrect("the response broke off")
            pieces.append(piece)
            tail = (tail + piece[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
    seconds = time.perf_counter() - started
    body = _unchunked(b"".join(pieces).partition(b"\r\n\r\n")[2]).replace(b"\r\n", b"\n")
    found = _LINE.findall(body)
    if len(found) != len(texts):
        raise Incorrect(f"{len(found)} lines instead of {len(texts)}")
    if any(one != text.encode() for one, text in zip(found, texts, strict=True)):
        raise Incorrect("lines are wrong, or not in order")
    if not _EXIT.search(body, body.rindex(b'"line"')):
        raise Incorrect("there is no exit at the end")
    return seconds


def _polled(selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
    """What is ready within `_POLLING`; empty if nothing is."""
    until = time.monotonic() + _POLLING
    while not (ready := selector.select(0)) and time.monotonic() < until:
        pass
    return ready


def _unchunked(body: bytes) -> bytes:
    pieces, start = [], 0
    while size := int(body[start : (end := body.index(b"\r\n", start))], 16):
        pieces.append(body[end + 2 : end + 2 + size])
        start = end + 2 + size + 2
    return b"".join(pieces)


def run_of(connection: socket.socket) -> str:
    """The run that a bridge's response names in its head."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    found = re.search(rb"(?i)sse-bridge-run: (\S+)", head)
    if found is None:
        raise Incorrect("there is no run")
    return found[1].decode()


@dataclass
class Paced:
    """Lines received on paced streams."""

    #: Number of lines by connection.
    lines: Counter[socket.socket] = field(default_factory=Counter)
    #: Nanoseconds from the upstream's write to the client's read, one for each line.
    latencies: list[int] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Lines received on all connections together."""
        return len(self.latencies)

    def percentile(self, share: float) -> float:
        """The latency in milliseconds below which that share of the lines stayed."""
        if not self.latencies:
            raise Incorrect("no line came")
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] / 1e6


class Followers:
    """Reads several paced streams side by side.

    Args:
        connections: sockets that receive the responses.
        rhythm: of their lines.
    """

    def __init__(self, connections: Sequence[socket.socket], rhythm: Rhythm = PACED) -> None:
        self._connections = connections
        self._rhythm = rhythm
        self._tails = dict.fromkeys(connections, b"")
        self._last: dict[socket.socket, int] = {}

    def settle(self, seconds: float = 1.0, timeout: float = 60.0) -> None:
        """Reads until every connection has received a line, and for `seconds` more.

        Raises:
            Incorrect: some connections are still silent after `timeout` seconds, or as in `follow`.
        """
        give_up = time.monotonic() + timeout
        while (served := len(self._last)) < len(self._connections):
            if time.monotonic() > give_up:
                raise Incorrect(f"only {served} of {len(self._connections)} streams were served")
            self._read(0.05, Paced())
        self._read(seconds, Paced())

    def follow(self, seconds: float) -> Paced:
        """Reads from all connections for `seconds`.

        Raises:
            Incorrect: a stream ended, lost lines, or got less than a quarter of them.
        """
        paced = Paced()
        self._read(seconds, paced)
        due = int(seconds / self._rhythm.interval * _LEAST_SHARE)
        late = sum(paced.lines[one] < due for one in self._connections)
        if late:
            raise Incorrect(f"{late} of {len(self._connections)} streams got fewer than {due} lines in {seconds:.1f} s")
        return paced

    def _read(self, seconds: float, paced: Paced) -> None:
        """Reads first and looks at what came afterwards, so that thousands of lines at once find the client waiting."""
        arrived: list[tuple[socket.socket, bytes, int]] = []
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0:
                for key, _ in _polled(selector) or selector.select(left):
                    stream: socket.socket = key.fileobj  # type: ignore[assignment]
                    if not (data := stream.recv(1 << 16)):
                        raise Incorrect("a stream ended")
                    arrived.append((stream, data, time.monotonic_ns()))
        for one in arrived:
            self._take(*one, paced)

    def _take(self, connection: socket.socket, data: bytes, now: int, paced: Paced) -> None:
        whole, separator, self._tails[connection] = (
            (self._tails[connection] + data).replace(b"\r", b"").rpartition(b"\n\n")
        )
        for stamp, number in _STAMPED.findall(whole + separator):
            place = int(number)
            step = self._rhythm.groups
            if place - self._last.get(connection, place - step) != step:
                raise Incorrect("lines are missing, or not in order")
            self._last[connection] = place
            paced.latencies.append(now - int(stamp))
            paced.lines[connection] += 1
