"""What the doctor has seen of a deployment: what was answered, and when each part of a stream came. Sans-IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

import httpx

from ..relay.viewer import HEARTBEAT

__all__ = ["NO_SILENCE", "Answer", "End", "Sight", "join", "shown"]

#: Seconds of silence that no proxy cuts. A heartbeat behind so little proves nothing.
NO_SILENCE: Final = 0.5
#: Bytes that are kept of an answer that is no stream.
_MOST_CONTENT: Final = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """A short answer about the run."""

    #: 0: the connection failed.
    status: int
    #: What it says as JSON; empty if it is no object.
    body: Mapping[str, Any] = field(default_factory=dict)
    #: How long it took.
    seconds: float = 0.0
    content: bytes = b""

    def number(self, name: str) -> int | None:
        """A number of the run's state; `None` if this is no state."""
        value = self.body.get(name) if self.status == 200 else None
        return value if isinstance(value, int) else None


class End(NamedTuple):
    """The end of a response."""

    #: Whether it had the end that HTTP asks for.
    is_whole: bool
    at: float
    #: The name of the error that broke it; empty if there was none.
    error: str


class _Debt:
    """Frames that the run's state has and a connection has yet to show, and for how long."""

    def __init__(self) -> None:
        #: The longest silence meanwhile.
        self.longest = 0.0
        self._owed: tuple[int, float] | None = None

    def owe(self, frames: int, now: float) -> None:
        self._owed = self._owed or (frames, now)

    def pay(self, shown: float) -> None:
        if self._owed is not None and shown >= self._owed[0]:
            self._owed = None

    def measure(self, now: float, last_at: float) -> None:
        if self._owed is not None:
            self.longest = max(self.longest, now - max(self._owed[1], last_at))


class Sight:
    """What one connection to a run's stream has shown so far, and when.

    Args:
        run: the run's token.
        now: when it was asked for.
    """

    def __init__(self, run: str, now: float) -> None:
        self.asked_at = now
        #: The status of the answer; `None` before there is one.
        self.status: int | None = None
        #: When the first event came.
        self.first_at: float | None = None
        #: When bytes came last, or the head.
        self.last_at = now
        #: The longest silence that the connection has survived.
        self.longest = 0.0
        #: How many of them ended a silence.
        self.heartbeats = 0
        #: The numbers of the first and the last frame; `None` without ids.
        self.first: int | None = None
        self.last: int | None = None
        #: The bridge said that it has no such run.
        self.is_gone = False
        #: How the response ended; `None` before its end.
        self.end: End | None = None
        #: What was said instead of a stream.
        self.content = b""
        self._run = run
        self._rest = b""
        #: The silence before the line that is being read.
        self._silent = 0.0
        self._debt = _Debt()

    @property
    def held(self) -> float:
        """The longest silence in which the run's state had frames that this connection had not shown."""
        return self._debt.longest

    @property
    def place(self) -> str | None:
        """The id to resume behind; `None` without ids."""
        return None if self.last is None else f"{self._run}.{self.last}"

    @property
    def delay(self) -> float | None:
        """Seconds from the request to the first event; `None` if there is none."""
        return None if self.first_at is None else self.first_at - self.asked_at

    def begin(self, status: int, now: float) -> None:
        """Takes the head of the answer."""
        self.status, self.last_at = status, now

    def feed(self, chunk: bytes, now: float) -> None:
        """Takes a part of the stream."""
        self._silent = max(self._silent if self._rest else 0.0, now - self.last_at)
        self._measure(now)
        if self.status != 200:
            self.content = (self.content + chunk)[:_MOST_CONTENT]
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._read(line.removesuffix(b"\r"), now)
            self._silent = 0.0
        self._debt.pay(self._shown)

    def finish(self, now: float, *, is_broken: bool, error: str = "") -> None:
        """The response is over, with the name of an error or without one."""
        self.end = End(not is_broken, now, error)

    def owe(self, frames: int, now: float) -> None:
        """The run's state has so many frames."""
        if self.end is None and frames > self._shown:
            self._debt.measure(now, self.last_at)
            self._debt.owe(frames, now)

    @property
    def _shown(self) -> float:
        """The number of the last frame. Without ids, one event says as little as all of them."""
        if self.last is not None:
            return self.last
        return 0 if self.first_at is None else inf

    def _measure(self, now: float) -> None:
        self._debt.measure(now, self.last_at)
        self.longest = max(self.longest, now - self.last_at)
        self.last_at = now

    def _read(self, line: bytes, now: float) -> None:
        name, _, value = line.partition(b":")
        if line == HEARTBEAT.rstrip():
            self.heartbeats += self._silent > NO_SILENCE
        elif name == b"data" and self.first_at is None:
            self.first_at = now
        elif name == b"id":
            run, _, number = value.decode("utf-8", "replace").strip().rpartition(".")
            if run == self._run and number.isdecimal():
                self.last = int(number)
                self.first = self.last if self.first is None else self.first
            elif run == self._run:
                self.is_gone = True


def join(url: httpx.URL, location: str) -> httpx.URL:
    """Where a `Location` leads; the address itself if it cannot be read."""
    try:
        return url.join(location)
    except httpx.InvalidURL:
        return url


def shown(url: httpx.URL) -> str:
    """An address without what may be secret: its user, its password and its query."""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}"
