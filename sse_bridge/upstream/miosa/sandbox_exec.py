"""Commands in sandboxes: `POST /sandboxes/{id}/exec/stream` (`docs/miosa.md` §4)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from math import inf
from typing import Any
from urllib.parse import quote

import anyio

from ...causes import log_cause
from ...errors import UpstreamError, UpstreamRefused
from ...wire.shapes import EXEC
from ..base import Cancelled, Room, Stream, Take, Upstream, Work
from ..checks import ceil_seconds, json_bytes
from ..client import SSE_ACCEPT
from ..retrying import READY_BACKOFF, READY_TIMEOUT, is_temporary, retry
from .cancel import MARKER, Evidence, Finding, end_marked, look_for
from .checks import HasId, check_command, check_cwd, check_env, check_id, check_platform, check_timeout, id_of
from .client import Miosa

__all__ = ["SandboxExec"]


@dataclass(frozen=True, init=False)
class SandboxExec:
    """A command in a MIOSA sandbox.

    It is started once. While the sandbox gets ready, we ask again, for half a minute at most.
    The command gets one extra environment variable, by which it is found and ended after its last viewer has left.

    Args:
        sandbox_id: the sandbox, as the platform calls it; or a sandbox of MIOSA's SDK, of which the id is kept.
        command: a command line for the sandbox's shell.
        cwd: its working directory, as an absolute path; `None` is the sandbox's default.
        env: its environment variables; `None` for the defaults only. `repr` leaves them out.
        timeout: seconds after which the platform ends it, 1 to 86,400 (a day), rounded up to whole ones. `None` is the
            platform's default: 30 s for some sandboxes, an hour for others.

    Raises:
        ConfigurationError: an argument is unfit for a request, or the platform would refuse it.
    """

    sandbox_id: str
    command: str = field(repr=False)
    cwd: str | None = field(kw_only=True)
    env: Mapping[str, str] | None = field(kw_only=True, repr=False)
    timeout: float | None = field(kw_only=True)

    def __init__(
        self,
        sandbox_id: str | HasId,
        command: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        given = {"sandbox_id": id_of(sandbox_id), "command": command, "cwd": cwd, "env": env, "timeout": timeout}
        for name, value in given.items():
            object.__setattr__(self, name, value)  # the instance is frozen
        check_id("SandboxExec", "sandbox", self.sandbox_id)
        check_command("SandboxExec", self.command)
        check_cwd("SandboxExec", self.cwd)
        check_env("SandboxExec", self.env)
        check_timeout("SandboxExec", self.timeout)

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        return _SandboxWork(self, check_platform("SandboxExec", upstream))


class _SandboxWork:
    shape = EXEC

    __slots__ = ("_asked_at", "_evidence", "_finding", "_has_ended", "_miosa", "_path", "_source", "_token", "may_run")

    def __init__(self, source: SandboxExec, miosa: Miosa) -> None:
        self.may_run = False
        self._source = source
        self._miosa = miosa
        self._path = f"/sandboxes/{quote(source.sandbox_id, safe='')}"
        self._token = secrets.token_hex(12)  # not the run's, since it is logged
        self._asked_at = -inf
        self._evidence = Evidence.NONE
        self._has_ended = False
        self._finding = Finding.UNANSWERED

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        return _Output(self)

    async def start(self) -> tuple[AbstractAsyncContextManager[Stream], Stream]:
        """Starts the command, waiting for a sandbox that gets ready.

        Returns:
            The context to leave in the end, and the stream that it yielded.
        """
        return await retry(self._start, is_temporary, backoff=READY_BACKOFF, timeout=READY_TIMEOUT)

    async def _start(self, seconds_left: float) -> tuple[AbstractAsyncContextManager[Stream], Stream]:
        url, headers = self._miosa.address(self._path + "/exec/stream"), self._miosa.headers(SSE_ACCEPT)
        body = json_bytes(self._body())  # fails before the request goes out, if the caller has changed `env` meanwhile
        opening = self._miosa.open("POST", url, headers=headers, body=body)
        self.may_run = True
        self._asked_at = anyio.current_time()
        try:
            stream = await opening.__aenter__()
        except UpstreamError as error:
            self.may_run = not error.started_nothing
            raise
        self._evidence = Evidence.ANSWERED
        return opening, stream

    def saw_output(self) -> None:
        """Output proves that the command has started."""
        self._evidence = Evidence.OUTPUT

    def saw_end(self) -> None:
        """See `base.EndAware.saw_end`. A stream that fails ends, too, and then the command may run on."""
        self._has_ended = True

    def _body(self) -> dict[str, Any]:
        """The four documented keys. The platform refuses or ignores others (`docs/miosa.md` §4)."""
        source = self._source
        body: dict[str, Any] = {"command": source.command, "env": {**(source.env or {}), MARKER: self._token}}
        if source.cwd is not None:
            body["cwd"] = source.cwd
        if source.timeout is not None:
            body["timeout"] = ceil_seconds(source.timeout)
        return body

    async def cancel(self, timeout: float) -> Cancelled:
        """Ends the processes of the command (see `cancel`)."""
        with anyio.move_on_after(timeout):
            try:
                self._finding = await end_marked(
                    self._miosa,
                    self._path,
                    self._token,
                    self._evidence,
                    timeout,
                    asked_at=self._asked_at,
                    has_ended=self._has_ended,
                )
            except UpstreamError as error:
                if isinstance(error, UpstreamRefused):
                    self._finding = Finding.REFUSED
                log_cause(error, "a command could not be asked to end: the cause")
        return self._finding.outcome

    @property
    def ticket(self) -> str:
        """See `base.Ticketed.ticket`."""
        return json.dumps({"kind": "marked", "home": self._path, "marker": self._token})

    @property
    def mark(self) -> str:
        """See `base.Traceable.mark`."""
        return f"marker {MARKER}={self._token}"

    def trace(self) -> str:
        """See `base.Traceable.trace`."""
        return (
            f"sandbox {self._source.sandbox_id}, {self.mark}: {self._finding.words}. "
            f"To look for it there: {look_for(self._token)}"
        )


class _Output:
    """The stream of a command, and the context that opens it. A class with slots, as a generator takes more memory."""

    __slots__ = ("_has_output", "_opening", "_stream", "_take", "_work")

    def __init__(self, work: _SandboxWork) -> None:
        self._work = work
        self._has_output = False
        self._take: Take
        self._opening: AbstractAsyncContextManager[Stream] | None = None
        self._stream: Stream | None = None

    async def __aenter__(self) -> Stream:
        self._opening, self._stream = await self._work.start()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        assert self._opening is not None
        await self._opening.__aexit__(*raised)

    def push(self, take: Take, room: Room) -> Coroutine[Any, Any, None]:
        """See `base.Stream.push`. A coroutine around the stream's own would take 240 bytes of an idle stream."""
        assert self._stream is not None, "the context is entered"
        self._take = take
        return self._stream.push(self._watched_take, room)

    def _watched_take(self, chunk: bytes) -> bool:  # a method, since a function with a closure takes more memory
        if not self._has_output and b"data" in chunk:  # comments may precede the command
            self._has_output = True
            self._work.saw_output()
        return self._take(chunk)
