"""Processes of sandboxes: `/sandboxes/{id}/processes`, which run on after the request that started them.

A process has an id, so one call ends it, another says whether it runs, and its stream can be opened any number of
times. MIOSA does not document what such a stream repeats, nor how it ends (`docs/miosa.md` §7). So a gap of unknown
size stands where a stream was opened again, what is recognised as a repeat is left out, and the process is asked for
its exit where the stream ends without one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from ...arguments import described, how_to_make_a_text, is_a
from ...errors import ConfigurationError
from ...wire.exits import integer
from ...wire.shapes import EXEC
from ..base import Upstream, Work
from ..checks import is_text, json_bytes
from ..refusals import Refusal
from .background import BackgroundWork, Record
from .cancel import MARKER, Evidence, end_marked, look_for
from .checks import HasId, check_command, check_cwd, check_env, check_id, check_platform, id_of
from .client import Miosa

__all__ = ["SandboxProcess"]

#: What `status` or `state` may say of a process that has ended. MIOSA documents no list: these are the words of its
#: SDKs for other work, and of systems.
_FINAL: Final = frozenset(
    {
        "canceled",
        "cancelled",
        "completed",
        "crashed",
        "dead",
        "done",
        "error",
        "exited",
        "failed",
        "finished",
        "killed",
        "stopped",
        "succeeded",
        "terminated",
        "timeout",
    }
)
#: Answers to a call about a process that the platform no longer knows.
_UNKNOWN: Final = frozenset({404, 410})


@dataclass(frozen=True, init=False)
class SandboxProcess:
    """A process in a MIOSA sandbox: one to start, or one that runs already.

    It is started once. After a lost connection its stream is opened again, for a minute at most, and viewers are told
    with a gap that output may be missing. When its last viewer has left, the platform is asked to stop it, and then
    asked until it is gone.

    Args:
        sandbox_id: the sandbox, as the platform calls it; or a sandbox of MIOSA's SDK, of which the id is kept.
        command: a command line for the sandbox's shell; `None` to follow a process that runs already.
        pid: the process to follow, as the platform calls it; `None` to start one.
        cwd: its working directory, as an absolute path; `None` is the sandbox's default.
        env: its environment variables; `None` for the defaults only. `repr` leaves them out. A process that is started
            gets one more, by which it is found and ended if the platform's answer to its start is lost.
        name: what the platform is to call it, for its lists; `None` for no name.
        stop: whether the process is stopped with its run. `False` only closes the connection: for a server, say, that
            viewers come to look at.

    Raises:
        ConfigurationError: an argument is unfit for a request; or both of `command` and `pid` are given, or neither is.
    """

    sandbox_id: str
    command: str | None = field(repr=False)
    pid: str | None = field(kw_only=True)
    cwd: str | None = field(kw_only=True)
    env: Mapping[str, str] | None = field(kw_only=True, repr=False)
    name: str | None = field(kw_only=True)
    stop: bool = field(kw_only=True)

    def __init__(
        self,
        sandbox_id: str | HasId,
        command: str | None = None,
        *,
        pid: int | str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        stop: bool = True,
    ) -> None:
        known = str(pid) if is_a(pid, int) and not is_a(pid, bool) else pid
        given = {
            "sandbox_id": id_of(sandbox_id),
            "command": command,
            "pid": known,
            "cwd": cwd,
            "env": env,
            "name": name,
            "stop": stop,
        }
        for key, value in given.items():
            object.__setattr__(self, key, value)  # the instance is frozen
        self._check()

    def _check(self) -> None:
        check_id("SandboxProcess", "sandbox", self.sandbox_id)
        if (self.command is None) == (self.pid is None):
            raise ConfigurationError(
                "SandboxProcess takes a command to start, or the pid of a process to follow: "
                "SandboxProcess(sandbox, 'npm run dev') or SandboxProcess(sandbox, pid=12)."
            )
        if self.pid is not None:
            check_id("SandboxProcess", "process", self.pid)
            given = [name for name in ("cwd", "env", "name") if getattr(self, name) is not None]
            if given:
                raise ConfigurationError(
                    f"SandboxProcess(pid=...) follows a process that runs already, so {given[0]}= has no effect. "
                    "Leave it out."
                )
        else:
            check_command("SandboxProcess", self.command)
        check_cwd("SandboxProcess", self.cwd)
        check_env("SandboxProcess", self.env)
        if self.name is not None and not (is_a(self.name, str) and self.name.strip() and is_text(self.name)):
            raise ConfigurationError(
                f"SandboxProcess(name=...) takes a name as a string, or None, not {described(self.name)}."
                f"{how_to_make_a_text(self.name)}"
            )
        if not is_a(self.stop, bool):
            raise ConfigurationError(f"SandboxProcess(stop=...) must be True or False, not {described(self.stop)}.")

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        return _ProcessWork(self, check_platform("SandboxProcess", upstream))


class _ProcessWork(BackgroundWork):
    shape = EXEC
    may_repeat = True
    _thing = "process"
    _start_path = "/processes"
    _path = "/processes"
    _has_all_output_at_its_end = True

    def __init__(self, source: SandboxProcess, miosa: Miosa) -> None:
        home, id = f"/sandboxes/{quote(source.sandbox_id, safe='')}", quote(source.pid or "", safe="")
        super().__init__(miosa, home, id, is_ended=source.stop)
        self._source = source
        self._token = secrets.token_hex(12)  # not the run's, since it is logged

    def _body(self) -> dict[str, Any]:
        source = self._source
        body: dict[str, Any] = {"command": source.command, "env": {**(source.env or {}), MARKER: self._token}}
        if source.cwd is not None:
            body["cwd"] = source.cwd
        if source.name is not None:
            body["name"] = source.name
        return body

    def _id_in(self, record: Record) -> object:
        return record.get("pid", record.get("id"))

    def _is_over(self, record: Record) -> bool:
        words = [record.get("status"), record.get("state")]
        return integer(record.get("exit_code")) is not None or any(
            isinstance(word, str) and word.lower() in _FINAL for word in words
        )

    def _last_frame(self, record: Record) -> bytes:
        code, body = integer(record.get("exit_code")), {}
        if code is not None:
            body["exit_code"] = code
        if record.get("timed_out") is True:
            body["timed_out"] = True
        return b"event: exit\ndata: %b\n\n" % json_bytes(body)

    def _says_over(self, refusal: Refusal) -> bool:
        return refusal.upstream_status in _UNKNOWN

    @property
    def _where(self) -> str:
        return f"sandbox {self._source.sandbox_id}"

    async def _end(self, timeout: float) -> None:
        """Without the process's id there is its marker, by which it is searched for as a command is."""
        if self._id:
            await super()._end(timeout)
        else:
            self._finding = await end_marked(self._miosa, self._home, self._token, Evidence.NONE, timeout)

    @property
    def ticket(self) -> str:
        """See `base.Ticketed.ticket`."""
        if self._id or not self._source.stop:
            return super().ticket
        return json.dumps({"kind": "marked", "home": self._home, "marker": self._token})

    @property
    def mark(self) -> str:
        """See `base.Traceable.mark`."""
        return super().mark if self._source.pid is not None else f"{super().mark}, marker {MARKER}={self._token}"

    def trace(self) -> str:
        """See `base.Traceable.trace`."""
        if self._id:
            return super().trace()
        return f"{self.mark}: {self._finding.words}. To look for it there: {look_for(self._token)}"
