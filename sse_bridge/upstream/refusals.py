"""What an upstream's refusal means to a viewer: the status table of `design.md` §6.

Nothing the upstream wrote is handed on but its request id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from ..errors import UpstreamRefused

__all__ = ["Refusal", "refusal"]

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
#: Codes of a sandbox or machine that will take commands in a moment (`miosa-wire.md` §1.5), in upper case.
_BECOMES_READY: Final = ("_NOT_COMMAND_READY", "_STARTING")

_KEY_PROBLEM: Final = (502, "upstream_unauthorized", "The upstream does not accept the server's key.")
_TABLE: Final = {
    204: (204, "upstream_finished", "There is nothing to follow any more."),
    401: _KEY_PROBLEM,
    402: (502, "upstream_credits", "The server's account with the upstream has no credits left."),
    403: _KEY_PROBLEM,
    404: (404, "not_found", "There is nothing to run this in, or nothing to follow: it does not exist."),
    409: (503, "not_ready", "The sandbox is not ready to run commands. Try again in a moment."),
    429: (503, "rate_limited", "The upstream takes no more requests right now. Try again in a moment."),
}
_REJECTED: Final = (502, "upstream_rejected", "The upstream does not take the server's request.")
_FAILED: Final = (502, "upstream_failed", "The upstream failed.")
#: Answers that are given instead of doing what was asked: the request was looked at and refused (RFC 9110 15.5; 423:
#: RFC 4918, 425: RFC 8470, 428 to 431: RFC 6585, 451: RFC 7725). Nothing else is a proof. Proxies answer 408 when what
#: they passed the request to takes too long, and 460 or 499 when somebody left; a 424 tells of a failure on the way.
_PROOFS: Final = frozenset({*range(400, 408), *range(409, 418), 421, 422, 423, 425, 426, 428, 429, 431, 451})
#: Seconds that a viewer is told to wait when the upstream names no time.
_RETRY_AFTER: Final = 2.0


class Refusal(UpstreamRefused):
    """An `UpstreamRefused` with what only the upstream's room needs to know."""

    #: The upstream will say yes later, and has started nothing.
    is_temporary = False
    #: It is certain that nothing was started: the request was looked at and refused.
    started_nothing = False
    #: Seconds that the upstream asked us to wait; `None` if it named no time.
    wait: float | None = None


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Reads an answer that is no success, in any of the envelopes of `miosa-wire.md` §1.5."""
    envelope = _envelope(body)
    ours, code, message = _TABLE.get(status, _FAILED if status >= 500 else _REJECTED)
    wait = _seconds(headers, envelope)
    error = Refusal(
        message,
        code=code,
        status=ours,
        retry_after=(_RETRY_AFTER if wait is None else wait) if ours == 503 else None,
        request_id=_request_id(headers.get("x-request-id")) or _request_id(envelope.get("request_id")),
        upstream_status=status,
    )
    upstream_code = str(envelope.get("code")).upper()
    error.is_temporary = status == 429 or (
        status == 409 and (envelope.get("retryable") is True or upstream_code.endswith(_BECOMES_READY))
    )
    error.started_nothing = status in _PROOFS
    error.wait = wait
    return error


def _envelope(body: bytes) -> dict[str, Any]:
    """`code`, `retryable`, `retry_after`, `retry_after_ms` and `request_id`, wherever they stand."""
    try:
        outer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(outer, dict):
        return {}
    inner = outer.get("error")
    if isinstance(inner, dict):
        return {**outer, **{key: value for key, value in inner.items() if value is not None}}
    return {"code": inner, **outer} if isinstance(inner, str) else outer


def _request_id(value: object) -> str | None:
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None


def _seconds(headers: Mapping[str, str], envelope: dict[str, Any]) -> float | None:
    """How long to wait before trying again, if the upstream says so: never negative, and always a time."""
    said = headers.get("retry-after") or envelope.get("retry_after")
    for seconds in (_number(envelope.get("retry_after_ms")) / 1000, _number(said), _seconds_until(str(said))):
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _number(value: object) -> float:
    """A number, or one in words; `nan` if it is none."""
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _seconds_until(date: str) -> float:
    """Seconds until an HTTP date (RFC 9110 5.6.7); `nan` if it is none."""
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return math.nan
