"""`Lines`: output of the application's own, such as a subprocess's, a container's, or another platform's."""

from __future__ import annotations

import asyncio
import codecs
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from ..arguments import described, is_a, number, offers
from ..causes import is_our_end
from ..errors import ConfigurationError, UpstreamError
from ..wire.objects import write_texts
from ..wire.shapes import EVENT_STREAM
from .base import Cancelled, Room, Stream, Take, Upstream, Work

__all__ = ["Exit", "Item", "Lines"]

logger: Final = logging.getLogger("sse_bridge")

#: Its end is no failure. `_frames` writes its events, so no text of the output can end it.
_SHAPE: Final = replace(EVENT_STREAM, end_marks=(), dialect="typed")
_STREAMS: Final = ("stdout", "stderr")
#: What `anext` returns at the end.
_END: Final[Any] = object()
#: Items after which other tasks get a turn, in case an iterable never waits. A turn takes about as long as 10 items.
_TURN: Final = 32
#: Seconds that closing an iterable may take after its `Exit`.
_CLOSE_TIMEOUT: Final = 5.0
#: Iterators that runs are reading, by their `id`.
_being_read: Final[set[int]] = set()


@dataclass(frozen=True)
class Exit:
    """The last item of a `Lines`: the exit code of what printed the output.

    Args:
        code: 0 for a success.

    Raises:
        ConfigurationError: the code is no whole number.
    """

    code: int

    def __post_init__(self) -> None:
        if not is_a(self.code, int) or number(self.code) is None:
            raise ConfigurationError(f"Exit takes a whole number, such as Exit(0), not {described(self.code)}.")


#: What an iterable yields: output of stdout, output of the stream that it names, or the end.
Item: TypeAlias = str | bytes | tuple[str, str | bytes] | Exit


