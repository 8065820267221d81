"""What a run's bytes say, over any number of connections: its events, each once, and none missing. Sans-IO.

Frames are numbered. An event is handed on if its number continues those before it; a repeat is left out, and a number
that was skipped is a `Fault`, unless a gap accounts for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from httpx_sse import ServerSentEvent

from ..wire.events import Event, parse_frame
from ..wire.frames import FrameSplitter, canonical, split
from ..wire.ids import Place, is_token, read_place
from ..wire.objects import Body, read_object, write_json

__all__ = ["Fault", "Item", "Reader"]

#: A gap in `verbatim`, which is a comment.
_GAP: Final = re.compile(rb"^: gap dropped=(?:([0-9]{1,18})|unknown)(?: bytes=([0-9]{1,18}))?$", re.MULTILINE)
#: The `retry:` of a last block that lacks its blank line. A bridge that is busy sends just that.
_LAST_RETRY: Final = re.compile(rb"(?:\A|[\r\n])retry: ?([0-9]{1,9})[\r\n]+\Z")
#: Bytes of a response's end in which that is looked for.
_TAIL: Final = 64


class Fault(Exception):
    """The stream is not what the bridge sent. Following again behind the last good event may mend that."""


@dataclass(frozen=True, slots=True)
class Item:
    """One event, and what it means."""

    event: ServerSentEvent
    #: `start`, `stdout`, `stderr`, `gap`, `exit`, `error` or another; `None` for an event of `verbatim`.
    kind: str | None = None
    #: What it says as JSON.
    body: Body = field(default_factory=dict)
    #: It stands under `<run>.gone`: the bridge has no such run, or has lost it.
    is_gone: bool = False


class Reader:
    """Reads the responses about one run.

    Args:
        max_event_size: bytes that an event may have.
    """

    def __init__(self, max_event_size: int) -> None:
        #: The run's token; empty until it is known.
        self.token = ""
        #: The number of the last event; `None` before the first one.
        self.number: int | None = None
        #: Whether events have ids; `None` before the first one.
        self.is_numbered: bool | None = None
        #: Whether the bridge adds events of its own, as in all dialects but `verbatim`; `None` before the first one.
        self.has_own_frames: bool | None = None
        #: Seconds after which to come back, as the server says; `None` if it does not.
        self.retry: float | None = None
        self._splitter = FrameSplitter(max_event_size)
        self._tail = b""

    @property
    def place(self) -> str | None:
        """The id to resume behind; `None` for the beginning."""
        return None if not self.token or self.number is None else f"{self.token}.{self.number}"

    def restart(self) -> None:
        """Another response begins."""
        self._splitter.restart()
        self._tail = b""

    def end(self) -> None:
        """The response has ended."""
        if match := _LAST_RETRY.search(self._tail):
            self.retry = int(match[1]) / 1000

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """The events that are whole now. Read them all before the next chunk.

        Raises:
            Fault: behind the last event that is good.
        """
        self._tail = (self._tail + chunk[-_TAIL:])[-_TAIL:]
        frames = self._splitter.feed(chunk)
        whole = self._splitter.discards[0].offset if self._splitter.discards else len(frames)
        for frame in split(canonical(frames[:whole])):
            event = parse_frame(frame)
            if event.retry is not None:
                self.retry = event.retry / 1000
            if (gap := _GAP.search(frame)) and self.has_own_frames is not True:
                yield from self._verbatim_gap(gap, event)
            yield from self._read(event)
        if self._splitter.discards:
            self._splitter.discards = []
            raise Fault("An event is larger than max_event_size.")

    def _read(self, event: Event) -> Iterator[Item]:
        kind, body = _said(event)
        if event.data is None and event.id is None:
            return
        place = self._place_of(event)
        is_gone = place is not None and place.number is None
        if self.has_own_frames is None:
            self.has_own_frames = is_gone or self._is_own(kind, body, place)
        if not self.has_own_frames and not is_gone:
            kind, body = None, {}
        if place is not None and place.number is not None:
            step = place.number - self._last(kind, place.number)
            if step <= 0:
                return
            if step not in _steps(kind, body):
                raise Fault("Frames are missing between two numbers.")
            self.number = place.number
        if event.data is not None:
            yield Item(_as_sse(event), kind, body, is_gone)

    def _is_own(self, kind: str | None, body: Body, place: Place | None) -> bool:
        """Whether a first event shows that the dialect has events of the bridge's own."""
        if kind == "start":
            run = str(body.get("run"))
            return is_token(run) and self.token in ("", run) and place in (None, Place(run, 0))
        return kind == "gap" and "dropped" in body

    def _last(self, kind: str | None, number: int) -> int:
        """The number before. The first frame of all is the `start`, or the first one of the upstream."""
        if self.number is not None:
            return self.number
        return -1 if number == 0 and kind == "start" else 0

    def _place_of(self, event: Event) -> Place | None:
        place = None if event.id is None else read_place(event.id)
        if place is not None and self.token and place.token != self.token and place.number is not None:
            place = None
        if self.is_numbered is None:
            self.is_numbered = place is not None
        if not self.is_numbered:
            return place if place is not None and place.number is None else None
        if place is None:
            raise Fault("An event lacks its number.")
        if place.number is not None:
            self.token = place.token
        return place

    def _verbatim_gap(self, gap: re.Match[bytes], event: Event) -> Iterator[Item]:
        """A gap as an event, whatever block its comment stands in."""
        dropped = None if gap[1] is None else int(gap[1])
        body: Body = {"dropped": dropped} if gap[2] is None else {"dropped": dropped, "bytes": int(gap[2])}
        place = None if event.id is None else read_place(event.id)
        if dropped is not None and self.is_numbered is not False and place is not None and place.number is not None:
            step = place.number - (self.number or 0)
            if step not in (1, dropped + 1):
                return  # the numbers say otherwise, and count
            self.number = place.number - 1
        yield Item(ServerSentEvent("gap", write_json(body).decode(), self.place), "gap", body)


def _said(event: Event) -> tuple[str | None, Body]:
    """What an event means if it is `typed` or `named`."""
    body = read_object(event.data or "") or {}
    kind = event.type if event.type != "message" else body.get("type")
    return kind if isinstance(kind, str) else None, body


def _steps(kind: str | None, body: Body) -> tuple[int, ...]:
    """By how many numbers an event may be ahead of the one before. Lines of one event were several frames."""
    if kind in ("stdout", "stderr") and isinstance(line := body.get("line"), str):
        return (line.count("\n") + 1,)
    if kind == "gap" and isinstance(dropped := body.get("dropped"), int):
        return (1, dropped)
    return (1,)


def _as_sse(event: Event) -> ServerSentEvent:
    return ServerSentEvent(event.type, event.data, event.id, event.retry)
