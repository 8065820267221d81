"""Refusing a request: an HTTP status and a JSON body. The only place where a run's ending gets a status."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException

from ..relay.ending import Cause
from ..relay.run import Refused
from . import messages
from .messages import Send

__all__ = ["RETRY_AFTER_STOP", "send_http_exception", "send_refusal", "stopping"]

#: Seconds after which the next process may be up when this one is stopped. Browsers are told the same.
RETRY_AFTER_STOP: Final = 2.0

#: 410: the run existed and is gone for good, which an `EventSource` takes as a reason to stop (WHATWG HTML 9.2.3).
_STATUS_OF: Final = {Cause.CANCELLED: 410, Cause.ABANDONED: 410, Cause.SERVER_STOPPED: 503, Cause.BRIDGE_FAILED: 500}


def stopping() -> HTTPException:
    """What a request gets that comes while the server stops."""
    return HTTPException(503, Cause.SERVER_STOPPED.message, {"Retry-After": f"{RETRY_AFTER_STOP:.0f}"})


async def send_refusal(send: Send, reason: Refused) -> None:
    """Answers a request whose run has no stream."""
    if isinstance(reason, Cause):
        wait = RETRY_AFTER_STOP if reason is Cause.SERVER_STOPPED else None
        await _send_error(send, _STATUS_OF[reason], reason.code, reason.message, retry_after=wait)
    else:
        await _send_error(
            send,
            reason.status,
            reason.code,
            reason.message,
            request_id=reason.request_id,
            retry_after=reason.retry_after,
        )


async def send_http_exception(send: Send, refused: HTTPException) -> None:
    """Answers with what the bridge or the application raised."""
    headers = [(name.lower().encode(), value.encode()) for name, value in (refused.headers or {}).items()]
    await _send_error(send, refused.status_code, _code_of(refused.status_code), str(refused.detail), headers=headers)


async def _send_error(
    send: Send,
    status: int,
    code: str,
    message: str,
    *,
    request_id: str | None = None,
    retry_after: float | None = None,
    headers: messages.Headers = (),
) -> None:
    wait = [] if retry_after is None else [(b"retry-after", b"%d" % max(1, math.ceil(retry_after)))]
    error = {"code": code, "message": message, "request_id": request_id}
    await messages.send_json(send, status, {"error": error}, [*headers, *wait])


def _code_of(status: int) -> str:
    try:
        return HTTPStatus(status).name.lower()
    except ValueError:
        return f"http_{status}"
