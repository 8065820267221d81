"""How a run's end is written in Redis, and read: its outcome, and the refusal of a run that never had a stream."""

from __future__ import annotations

import json
from typing import Any

from ...errors import UpstreamError
from ...relay.ending import Cause
from ...relay.info import Outcome
from ...relay.run import Refused, Run

__all__ = ["read_outcome", "read_refusal", "written_outcome", "written_refusal"]


def written_outcome(run: Run) -> bytes:
    """How a run ended, for the last entry of its stream."""
    outcome = run.outcome()
    said = {
        "code": outcome.exit_code,
        "error": outcome.error,
        "message": outcome.message,
        "timed_out": outcome.timed_out,
        "seconds": outcome.duration,
        "lines": outcome.lines,
        "bytes": outcome.bytes,
        "ended_at": run.ended_at,
    }
    return json.dumps(said).encode()


def read_outcome(written: bytes) -> tuple[Outcome | None, float | None]:
    """The outcome, and when the run ended; `None` for what is unknown."""
    said = _object(written)
    if said is None:
        return None, None
    outcome = Outcome(
        exit_code=said.get("code"),
        error=said.get("error"),
        message=said.get("message"),
        duration=said.get("seconds", 0.0),
        lines=said.get("lines", 0),
        bytes=said.get("bytes", 0),
        cancelled=None,
        timed_out=said.get("timed_out") is True,
    )
    return outcome, said.get("ended_at")


def written_refusal(reason: Refused) -> bytes:
    """Why a run has no stream."""
    if isinstance(reason, Cause):
        return json.dumps({"cause": reason.name}).encode()
    said = {
        "message": reason.message,
        "code": reason.code,
        "status": reason.status,
        "retry_after": reason.retry_after,
        "request_id": reason.request_id,
    }
    return json.dumps(said).encode()


def read_refusal(written: bytes) -> Refused:
    """Why a run has no stream."""
    said = _object(written) or {}
    if "cause" in said:
        return Cause[said["cause"]]
    return UpstreamError(
        said.get("message", "The upstream refused."),
        code=said.get("code"),
        status=said.get("status"),
        retry_after=said.get("retry_after"),
        request_id=said.get("request_id"),
    )


def _object(written: bytes) -> dict[str, Any] | None:
    try:
        said: Any = json.loads(written)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
