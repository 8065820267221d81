"""What a reader of a run gets: its events as they are, or its lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from httpx_sse import ServerSentEvent

from .errors import FollowError
from .reading import Item

__all__ = ["Events", "Gap", "Items", "Line", "Lines", "View"]

T_co = TypeVar("T_co", covariant=True)
_STREAMS: Final = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Line:
    """One line that the command printed."""

    #: Without its newline. Of a progress bar it holds all that was printed, with its carriage returns.
    text: str
    #: `stdout` or `stderr`.
    stream: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Output is missing here. Only with `gaps="yield"`."""

    #: Frames, which are lines unless some were unfinished. `None` if that is unknown.
    dropped: int | None


class View(Protocol, Generic[T_co]):
    """Turns what a run says into what its reader gets."""

    def show(self, item: Item) -> Iterator[T_co]:
        """What the reader gets for one event."""
        ...

    def end(self) -> Iterator[T_co]:
        """What is left when the run has ended."""
        ...


class Events:
    """The events as they are."""

    def show(self, item: Item) -> Iterator[ServerSentEvent]:
        """See `View.show`."""
        yield item.event

    def end(self) -> Iterator[ServerSentEvent]:
        """See `View.end`."""
        return iter(())


class Items:
    """The events with what they mean."""

    def show(self, item: Item) -> Iterator[Item]:
        """See `View.show`."""
        yield item

    def end(self) -> Iterator[Item]:
        """See `View.end`."""
        return iter(())


class Lines:
    """Whole lines: pieces of one are joined, and lines that came in one event are taken apart.

    Args:
        max_size: characters that a line may have.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._pieces: dict[str, list[str]] = {}  # by stream: the beginning of a line
        self._size = 0

    def show(self, item: Item) -> Iterator[Line | Gap]:
        """See `View.show`.

        Raises:
            FollowError: the events are none that lines can be read from, or a line is too long.
        """
        if item.kind is None:
            raise FollowError(
                "These are the upstream's own events (the verbatim dialect), which have no lines. Use follow().",
                code="no_lines",
            )
        if item.kind in _STREAMS:
            yield from self._lines(item.kind, item)
        elif item.kind == "gap":
            yield from self.end()
            dropped = item.body.get("dropped")
            yield Gap(dropped if isinstance(dropped, int) else None)

    def _lines(self, stream: str, item: Item) -> Iterator[Line]:
        first, *others = str(item.body.get("line", "")).split("\n")
        pieces = self._pieces.setdefault(stream, [])
        pieces.append(first)
        self._size += len(first)
        if item.body.get("partial") is True and not others:
            if self._size > self._max_size:
                raise FollowError("A line is longer than max_event_size.", code="line_too_long")
            return
        self._size -= sum(map(len, pieces))
        text = "".join(pieces)
        pieces.clear()
        for line in (text, *others):
            yield Line(line, stream)

    def end(self) -> Iterator[Line]:
        """See `View.end`."""
        for stream, pieces in self._pieces.items():
            if pieces:
                yield Line("".join(pieces), stream)
        self._pieces.clear()
        self._size = 0
