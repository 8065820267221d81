"""Jobs on hosts of one's own: `POST /opencomputers/hosts/{id}/jobs`, and the stream of the job (`docs/miosa.md` §7).

A job has an id, so one call ends it, and another asks for its state. But the platform keeps no output: what a job
prints before its stream is open, and after a stream has broken off, is lost. So the bridge does not open a broken
stream again.
Part of the output would be missing, the bridge could not count how much, and no frame could say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final
from urllib.parse import quote

import anyio

from ...causes import log_cause
from ...errors import UpstreamError, UpstreamMisbehaved, UpstreamRefused
from ...wire.shapes import HOST_JOB
from ..base import Cancelled, Room, Stream, Take, Upstream, Work
from ..checks import ceil_seconds, json_bytes
from ..client import ANSWER_TIMEOUT, SSE_ACCEPT
from ..following import Following
from ..refusals import Refusal
from ..retrying import READY_BACKOFF, READY_TIMEOUT, is_temporary, may_change, retry
from .cancel import BACKOFF
from .checks import check_arguments, check_command, check_cwd, check_env, check_id, check_platform, check_timeout
from .client import Miosa

__all__ = ["HostJob"]

#: The states of a job that is over. The SDK knew `completed` and `cancelled` once, and says that they never come.
_CANCELED: Final = frozenset({"canceled", "cancelled"})
_FINAL: Final = _CANCELED | {"succeeded", "completed", "failed", "timeout"}
#: The code of the 409 of a host that is out of the platform's reach. Any other 409 says that the job is over.
_NOT_CONNECTED: Final = "HOST_NOT_CONNECTED"
#: An id that can be part of a path and of a line in the log.
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,127}")


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


class _Finding(Enum):
    """What came of the attempt to end a job, and how far it got. The second value is for people."""

    UNKNOWN = (Cancelled.REQUESTED, "the platform did not say which job it started, so it could not be asked to end it")
    UNANSWERED = (Cancelled.REQUESTED, "the platform did not answer in time whether it ends it")
    REFUSED = (Cancelled.REQUESTED, "the platform refused to end it")
    ASKED = (Cancelled.ACKNOWLEDGED, "the platform took the request to end it, and was not seen to have done so")
    OVER = (Cancelled.CONFIRMED, "it is over")

    def __init__(self, outcome: Cancelled, words: str) -> None:
        self.outcome = outcome
        self.words = words


class _JobWork:
    shape = HOST_JOB

    __slots__ = ("_finding", "_job_id", "_miosa", "_path", "_source", "may_run")

    def __init__(self, source: HostJob, miosa: Miosa) -> None:
        self.may_run = False
        self._source = source
        self._miosa = miosa
        self._path = f"/opencomputers/hosts/{quote(source.host_id, safe='')}"
        self._job_id = ""  # until the platform has named the job
        self._finding = _Finding.UNKNOWN

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        """See `base.Work.stream`."""
        return _Output(self)

    # -- starting

    async def start(self) -> None:
        """Starts the job, and learns its id."""
        self._job_id = await retry(self._start, is_temporary, backoff=READY_BACKOFF, timeout=READY_TIMEOUT)
        self._finding = _Finding.UNANSWERED

    async def _start(self, seconds_left: float) -> str:
        body = self._body()
        json_bytes(body)  # fails before the request goes out, if the caller has changed `env` meanwhile
        self.may_run = True
        try:
            # This may take longer than `seconds_left`: without the answer, the bridge never learns the job's id.
            answer = await self._ask("POST", "/jobs", ANSWER_TIMEOUT, body, statuses=(200, 201, 202))
        except UpstreamError as error:
            self.may_run = not error.started_nothing
            raise
        job_id = _job(answer).get("id")
        if not isinstance(job_id, str) or _ID.fullmatch(job_id) is None:
            raise UpstreamMisbehaved("The upstream did not say which job it started.", code="upstream_failed")
        return job_id

    def _body(self) -> dict[str, Any]:
        """The documented keys. The variables are a list, as in the Python SDK."""
        source = self._source
        body: dict[str, Any] = {"command": source.command, "args": [*source.args]}
        if source.cwd is not None:
            body["cwd"] = source.cwd
        if source.env is not None:
            body["env"] = [{"name": name, "value": value} for name, value in source.env.items()]
        if source.timeout is not None:
            body["timeout"] = ceil_seconds(source.timeout)
        return body

    def attach(self) -> AbstractAsyncContextManager[Stream]:
        """The stream of the job, from now on. To follow it starts nothing, so a busy platform is asked again."""
        url, headers = self._miosa.address(f"{self._path}/exec/{self._job_id}/stream"), self._miosa.headers(SSE_ACCEPT)
        return Following(self._miosa, "GET", url, headers, json=None, last_event_id=None).stream()

    async def ending(self) -> bytes:
        """The last frame of a job whose stream was over before it could be opened, as the stream would have had it.

        Raises:
            UpstreamError: the platform did not say how the job ended.
        """
        job = await self._when_over(READY_TIMEOUT)
        if job is None:
            raise UpstreamError("The upstream ended its stream without an exit.", code="upstream_ended")
        self.may_run = False
        state, code = job["state"], job.get("exit_code")
        if state == "timeout":
            return _frame("exec_error", {"reason": "timeout"})
        if state in _CANCELED or (state == "failed" and code is None):
            return _frame("exec_error", {"reason": state})
        return _frame("exec_result", {"exit_code": code})

    # -- ending

    async def cancel(self, timeout: float) -> Cancelled:
        """See `base.Work.cancel`."""
        with anyio.move_on_after(timeout):
            try:
                await self._end(timeout)
            except UpstreamError as error:
                if isinstance(error, UpstreamRefused) and self._finding is _Finding.UNANSWERED:
                    self._finding = _Finding.REFUSED
                log_cause(error, "a job could not be asked to end: the cause")
        return self._finding.outcome

    async def _end(self, timeout: float) -> None:
        if not self._job_id:
            return
        try:
            await retry(self._delete, may_change, backoff=BACKOFF, timeout=timeout)
        except Refusal as refused:
            if refused.upstream_status != 409 or refused.upstream_code == _NOT_CONNECTED:
                raise
            self._finding = _Finding.OVER
            return
        self._finding = _Finding.ASKED
        if await self._when_over(timeout) is not None:
            self._finding = _Finding.OVER

    async def _delete(self, seconds_left: float) -> None:
        await self._ask("DELETE", f"/exec/{self._job_id}", seconds_left, statuses=(200, 202, 204))

    # -- asking

    async def _when_over(self, timeout: float) -> dict[str, Any] | None:
        """The job as it is when it is over; `None` if it was not seen to be over within `timeout` seconds."""
        pause = BACKOFF.first
        with anyio.move_on_after(timeout):
            while True:
                job = await retry(self._look, may_change, backoff=BACKOFF, timeout=timeout)
                if job.get("state") in _FINAL:
                    return job
                await anyio.sleep(pause)
                pause = min(2 * pause, BACKOFF.most)
        return None

    async def _look(self, seconds_left: float) -> dict[str, Any]:
        job = _job(await self._ask("GET", f"/exec/{self._job_id}", seconds_left))
        return job if isinstance(job.get("state"), str) else {}

    async def _ask(
        self, method: str, path: str, timeout: float, body: object = None, *, statuses: tuple[int, ...] = (200,)
    ) -> bytes:
        miosa = self._miosa
        url, headers = miosa.address(self._path + path), miosa.headers("application/json")
        return await miosa.ask(method, url, headers=headers, json=body, timeout=timeout, statuses=statuses)

    # -- for operators

    @property
    def mark(self) -> str:
        """See `base.Traceable.mark`."""
        return f"host {self._source.host_id}, job {self._job_id or 'unknown'}"

    def trace(self) -> str:
        """See `base.Traceable.trace`."""
        where = f"{self._path}/exec/{self._job_id}" if self._job_id else f"{self._path}/jobs"
        return f"{self.mark}: {self._finding.words}. To look for it: GET {where}"


class _Output:
    """The stream of a job, and the context that starts it."""

    __slots__ = ("_opening", "_work")

    def __init__(self, work: _JobWork) -> None:
        self._work = work
        self._opening: AbstractAsyncContextManager[Stream] | None = None

    async def __aenter__(self) -> Stream:
        await self._work.start()
        opening = self._work.attach()
        try:
            stream = await opening.__aenter__()
        except Refusal as refused:
            if refused.upstream_status != 204:
                raise
        else:
            self._opening = opening
            return stream
        return _Said(await self._work.ending())

    async def __aexit__(self, *raised: Any) -> None:
        if self._opening is not None:
            await self._opening.__aexit__(*raised)


class _Said:
    """A stream of one frame."""

    __slots__ = ("_frame",)

    def __init__(self, frame: bytes) -> None:
        self._frame = frame

    async def push(self, take: Take, room: Room) -> None:
        """See `base.Stream.push`."""
        if not take(self._frame):
            await room()


def _frame(event: str, body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), json_bytes(body))


def _job(answer: bytes) -> dict[str, Any]:
    """The record of a job, bare or in its envelope. Empty if it cannot be read."""
    try:
        body: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    job = body.get("job", body) if isinstance(body, dict) else None
    return job if isinstance(job, dict) else {}
