"""Jobs on hosts of one's own: `POST /opencomputers/hosts/{id}/jobs`, and the stream of the job (`docs/miosa.md` §7).

A job has an id, so one call ends it, and another asks for its state. But the platform keeps no output: what a job
prints before its stream is open, and after a stream has broken off, is lost. A stream that is opened again goes on
behind a gap of unknown size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from ...wire.shapes import HOST_JOB
from ..base import Upstream, Work
from ..checks import ceil_seconds, json_bytes
from ..refusals import Refusal
from .background import BackgroundWork, Record
from .checks import check_arguments, check_command, check_cwd, check_env, check_id, check_platform, check_timeout
from .client import Miosa

__all__ = ["HostJob"]

#: The states of a job that is over. The SDK knew `completed` and `cancelled` once, and says that they never come.
_CANCELED: Final = frozenset({"canceled", "cancelled"})
_FINAL: Final = _CANCELED | {"succeeded", "completed", "failed", "timeout"}
#: The code of the 409 of a host that is out of the platform's reach. Any other 409 says that the job is over.
_NOT_CONNECTED: Final = "HOST_NOT_CONNECTED"


@dataclass(frozen=True)
class HostJob:
    """A job on a host that is connected to MIOSA (OpenComputers).

    It is started once. What it prints before the bridge has opened its stream is lost, since the platform keeps no
    output: a job of an instant may show its exit only. When its last viewer has left, the platform is asked to cancel
    it, and then asked for its state until it is over.

    Args:
        host_id: the host, as the platform calls it.
        command: the program to run.
        args: its arguments.
        cwd: its working directory; `None` is the host's default.
        env: its environment variables; `None` for the defaults only. `repr` leaves them out.
        timeout: seconds after which the platform ends it, 1 to 86,400 (a day), rounded up to whole ones. `None` is the
            platform's default: 30 s, says the SDK.

    Raises:
        ConfigurationError: an argument is unfit for a request.
    """

    host_id: str
    command: str = field(repr=False)
    args: Sequence[str] = field(default=(), repr=False)
    cwd: str | None = field(default=None, kw_only=True)
    env: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    timeout: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_id("HostJob", "host", self.host_id)
        check_command("HostJob", self.command, instead_of_list="Pass what follows the program as args.")
        check_arguments("HostJob", self.args)
        check_cwd("HostJob", self.cwd, may_be_relative=True)
        check_env("HostJob", self.env)
        check_timeout("HostJob", self.timeout)
        object.__setattr__(self, "args", tuple(self.args))  # so that a list compares like a tuple

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        return _JobWork(self, check_platform("HostJob", upstream))


class _JobWork(BackgroundWork):
    shape = HOST_JOB
    _thing = "job"
    _start_path = "/jobs"
    _path = "/exec"

    def __init__(self, source: HostJob, miosa: Miosa) -> None:
        super().__init__(miosa, f"/opencomputers/hosts/{quote(source.host_id, safe='')}")
        self._source = source

    def _body(self) -> dict[str, Any]:
        """The variables are a list, as in the Python SDK."""
        source = self._source
        body: dict[str, Any] = {"command": source.command, "args": [*source.args]}
        if source.cwd is not None:
            body["cwd"] = source.cwd
        if source.env is not None:
            body["env"] = [{"name": name, "value": value} for name, value in source.env.items()]
        if source.timeout is not None:
            body["timeout"] = ceil_seconds(source.timeout)
        return body

    def _id_in(self, record: Record) -> object:
        return record.get("id")

    def _is_over(self, record: Record) -> bool:
        state = record.get("state")
        return isinstance(state, str) and state in _FINAL

    def _last_frame(self, record: Record) -> bytes:
        state, code = record["state"], record.get("exit_code")
        if state == "timeout":
            return _frame("exec_error", {"reason": "timeout"})
        if state in _CANCELED or (state == "failed" and code is None):
            return _frame("exec_error", {"reason": state})
        return _frame("exec_result", {"exit_code": code})

    def _says_over(self, refusal: Refusal) -> bool:
        return refusal.upstream_status == 409 and refusal.upstream_code != _NOT_CONNECTED and not refusal.is_temporary

    @property
    def _where(self) -> str:
        return f"host {self._source.host_id}"


def _frame(event: str, body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), json_bytes(body))
