"""The bodies of responses as streams: pushed as they arrive, read from httpx's generators, or unpacked on the way."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel
import httpx

from ..errors import UpstreamLost
from .base import Room, Stream, Take

__all__ = ["ARRIVING", "ArrivingBody", "Body", "GeneratedBody", "UnpackedBody", "beginning", "body_of", "is_readable"]

#: The extension of a response that holds its body as an `Arriving`, bypassing httpx's chain of generators.
ARRIVING: Final = "sse_bridge.arriving"
#: Seconds for closing a connection.
CLOSE_TIMEOUT: Final = 2.0
#: Bytes to read of a short body.
_MAX_SHORT_BODY: Final = 64 * 1024
#: Compressions that we can undo. We ask for `identity`, but some proxies compress anyway.
_ZLIB_ENCODINGS: Final = ("gzip", "x-gzip", "deflate")
_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32
#: `deflate` is zlib's format (RFC 9110 8.4.1.2), but some servers send it without zlib's header, as browsers know.
_RAW: Final = -zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b"
#: Bytes to unpack in one step. A whole chunk would be too much: 64 KiB can hold 64 MB.
_MAX_UNPACKED: Final = 64 * 1024
#: What is raised while a body is read, once its connection has broken.
_BROKEN: Final = (httpx.HTTPError, httpx.StreamError, zlib.error)
#: Bytes to feed to zlib in one step. It copies what it leaves over: for each of many tiny gzip files, all the others.
_MAX_PACKED: Final = 4096


class Body(Stream, Protocol):
    """The body of a response, and the way to leave it."""

    async def aclose(self) -> None:
        """Closes the connection, even while the task is being cancelled."""
        ...


class Arriving(Protocol):
    """A body that hands over its chunks where they arrive. It may be silent for any time."""

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`, but raises `httpx.TransportError` if the connection breaks."""
        ...

    async def aclose(self) -> None:
        """Closes the connection."""
        ...


def body_of(response: httpx.Response) -> Body:
    """The body of a response that is being streamed."""
    arriving = response.extensions.get(ARRIVING)
    body: Body = GeneratedBody(response) if arriving is None else ArrivingBody(arriving)
    encoding = _encoding(response)
    return UnpackedBody(body, is_deflate=encoding == "deflate") if encoding in _ZLIB_ENCODINGS else body


def is_readable(response: httpx.Response) -> bool:
    """Whether the body is plain, or compressed in a way that we can undo."""
    return _encoding(response) in ("", "identity", *_ZLIB_ENCODINGS)


def _encoding(response: httpx.Response) -> str:
    encoding: str = response.headers.get("content-encoding", "")
    return encoding.strip().lower()


async def beginning(body: Body, timeout: float) -> bytes:
    """The first 64 KiB of a body, or as much of it as arrives within `timeout` seconds."""
    read = bytearray()

    def take(chunk: bytes) -> bool:
        read.extend(chunk)
        return len(read) <= _MAX_SHORT_BODY

    async def room() -> None:
        if len(read) > _MAX_SHORT_BODY:
            raise _Enough

    with suppress(_Enough, UpstreamLost), anyio.move_on_after(timeout):
        await body.push(take, room)
    return bytes(read)


class _Enough(Exception):
    """Stops a push once the beginning of the body has been read."""


class ArrivingBody:
    """A body that its transport pushes."""

    __slots__ = ("_arriving",)

    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""
        try:
            await self._arriving.push(take, room)
        except _BROKEN as error:  # `_lost`, spelled out: a generator takes 400 bytes of an idle stream
            raise _broken() from error

    async def aclose(self) -> None:
        """See `Body.aclose`."""
        with anyio.CancelScope(shield=True):
            await self._arriving.aclose()


class GeneratedBody:
    """A body that is httpx's chain of async generators.

    Closing the outermost generator leaves the inner ones to the garbage collector. A cancellation that reaches the
    innermost one ends them all, so `aclose` cancels a read.
    """

    __slots__ = ("_raw", "_response")

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._raw: AsyncIterator[bytes] = response.aiter_raw()

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""
        with _lost():
            async for chunk in self._raw:
                if not take(chunk):
                    await room()

    async def aclose(self) -> None:
        """See `Body.aclose`."""
        try:
            with anyio.CancelScope(shield=True) as scope, suppress(httpx.HTTPError, httpx.StreamError):
                scope.cancel()
                async for _ in self._raw:
                    pass
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._response.aclose()


class UnpackedBody:
    """A compressed body, unpacked in steps that are bounded in time and memory.

    29 KB can hold 29 MB of comments, for which a run always has room. So each callback of the transport takes one step,
    and the task takes the others, with a turn for other tasks in between.
    """

    __slots__ = ("_body", "_held", "_is_deflate", "_is_full", "_is_over", "_packed", "_zlib")

    def __init__(self, body: Body, *, is_deflate: bool) -> None:
        self._body = body
        self._is_deflate = is_deflate
        self._packed = memoryview(b"")  # what is left of the last chunk
        self._held = b""  # one byte, which does not tell yet what begins there
        self._is_full = False  # the last part was a whole one, so zlib may keep more of it
        self._is_over = False  # what follows is padding
        self._zlib: Any = None  # unpacks a file; `None` before the first one

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""

        def unpack(chunk: bytes) -> bool:
            self._packed = memoryview(self._held + chunk if self._held else chunk)
            self._held = b""
            return self._step(take) and not self._has_more

        async def unpack_the_rest() -> None:
            await room()
            while self._has_more:
                await anyio.lowlevel.checkpoint()
                if not self._step(take):
                    await room()

        with _lost():
            await self._body.push(unpack, unpack_the_rest)
            if self._held if self._zlib is None else not self._zlib.eof:
                raise zlib.error("The compressed stream was cut off.")

    @property
    def _has_more(self) -> bool:
        """Whether the last chunk holds more: bytes that zlib has yet to see, or output that it keeps."""
        return bool(self._packed) or self._is_full

    def _step(self, take: Take) -> bool:
        """Unpacks one part of the last chunk; says whether there is room for more."""
        if (self._zlib is None or self._zlib.eof) and not self._begin():
            self._is_full = False
            return True
        packed = self._packed[:_MAX_PACKED]
        part = self._zlib.decompress(packed, _MAX_UNPACKED)
        left = len(self._zlib.unconsumed_tail) or len(self._zlib.unused_data)
        self._packed = self._packed[len(packed) - left :]
        self._is_full = len(part) == _MAX_UNPACKED
        return not part or take(part)

    def _begin(self) -> bool:
        """Begins to unpack a file; says whether there is one. gzip files may follow one another, and so may padding."""
        start = bytes(self._packed[:2])
        if len(start) < 2 and not self._is_over:
            self._held = start
        elif self._zlib is None or (not self._is_over and self._is_start(start)):
            is_raw = self._is_deflate and not self._is_start(start)
            self._zlib = zlib.decompressobj(_RAW if is_raw else _ZLIB_OR_GZIP)
            return True
        else:
            self._is_over = True
        self._packed = memoryview(b"")
        return False

    def _is_start(self, start: bytes) -> bool:
        """Whether two bytes begin a file: of gzip, or, under `deflate`, of zlib (RFC 1950 2.2)."""
        is_zlib = start[0] & 0x8F == 8 and int.from_bytes(start) % 31 == 0
        return start == _GZIP_MAGIC or (self._is_deflate and is_zlib)

    async def aclose(self) -> None:
        """See `Body.aclose`."""
        await self._body.aclose()


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise _broken() from error


def _broken() -> UpstreamLost:
    return UpstreamLost("The connection to the upstream broke. Output may be missing.")
