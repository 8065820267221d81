"""Refusing a request: as an HTTP status with a JSON body, or as a frame for a page that cannot see statuses.

This is the only place where a run's ending gets a status.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import BridgeUnavailable, KeyConflict
from ..relay.ending import Cause
from ..relay.run import Refused
from ..upstream.checks import seconds_to_wait
from ..wire.dialects import Dialect
from ..wire.ids import gone
from . import messages
from .messages import Send

__all__ = ["RETRY_AFTER_STOP", "STREAM_HEADERS", "Refusal", "accepts", "send_refusal"]

logger: Final = logging.getLogger("sse_bridge")

#: Headers of every event stream.
STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),  # no copies, and no compression that would hold lines back
    (b"x-accel-buffering", b"no"),  # nginx: pass on what arrives
]
#: Seconds after which the next process may be up when this one is stopped. Browsers are told the same.
RETRY_AFTER_STOP: Final = 2.0
#: Seconds before another try at the least: browsers would take zero at its word, and ask without a pause.
_SHORTEST_WAIT: Final = 1.0
#: 410: the run existed and is gone for good, which an `EventSource` takes as a reason to stop (WHATWG HTML 9.2.3).
_STATUS_OF: Final = {
    Cause.CANCELLED: 410,
    Cause.ABANDONED: 410,
    Cause.TIME_LIMIT: 410,
    Cause.SERVER_STOPPED: 503,
    Cause.OWNER_LOST: 410,
    Cause.BRIDGE_FAILED: 500,
}
#: Statuses by which clients are told to ask again.
_PASSING: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no stream."""

    status: int
    #: One word in snake_case, stable, for programs.
    code: str
    #: For people: a sentence, or whatever else the application raised.
    message: object
    #: The upstream's id of the failed request; `None` if it gave none.
    request_id: str | None = None
    #: Seconds after which trying again makes sense; `None` if unknown.
    retry_after: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of_run(cls, reason: Refused) -> Refusal:
        """What a run's viewers get that has no stream."""
        if isinstance(reason, Cause):
            wait = RETRY_AFTER_STOP if reason is Cause.SERVER_STOPPED else None
            return cls(_STATUS_OF[reason], reason.code, reason.message, retry_after=wait)
        return cls(reason.status, reason.code, reason.message, reason.request_id, reason.retry_after)

    def for_good(self) -> Refusal:
        """The same refusal for a client that asks for the run by its name. The run is over: asking again is useless."""
        return self if self.status not in _PASSING else replace(self, status=410, retry_after=None)

    @classmethod
    def of_exception(cls, raised: HTTPException) -> Refusal:
        """What the application raised: its status, its detail and its headers stay."""
        headers = tuple(_headers_of(raised))
        wait = seconds_to_wait(dict(headers).get(b"retry-after", b"").decode()) or None  # a time in the past is no wait
        code = _code_of(raised.status_code)
        return cls(raised.status_code, code, _detail_of(raised), retry_after=wait, headers=headers)

    @classmethod
    def of_limit(cls, raised: BridgeUnavailable) -> Refusal:
        """What a request over a limit gets, or one that comes while the server stops."""
        return cls(503, raised.code, str(raised), retry_after=raised.retry_after)

    @classmethod
    def of_key(cls, raised: KeyConflict) -> Refusal:
        """What a request gets whose key stands for something else."""
        return cls(422, "key_conflict", str(raised))


def accepts(request: Request, kind: str) -> bool:
    """Whether a request names a media type in `Accept`; `*/*` names none."""
    return kind in request.headers.get("accept", "").lower()


async def send_refusal(send: Send, refusal: Refusal, token: str, dialect: Dialect | None) -> None:
    """Answers with a refusal.

    Args:
        token: names a run in the id of a frame, so that a browser that comes back is sent away.
        dialect: spells the refusal as a frame; `None` answers with the status.
    """
    if dialect is None or not dialect.has_own_frames or refusal.status == 204:
        await _send_status(send, refusal)
    else:
        head = messages.start(200, STREAM_HEADERS)
        await messages.send_all(send, head, _frame_of(refusal, token, dialect))


def _frame_of(refusal: Refusal, token: str, dialect: Dialect) -> bytes:
    if refusal.status == 503:  # passing: the browser is to ask again by itself
        wait = RETRY_AFTER_STOP if refusal.retry_after is None else refusal.retry_after
        return b"retry: %d\n" % math.ceil(1000 * max(_SHORTEST_WAIT, wait))
    body = {"code": refusal.code, "message": refusal.message, "status": refusal.status}
    return gone(token, dialect.own_frame("error", {**body, "request_id": refusal.request_id}))


async def _send_status(send: Send, refusal: Refusal) -> None:
    headers = [*refusal.headers]
    if refusal.retry_after is not None and b"retry-after" not in dict(headers):  # the application's own stays as it is
        headers.append((b"retry-after", b"%d" % math.ceil(max(_SHORTEST_WAIT, refusal.retry_after))))
    error = {"code": refusal.code, "message": refusal.message, "request_id": refusal.request_id}
    await messages.send_json(send, refusal.status, {"error": error}, headers)


def _code_of(status: int) -> str:
    try:
        return HTTPStatus(status).name.lower()
    except ValueError:
        return f"http_{status}"


def _headers_of(raised: HTTPException) -> Iterable[tuple[bytes, bytes]]:
    """The exception's headers, without those of a body: the body is ours."""
    for name, value in (raised.headers or {}).items():
        if name.lower() not in ("content-length", "content-type"):
            yield name.lower().encode(), str(value).encode()


def _detail_of(raised: HTTPException) -> object:
    """The exception's detail, with every value as JSON has it; the name of the status if that is impossible."""
    detail: object = raised.detail
    if isinstance(detail, str):
        return detail
    try:
        return json.loads(json.dumps(detail, default=_plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        logger.warning(
            "the detail of an HTTPException(%d) cannot be written as JSON; the client got the name of the status",
            raised.status_code,
        )
        return _code_of(raised.status_code).replace("_", " ").capitalize() + "."


def _plain(value: Any) -> object:
    """Values that JSON lacks, in their usual spelling."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError
