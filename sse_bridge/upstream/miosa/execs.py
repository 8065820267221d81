"""Commands in sandboxes: `POST /sandboxes/{id}/exec/stream` (`miosa-wire.md` §2.1 E1, §4)."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import anyio

from ...errors import ConfigurationError, UpstreamError
from ...wire.shapes import EXEC
from ..base import Cancelled, Room, Take, Work, push
from ..client import SSE_ACCEPT, HTTPUpstream, NotSent, ceil_seconds, is_text, json_bytes
from ..refusals import Refusal
from .cancel import MARKER, Evidence, end_marked
from .client import Miosa

__all__ = ["SandboxExec"]

#: Seconds for a sandbox to become ready to run commands: what the SDK waits (`miosa-wire.md` §5).
READY_TIMEOUT: Final = 30.0
#: Seconds before the second try, doubled up to the limit. Keys may be held to 60 requests a minute (§1.5).
_FIRST_DELAY: Final = 0.25
_MAX_DELAY: Final = 4.0


@dataclass(frozen=True)
class SandboxExec:
    """A command in a MIOSA sandbox.

    It is started once. Where the sandbox says that it is not ready yet, we ask again for up to half a minute.
    Its environment gets one variable more, by which it is found and ended when nobody listens any more.

    Args:
        sandbox_id: the sandbox, as the platform calls it.
        command: a command line for the sandbox's shell.
        cwd: where it runs; `None` is the sandbox's default.
        env: variables it gets; `None` for none. Not shown by `repr`.
        timeout: seconds after which the platform ends it, rounded up to whole ones; `None` is the platform's default.

    Raises:
        ConfigurationError: an argument that cannot be sent, or that the platform would refuse.
    """

    sandbox_id: str
    command: str = field(repr=False)
    cwd: str | None = field(default=None, kw_only=True)
    env: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    timeout: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.sandbox_id, str) or not self.sandbox_id.strip():
            raise ConfigurationError("SandboxExec needs the id of a sandbox.")
        if self.sandbox_id in (".", ".."):  # cannot be quoted: it would lead to another route
            raise ConfigurationError("SandboxExec needs the id of a sandbox, not a path.")
        if not isinstance(self.command, str) or not self.command.strip():
            raise ConfigurationError("SandboxExec needs a command.")
        if self.cwd is not None and not isinstance(self.cwd, str):
            raise ConfigurationError("SandboxExec(cwd=...) takes a string or None.")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ConfigurationError(f"SandboxExec(timeout=...) takes seconds above zero or None, not {self.timeout}.")
        if self.env is not None and not all(isinstance(part, str) for item in self.env.items() for part in item):
            raise ConfigurationError("SandboxExec(env=...) maps strings to strings.")
        for name, texts in self._texts().items():
            if not all(map(is_text, texts)):
                raise ConfigurationError(
                    f"SandboxExec: {name} holds a lone surrogate, which cannot be sent. Decode what it was made of "
                    "with errors='replace' rather than 'surrogateescape'."
                )

    def _texts(self) -> dict[str, list[str]]:
        """Everything that goes to the platform as text, by the argument's name."""
        env = [part for item in (self.env or {}).items() for part in item]
        return {"sandbox_id": [self.sandbox_id], "command": [self.command], "cwd": [self.cwd or ""], "env": env}

    def work(self, upstream: HTTPUpstream, last_event_id: str | None) -> Work:
        """See `Exec.work`."""
        if not isinstance(upstream, Miosa):
            raise ConfigurationError("SandboxExec runs on MIOSA: make the bridge with SSEBridge(Miosa(...), ...).")
        return _SandboxWork(self, upstream)


