"""Saying no: an ordinary HTTP error with a JSON body (`design.md` §6)."""

from __future__ import annotations

import math
from http import HTTPStatus

from starlette.exceptions import HTTPException

from ..errors import UpstreamError
from . import messages
from .messages import Send

__all__ = ["send_http_exception", "send_upstream_error"]


async def _send_error(
    send: Send, status: int, code: str, message: str, *, request_id: str | None = None, headers: messages.Headers = ()
) -> None:
    error = {"code": code, "message": message, "request_id": request_id}
    await messages.send_json(send, status, {"error": error}, headers)


async def send_upstream_error(send: Send, error: UpstreamError) -> None:
    wait = [] if error.retry_after is None else [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after)))]
    await _send_error(send, error.status, error.code, error.message, request_id=error.request_id, headers=wait)


async def send_http_exception(send: Send, refused: HTTPException) -> None:
    known = refused.status_code in HTTPStatus._value2member_map_
    code = HTTPStatus(refused.status_code).name.lower() if known else f"http_{refused.status_code}"
    headers = [(name.lower().encode(), value.encode()) for name, value in (refused.headers or {}).items()]
    await _send_error(send, refused.status_code, code, str(refused.detail), headers=headers)
