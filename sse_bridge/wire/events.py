"""Frames as events, and events as frames, after WHATWG HTML 9.2.5 and 9.2.6.

The slow, exact way to look into a frame. It knows one frame at a time: reconnection, and the last event id that
outlives a frame, are the business of the stream's reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .frames import canonical, split

__all__ = ["Event", "comment", "encode", "parse", "parse_frame"]

_LINE_END: Final = re.compile("\r\n|\r|\n")
#: Python refuses to read longer integers.
_MAX_DIGITS: Final = 4300


@dataclass(frozen=True, slots=True)
class Event:
    """What one frame says."""

    #: The event's name. A frame that names none is a `message`.
    type: str = "message"
    #: `None`: the frame lacks a `data` line, and a browser dispatches nothing (9.2.6).
    data: str | None = None
    #: `None`: the frame leaves the last event id as it is. Empty: it resets it.
    id: str | None = None
    #: Milliseconds. `None`: the frame leaves the reconnection time as it is.
    retry: int | None = None


def parse(frames: bytes) -> Iterator[Event]:
    """One `Event` for each of the whole frames that `FrameSplitter.feed` returned, comments included."""
    return map(parse_frame, split(canonical(frames)))


def parse_frame(frame: bytes) -> Event:
    """Reads a single frame; its blank line may be missing. Accepts any bytes, and ignores what the standard ignores."""
    kind, data, last_id, retry = "", [], None, None
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b":")
        text = value.removeprefix(b" ")
        if field == b"data":
            data.append(text.decode("utf-8", "replace"))
        elif field == b"event":
            kind = text.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in text:
            last_id = text.decode("utf-8", "replace")
        elif field == b"retry" and text.isdigit() and len(text) <= _MAX_DIGITS:
            retry = int(text)
    return Event(kind or "message", "\n".join(data) if data else None, last_id, retry)


def encode(event: Event) -> bytes:
    """The frame that says `event`; empty for an event with all fields unset.

    Line ends in `data` become separate `data` lines, so CR and CRLF arrive as LF.

    Raises:
        ValueError: a line end in `type` or `id`, a NUL in `id` (9.2.6 would ignore it), a negative `retry`, or
            text beyond UTF-8 (a lone surrogate).
    """
    lines = []
    if event.retry is not None:
        if event.retry < 0:
            raise ValueError(f"retry must be a number of milliseconds, not {event.retry}")
        lines.append(f"retry: {event.retry}")
    if event.id is not None:
        if "\0" in event.id:
            raise ValueError("an id must not hold a NUL: browsers ignore such an id")
        lines.append(f"id: {_one_line('id', event.id)}")
    if event.type not in ("", "message"):
        lines.append(f"event: {_one_line('type', event.type)}")
    if event.data is not None:
        lines.extend(f"data: {line}" for line in _LINE_END.split(event.data))
    return "\n".join((*lines, "", "")).encode() if lines else b""


def comment(text: str = "") -> bytes:
    """A frame of comment lines, which browsers skip: what a heartbeat is made of."""
    return "".join(f": {line}\n" for line in _LINE_END.split(text)).encode() + b"\n"


def _one_line(name: str, text: str) -> str:
    if _LINE_END.search(text):
        raise ValueError(f"{name} must not hold a line end: {text!r}")
    return text