class _SandboxWork:
    shape = EXEC

    __slots__ = (
        "_evidence",
        "_miosa",
        "_path",
        "_source",
        "_token",
        "may_run",
    )

    def __init__(self, source: SandboxExec, miosa: Miosa) -> None:
        self.may_run = False
        self._source = source
        self._miosa = miosa
        self._path = f"/sandboxes/{quote(source.sandbox_id, safe='')}"
        self._token = secrets.token_hex(12)
        self._evidence = Evidence.NONE

    def stream(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return _Started(self)

    async def start(self) -> _Opened:
        """Starts the exec, and waits for a sandbox that is not ready for a while."""
        give_up = anyio.current_time() + READY_TIMEOUT
        delay = _FIRST_DELAY
        while True:
            try:
                return await self._start()
            except Refusal as refused:
                wait = max(delay, refused.wait or 0) if refused.is_temporary else None
                if wait is None or anyio.current_time() + wait > give_up:
                    raise
            await anyio.sleep(wait)
            delay = min(2 * delay, _MAX_DELAY)

    async def _start(self) -> _Opened:
        url, headers = self._miosa.address(self._path + "/exec/stream"), self._miosa.headers(SSE_ACCEPT)
        body = json_bytes(self._body())  # may fail, if somebody changed `env`: nothing was started then
        opening = self._miosa.open("POST", url, headers=headers, body=body)
        self.may_run = True
        try:
            chunks = await opening.__aenter__()
        except NotSent as unsent:
            self.may_run = False
            raise unsent.error from unsent
        except Refusal as refused:
            self.may_run = not refused.started_nothing
            raise
        self._evidence = Evidence.ANSWERED
        return _Opened(opening, _Watched(chunks, self._has_output))

    def _has_output(self) -> None:
        self._evidence = Evidence.OUTPUT

    def _body(self) -> dict[str, Any]:
        """Only the four keys that are documented; others are refused or ignored (`miosa-wire.md` §4)."""
        source = self._source
        body: dict[str, Any] = {"command": source.command, "env": {**(source.env or {}), MARKER: self._token}}
        if source.cwd is not None:
            body["cwd"] = source.cwd
        if source.timeout is not None:
            body["timeout"] = ceil_seconds(source.timeout)
        return body

    async def cancel(self, timeout: float) -> Cancelled:
        """Ends every process that carries the command's marker, with one more call (`design.md` §8)."""
        with anyio.move_on_after(timeout):
            try:
                return await end_marked(self._miosa, self._path, self._token, self._evidence, timeout)
            except UpstreamError:
                pass
        return Cancelled.REQUESTED


class _Opened(NamedTuple):
    """A stream, and what has to be left for it."""

    stream: AbstractAsyncContextManager[AsyncIterator[bytes]]
    chunks: AsyncIterator[bytes]


class _Started:
    """What `_SandboxWork.stream` gives: no generator, for the memory that one keeps (see `HTTPUpstream.open`)."""

    __slots__ = ("_stream", "_work")

    def __init__(self, work: _SandboxWork) -> None:
        self._work = work
        self._stream: AbstractAsyncContextManager[AsyncIterator[bytes]] | None = None

    async def __aenter__(self) -> AsyncIterator[bytes]:
        self._stream, chunks = await self._work.start()
        return chunks

    async def __aexit__(self, *raised: Any) -> None:
        assert self._stream is not None
        await self._stream.__aexit__(*raised)


class _Watched:
    """Chunks on their way, and the news that there is output. From then on it is out of the way."""

    __slots__ = (
        "_chunks",
        "_has_output",
        "_next",
    )

    def __init__(self, chunks: AsyncIterator[bytes], has_output: Callable[[], None]) -> None:
        self._chunks = chunks
        self._next = chunks.__anext__
        self._has_output: Callable[[], None] | None = has_output

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._next() if self._has_output is None else self._look()

    async def _look(self) -> bytes:
        chunk = await self._next()
        self._see(chunk)
        return chunk

    def _see(self, chunk: bytes) -> None:
        if self._has_output is not None and b"data" in chunk:  # comments may come before the command has started
            self._has_output()
            self._has_output = None

    async def push(self, take: Take, room: Room) -> None:
        """See `base.push`."""
        while self._has_output is not None:
            try:
                chunk = await self._look()
            except StopAsyncIteration:
                return
            if not take(chunk):
                await room()
        await push(self._chunks, take, room)