@dataclass(frozen=True)
class Lines:
    """Output of the application's own: whatever an async iterable yields.

    An item is text or UTF-8 bytes of stdout, a pair such as `("stderr", "no such file")`, or an `Exit`. The run ends
    with the iterable. An `Exit` ends it, too, and tells its viewers the code; nothing is read behind it.

    An iterable that raises ends the run with an `error` frame, `source_failed`, and the log gets the traceback. Raise
    an `UpstreamError` to choose what viewers are told.

    When the last viewer has left, the bridge cancels the iterable where it waits, and then calls its `aclose`, if it
    has one. The run counts as ended once that returns. What an async generator has to await in its `finally` goes under
    an anyio shield, since cancellation in anyio reaches every `await`.

    Args:
        iterable: an async iterable, such as a called async generator. An async iterator can only be read once, so make
            a new one for each run.
        chunks: whether items are cut anywhere, as a pipe is read; then only a line feed ends a line. Otherwise each
            item is a line, or several if it holds line feeds, with or without one at its end.
        name: what it is, in one word or two. The log shows it. Two `Lines` with the same name are the same source, so
            requests with one key share a run; without a name only the very same iterable is.

    Raises:
        ConfigurationError: an argument is of the wrong kind.
    """

    iterable: AsyncIterable[Item] = field(repr=False, compare=False)
    chunks: bool = field(default=False, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    _identity: object = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if is_a(self.iterable, type) or not offers(self.iterable, "__aiter__"):
            raise ConfigurationError(
                f"Lines needs an async iterable, not {described(self.iterable)}.{_remedy(self.iterable)}"
            )
        if not is_a(self.chunks, bool):
            raise ConfigurationError(f"Lines(chunks=...) must be True or False, not {described(self.chunks)}.")
        if self.name is not None and not is_a(self.name, str):
            raise ConfigurationError(f"Lines(name=...) must be a string or None, not {described(self.name)}.")
        object.__setattr__(self, "_identity", id(self.iterable) if self.name is None else None)

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        if inspect.isasyncgen(self.iterable) and self.iterable.ag_frame is None:
            raise ConfigurationError(
                f"The async generator of {self!r} was read to its end before. Call its function again for each run."
            )
        return _Reading(self)


class _Reading:
    """The work of a `Lines`, and its stream."""

    shape = _SHAPE

    def __init__(self, source: Lines) -> None:
        #: The iterable was begun, and was not seen to end.
        self.may_run = False
        self._source = source
        self._iterator: AsyncIterator[Item]
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Stream]:
        """See `base.Work.stream`. There is nothing to wait for: what fails to start fails with its first item."""
        with self._telling_what_fails():
            self._iterator = aiter(self._source.iterable)
            if id(self._iterator) in _being_read:
                raise ConfigurationError(
                    f"The iterator of {self._source!r} is being read by another run, and an item goes to one only. "
                    "Make a new one for each run."
                )
        _being_read.add(id(self._iterator))
        self.may_run = True
        try:
            yield self
        finally:
            _being_read.discard(id(self._iterator))

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""
        items = 0
        while True:
            with self._telling_what_fails():
                item = await anext(self._iterator, _END)
                frames = self._rest() if item is _END else self._frames(item)
            if frames and not take(frames) and not isinstance(item, Exit):  # nothing is read behind one
                await room()
            if item is _END:
                self.may_run = False
                return None
            if isinstance(item, Exit):
                return await self._close()
            items += 1
            if items % _TURN == 0:
                await anyio.lowlevel.checkpoint()

    async def _close(self) -> None:
        """The run is over: closes the iterable, which may have more."""
        with anyio.CancelScope(shield=True):
            await self.cancel(_CLOSE_TIMEOUT)

    async def cancel(self, timeout: float) -> Cancelled:
        """See `base.Work.cancel`."""
        outcome = Cancelled.REQUESTED
        with anyio.move_on_after(timeout):
            try:
                if (close := getattr(self._iterator, "aclose", None)) is not None:
                    await close()
                outcome = Cancelled.CONFIRMED
            except (Exception, asyncio.CancelledError) as error:
                if is_our_end(error):
                    raise
                logger.exception("the iterable of %r failed while it was closed", self._source)
        return outcome

    @contextmanager
    def _telling_what_fails(self) -> Iterator[None]:
        """What the application's code raises goes to the log; viewers are told that something failed."""
        try:
            yield
        except UpstreamError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if is_our_end(error):
                raise
            logger.exception("the iterable of %r failed", self._source)
            raise UpstreamError("The source of the output failed.", code="source_failed", status=500) from error

    def _frames(self, item: Item) -> bytes:
        """The item as frames of an upstream."""
        if isinstance(item, Exit):
            return self._rest() + b'event: exit\ndata: {"exit_code":%d}\n\n' % item.code
        name, output = item if isinstance(item, tuple) and len(item) == 2 else ("stdout", item)
        if name not in _STREAMS or not isinstance(output, str | bytes):
            raise TypeError(
                "an iterable of Lines yields str, bytes, ('stdout' or 'stderr', str or bytes) or Exit(code), "
                f"not {described(item)}"
            )
        if self._source.chunks:
            text = output if isinstance(output, str) else self._decoder(name).decode(output)
            return _written(name, "text", [text] if text else [])
        text = output if isinstance(output, str) else output.decode("utf-8", "replace")
        return _written(name, "line", text.removesuffix("\n").split("\n"))

    def _rest(self) -> bytes:
        """What is left of characters whose last bytes never came."""
        rests = {name: decoder.decode(b"", True) for name, decoder in self._decoders.items()}
        return b"".join(_written(name, "text", [rest]) for name, rest in rests.items() if rest)

    def _decoder(self, name: str) -> codecs.IncrementalDecoder:
        if name not in self._decoders:
            self._decoders[name] = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoders[name]


def _written(stream: str, key: str, texts: list[str]) -> bytes:
    """Each text as a frame of an upstream."""
    head = f'event: {stream}\ndata: {{"{key}":'.encode()
    return b"".join(head + written + b"}\n\n" for written in write_texts(texts)) if texts else b""


def _remedy(value: object) -> str:
    """A sentence that says how to make an async iterable of the value."""
    if inspect.isasyncgenfunction(value):
        return f" Call it: Lines({getattr(value, '__name__', 'function')}(...))."
    if offers(value, "__iter__") and not is_a(value, type, str, bytes):
        return " Write an async generator that yields its items."
    return " Write an async generator: an async def function with yield, called."
