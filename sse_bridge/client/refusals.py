"""Answers that are no stream, and `error` events, as exceptions."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from ..wire.objects import Body, read_object
from .errors import FollowError, KeyRefused, RunFailed, RunRefused, RunUnknown

__all__ = ["is_definite", "of_answer", "of_error", "status_line"]

#: Statuses that pass by themselves, from the bridge or from a proxy.
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def of_answer(status: int, content: bytes, run: str | None) -> RunRefused:
    """The exception for an answer that is no stream. What a proxy wrote instead of the bridge is left out."""
    error = _error_in(content)
    kind = _kind(error.get("code"))
    return kind(
        _text(error.get("message")) or f"The server answered {status_line(status)}.",
        code=_text(error.get("code")) or f"http_{status}",
        status=status,
        request_id=_text(error.get("request_id")),
        run=run,
    )


def of_error(body: Body, *, is_gone: bool, run: str | None) -> FollowError:
    """The exception for an `error` event. One with a status is a refusal that came as an event."""
    status = body.get("status") if isinstance(body.get("status"), int) else None
    refused = is_gone and status is not None
    kind: type[FollowError] = _kind(body.get("code")) if refused else RunFailed
    return kind(
        _text(body.get("message")) or "The run failed.",
        code=_text(body.get("code")) or "unknown",
        status=status,
        request_id=_text(body.get("request_id")),
        run=run,
    )


def is_definite(status: int, content: bytes) -> bool:
    """Whether asking again is useless: the bridge itself says no, or the status does not pass.

    A 503 passes, from the bridge as well as from a proxy. Another 5xx with the bridge's own words is its answer about
    the run. Without them it comes from a proxy that does not reach the bridge.
    """
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        return False
    return status not in _PASSING or bool(_error_in(content).get("code"))


def _kind(code: object) -> type[RunRefused]:
    return {"run_unknown": RunUnknown, "key_conflict": KeyRefused}.get(str(code), RunRefused)


def _error_in(content: bytes) -> Body:
    error = (read_object(content.decode("utf-8", "replace")) or {}).get("error")
    return error if isinstance(error, dict) else {}


def _text(value: object) -> str | None:
    """Text as it is, and what else an application raised, as text."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else str(value)


def status_line(status: int) -> str:
    """A status with its name, where it has one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
