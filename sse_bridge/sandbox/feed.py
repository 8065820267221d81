"""What happens in a sandbox, as events with ids: kept for a while, and followed by any number of readers.

Independent of HTTP. Each reader follows at its own pace, and none holds a command back. What a command prints is kept
as lines, and becomes events when a reader takes it, so that a burst of lines costs little while there is no reader.

MIOSA documents the names, the fields and ULIDs as ids; `sandbox.paused`, `resumed` and `destroyed` are names of its
stream of the tenant's events. How much is kept is our choice.
"""

from __future__ import annotations

import json
import logging
import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, NamedTuple

import anyio

from .lines import WholeLines
from .processes import KILLED, Outcome
from .ulids import Ulids, to_text

__all__ = ["MAX_KEPT", "Batch", "ExecEvents", "Feed"]

logger: Final = logging.getLogger("sse_bridge.sandbox")

#: Bytes of output that are kept for readers, in each sandbox: as much as of a process's output.
MAX_KEPT: Final = 1024 * 1024
#: Pieces of output, and other events, that are kept. A program may print byte by byte.
_MAX_ENTRIES: Final = 4096
#: Events that a reader gets at once, so that writing them takes a few milliseconds.
_MAX_BATCH: Final = 1000


class Batch(NamedTuple):
    """Some events."""

    #: As an event stream.
    frames: bytes
    #: The id of the last one. The next batch begins behind it.
    last: int


class _Entry(NamedTuple):
    """An event, or the events of lines that were read together."""

    name: str
    #: The ids, which are in a row.
    first: int
    last: int
    #: A JSON object, or the lines if there is an exec.
    data: bytes
    exec_id: str | None

    def frames(self, after: int, limit: int) -> Iterator[tuple[int, bytes]]:
        """The events behind the id `after`, and their ids."""
        skip = max(0, after + 1 - self.first)
        data = [self.data] if self.exec_id is None else self.data.removesuffix(b"\n").split(b"\n")
        for number, each in enumerate(data[skip : skip + limit], self.first + skip):
            text = each.decode("utf-8", "replace")
            if self.exec_id is not None:
                text = _json({"exec_id": self.exec_id, "line": text})
            yield number, f"event: {self.name}\ndata: {text}\nid: {to_text(number)}\n\n".encode()


class Feed:
    """The events of one sandbox.

    Beyond the limit the oldest are dropped. A reader that falls behind by more than the limit misses what was dropped.

    Args:
        limit: bytes of output to keep.
    """

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self._limit = limit
        self._ulids = Ulids()
        self._entries: deque[_Entry] = deque()
        self._size = 0
        self._has_started = False
        self._is_closed = False
        self._news = anyio.Event()

    @property
    def newest(self) -> int:
        """The id of the newest event; 0 before the first."""
        return self._ulids.last

    def publish(self, name: str, **facts: object) -> None:
        """Makes an event known."""
        self._add(name, _json(facts).encode(), None, 1)

    def publish_start(self, **facts: object) -> None:
        """Makes known that the sandbox has started, the first time only."""
        if not self._has_started:
            self._has_started = True
            self.publish("sandbox.started", **facts)

    def publish_lines(self, stream: str, exec_id: str, lines: bytes) -> None:
        """Makes lines known that a command printed; the last may lack its newline."""
        self._add(f"sandbox.exec.{stream}", lines, exec_id, lines.count(b"\n") + (not lines.endswith(b"\n")))

    @contextmanager
    def reporting(self, command: str) -> Iterator[ExecEvents]:
        """Makes the start of a command known, and its end, also when the context ends before the command has."""
        events = ExecEvents(self, command)
        try:
            yield events
        finally:
            events.ended(Outcome(KILLED, False, 0))

    def close(self) -> None:
        """Says that there are no more events: readers that have all of them end."""
        self._is_closed = True
        self._wake()

    async def next(self, after: int) -> Batch | None:
        """The oldest events that are kept behind an id, as soon as there are some. `None` at the end of all events.

        Args:
            after: 0 for all that are kept, else the `last` of the batch before.
        """
        while self.newest <= after and not self._is_closed:
            await self._news.wait()
        return self._batch(after) if self.newest > after else None

    def _batch(self, after: int) -> Batch:
        events: list[tuple[int, bytes]] = []
        begin = bisect_right(self._entries, after, key=lambda entry: entry.last)
        for entry in islice(self._entries, begin, None):
            events += entry.frames(after, _MAX_BATCH - len(events))
            if len(events) == _MAX_BATCH:
                break
        return Batch(b"".join(frame for _, frame in events), events[-1][0])

    def _add(self, name: str, data: bytes, exec_id: str | None, count: int) -> None:
        if self._is_closed:
            return
        first = self._ulids.take(count)
        self._entries.append(_Entry(name, first, self._ulids.last, data, exec_id))
        self._size += len(data)
        while len(self._entries) > 1 and (self._size > self._limit or len(self._entries) > _MAX_ENTRIES):
            self._size -= len(self._entries.popleft().data)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()


class ExecEvents:
    """Makes known what a command does, as its observer. The log has its start and end, but not its text: that may hold
    secrets.

    Args:
        feed: where its events go.
        command: as the client wrote it.
    """

    def __init__(self, feed: Feed, command: str) -> None:
        self._feed = feed
        self._id = f"exec_{secrets.token_hex(8)}"
        self._lines = {"stdout": WholeLines(), "stderr": WholeLines()}
        self._is_over = False
        feed.publish("sandbox.exec.started", exec_id=self._id, command=command)
        logger.info("%s: started", self._id)

    def printed(self, stream: str, piece: bytes) -> None:
        """Takes a piece of output."""
        self._publish(stream, self._lines[stream].feed(piece))

    def ended(self, outcome: Outcome) -> None:
        """Takes the end. Only the first counts."""
        if self._is_over:
            return
        self._is_over = True
        for stream, lines in self._lines.items():
            self._publish(stream, lines.finish())
        facts = {"exec_id": self._id, "exit_code": outcome.exit_code, "duration_ms": outcome.duration_ms}
        self._feed.publish("sandbox.exec.completed", **facts)
        logger.info("%s: %s", self._id, "timed out" if outcome.timed_out else f"exit {outcome.exit_code}")

    def _publish(self, stream: str, lines: bytes) -> None:
        if lines:
            self._feed.publish_lines(stream, self._id, lines)


def _json(facts: dict[str, object]) -> str:
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
