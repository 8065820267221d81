"""Work of the platform's that has an id: it is started once, followed and asked about by its id, and ended by its id.

What its kinds have in common. A kind says which requests it takes, and how its record reads.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from typing import Any, Final

import anyio

from ...causes import log_cause
from ...errors import UpstreamError, UpstreamMisbehaved, UpstreamRefused
from ...wire.shapes import Shape
from ..base import Cancelled, Interruption, Reopened, Stream
from ..checks import json_bytes
from ..client import ANSWER_TIMEOUT, SSE_ACCEPT
from ..following import Following, Said
from ..refusals import Refusal
from ..reopening import REOPEN_TIMEOUT, Reopening
from ..retrying import READY_BACKOFF, READY_TIMEOUT, is_temporary, may_change, retry
from .cancel import BACKOFF, Finding
from .client import Miosa

__all__ = ["BackgroundWork", "Record", "Stopping"]

#: What the platform says about a piece of work.
Record = dict[str, Any]

#: An id that can be part of a path and of a line in the log.
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,127}")
#: Answers to a request for a stream that come once the work is over: 204, or that there is no stream.
_NO_STREAM: Final = frozenset({204, 404, 409, 410})
_NO_EXIT: Final = "The upstream ended its stream without an exit."


class Stopping(Enum):
    """What came of the attempt to end the work, and how far it got. The second value is for people."""

    UNKNOWN = (Cancelled.REQUESTED, "the platform did not say what it started, so it could not be asked to end it")
    UNANSWERED = (Cancelled.REQUESTED, "the platform did not answer in time whether it ends it")
    REFUSED = (Cancelled.REQUESTED, "the platform refused to end it")
    ASKED = (Cancelled.ACKNOWLEDGED, "the platform took the request to end it, and was not seen to have done so")
    OVER = (Cancelled.CONFIRMED, "it is over")

    def __init__(self, outcome: Cancelled, words: str) -> None:
        self.outcome = outcome
        self.words = words


class BackgroundWork(ABC):
    """See `base.Work`, `base.Resumable` and `base.Traceable`.

    Args:
        miosa: the platform.
        home: the path below the base URL of the sandbox or host where the work runs.
        id: of work that runs already; empty for work to be started.
        is_ended: whether the work ends with its run. Otherwise only the connection is closed.
    """

    shape: Shape
    has_event_ids = False
    may_repeat = False

    #: What the work is called in the log.
    _thing: str
    #: The path that starts it, and the one below which it is known by its id. Both follow `home`.
    _start_path: str
    _path: str
    #: Whether a stream that the platform ends, and that told of no end, has brought all output.
    _has_all_output_at_its_end = False

    def __init__(self, miosa: Miosa, home: str, id: str = "", *, is_ended: bool = True) -> None:
        self.may_run = is_ended and bool(id)
        self._is_ended = is_ended
        self._miosa = miosa
        self._home = home
        self._id = id
        self._finding: Stopping | Finding = Stopping.UNANSWERED if id else Stopping.UNKNOWN
        self._reopening = Reopening(REOPEN_TIMEOUT)

    # -- what each kind says

    @abstractmethod
    def _body(self) -> dict[str, Any]:
        """What starts it. Only documented keys."""

    @abstractmethod
    def _id_in(self, record: Record) -> object:
        """Its id."""

    @abstractmethod
    def _is_over(self, record: Record) -> bool:
        """Whether it has ended."""

    @abstractmethod
    def _last_frame(self, record: Record) -> bytes:
        """How it ended, as its stream would have said it."""

    @abstractmethod
    def _says_over(self, refusal: Refusal) -> bool:
        """Whether the platform refuses to end it, or to say how it is, because it is over."""

    @property
    @abstractmethod
    def _where(self) -> str:
        """The sandbox or host, for the log."""

    # -- starting and following

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Stream]:
        """See `base.Work.stream`."""
        if not self._id:
            self._id = await retry(self._start, is_temporary, backoff=READY_BACKOFF, timeout=READY_TIMEOUT)
            self._finding = Stopping.UNANSWERED
        async with AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(self._following().stream())
            except Refusal as refused:
                stream = Said(await self._ending(refused))
            yield stream

    async def _start(self, seconds_left: float) -> str:
        body = self._body()
        json_bytes(body)  # fails before the request goes out, if the caller has changed `env` meanwhile
        self.may_run = self._is_ended
        try:
            # This may take longer than `seconds_left`: without the answer, the bridge never learns the id.
            answer = await self._ask("POST", self._start_path, ANSWER_TIMEOUT, body, statuses=(200, 201, 202))
        except UpstreamError as error:
            self.may_run = self._is_ended and not error.started_nothing
            raise
        id = self._id_in(_record_in(answer))
        if isinstance(id, int) and not isinstance(id, bool):
            id = str(id)
        if not isinstance(id, str) or _ID.fullmatch(id) is None:
            raise UpstreamMisbehaved(
                f"The upstream did not say which {self._thing} it started.", code="upstream_failed"
            )
        return id

    def _following(self) -> Following:
        """The stream of the work. To follow it starts nothing, so a busy platform is asked again."""
        url, headers = self._miosa.address(f"{self._here}/stream"), self._miosa.headers(SSE_ACCEPT)
        return Following(self._miosa, "GET", url, headers, json=None, last_event_id=None)

    @asynccontextmanager
    async def resume(self, interruption: Interruption) -> AsyncGenerator[Reopened]:
        """See `base.Resumable.resume`."""
        if interruption.lost is None and (last := await self._last_words()):
            yield Reopened(Said(last), is_exact=self._has_all_output_at_its_end and interruption.is_whole)
            return
        async with AsyncExitStack() as stack:
            stream: Stream
            try:
                opening, stream = await self._reopening.open(interruption, self._following().ask)
                stack.push_async_exit(opening)
            except UpstreamError as error:
                stream = Said(await self._ending(error, interruption))
            yield Reopened(stream, is_exact=False)

    async def _ending(self, refused: UpstreamError, interruption: Interruption | None = None) -> bytes:
        """The last frame of work whose stream cannot be opened, because it is over.

        Raises:
            UpstreamError: it is not over, or the platform does not say how it ended.
        """
        if isinstance(refused, Refusal) and refused.upstream_status in _NO_STREAM:
            # A 204 says that it is over, so a record that says otherwise is not up to date.
            if last := await self._last_words(READY_TIMEOUT if refused.upstream_status == 204 else 0.0):
                return last
            if refused.upstream_status == 204:
                raise UpstreamError(_NO_EXIT, code="upstream_ended") from refused
        if interruption is None:
            raise refused
        raise interruption.lost or UpstreamError(_NO_EXIT, code="upstream_ended") from refused

    async def _last_words(self, timeout: float = 0.0) -> bytes:
        """How the work ended, by its record; empty if it goes on, or if the platform does not say.

        Args:
            timeout: seconds to wait for it to be over; 0 to look once.
        """
        try:
            record = await (self._when_over(timeout) if timeout else self._look_once())
        except UpstreamError as error:
            log_cause(error, "a %s could not be asked how it ended: the cause", self._thing)
            return b""
        if record is None or not self._is_over(record):
            return b""
        self.may_run = False
        return self._last_frame(record)

    # -- ending

    async def cancel(self, timeout: float) -> Cancelled:
        """See `base.Work.cancel`."""
        with anyio.move_on_after(timeout):
            try:
                await self._end(timeout)
            except UpstreamError as error:
                if isinstance(error, UpstreamRefused) and self._finding is Stopping.UNANSWERED:
                    self._finding = Stopping.REFUSED
                log_cause(error, "a %s could not be asked to end: the cause", self._thing)
        return self._finding.outcome

    async def _end(self, timeout: float) -> None:
        if not self._id:
            return
        try:
            await retry(self._delete, may_change, backoff=BACKOFF, timeout=timeout)
            self._finding = Stopping.ASKED
            is_over = await self._when_over(timeout) is not None
        except Refusal as refused:
            if not self._says_over(refused):
                raise
            is_over = True
        if is_over:
            self._finding = Stopping.OVER

    async def _delete(self, seconds_left: float) -> None:
        await self._ask("DELETE", self._here_below, seconds_left, statuses=(200, 202, 204))

    # -- asking

    async def _when_over(self, timeout: float) -> Record | None:
        """The record once the work is over; `None` if it was not seen to be over within `timeout` seconds."""
        pause = BACKOFF.first
        with anyio.move_on_after(timeout):
            while True:
                record = await retry(self._look, may_change, backoff=BACKOFF, timeout=timeout)
                if self._is_over(record):
                    return record
                await anyio.sleep(pause)
                pause = min(2 * pause, BACKOFF.most)
        return None

    async def _look_once(self) -> Record:
        return await retry(self._look, may_change, backoff=BACKOFF, timeout=READY_TIMEOUT)

    async def _look(self, seconds_left: float) -> Record:
        return _record_in(await self._ask("GET", self._here_below, seconds_left))

    async def _ask(
        self, method: str, path: str, timeout: float, body: object = None, *, statuses: tuple[int, ...] = (200,)
    ) -> bytes:
        miosa = self._miosa
        url, headers = miosa.address(self._home + path), miosa.headers("application/json")
        return await miosa.ask(method, url, headers=headers, json=body, timeout=timeout, statuses=statuses)

    @property
    def _here_below(self) -> str:
        return f"{self._path}/{self._id}"

    @property
    def _here(self) -> str:
        return self._home + self._here_below

    @property
    def ticket(self) -> str:
        """See `base.Ticketed.ticket`."""
        return json.dumps({"kind": self._thing, "home": self._home, "id": self._id}) if self._is_ended else ""

    def take_over(self, id: str) -> None:
        """Takes over work that another process has started."""
        self._id = id
        self._finding = Stopping.UNANSWERED

    # -- for operators

    @property
    def mark(self) -> str:
        """See `base.Traceable.mark`."""
        return f"{self._where}, {self._thing} {self._id or 'unknown'}"

    def trace(self) -> str:
        """See `base.Traceable.trace`."""
        where = self._here if self._id else self._home + self._start_path
        return f"{self.mark}: {self._finding.words}. To look for it: GET {where}"


def _record_in(answer: bytes) -> Record:
    """The record in an answer, bare or in its envelope. Empty if it cannot be read."""
    try:
        body: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    for envelope in ("job", "data"):
        if isinstance(body, dict) and envelope in body:
            body = body[envelope]
    return body if isinstance(body, dict) else {}
