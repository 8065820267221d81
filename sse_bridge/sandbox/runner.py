"""What MIOSA's regional runners ask of a command, and how they report one that came to no exit.

After their source (`docs/miosa.md` §3 and §4), which may be ahead of what is deployed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .errors import ApiError
from .processes import Outcome
from .requests import ExecRequest

__all__ = ["MAX_OUTPUT", "failure", "parse"]

#: Bytes of stdout and stderr together. Runners have a limit, but its value is unknown; this one is our choice.
MAX_OUTPUT: Final = 1024 * 1024

#: Bytes of a command line, which is one argument there.
_MAX_COMMAND: Final = 4096
#: Seconds: the default, and the limit.
_TIMEOUT: Final = 30
_MAX_TIMEOUT: Final = 3600


def parse(body: dict[str, object]) -> ExecRequest:
    """Checks a request's body. `env` is ignored, as runners do without a word.

    Raises:
        ApiError: as `ExecRequest.parse`; 400 for a `cwd` and for a `timeout` above an hour, 413 for a long command.
    """
    if body.get("cwd") is not None:
        message = "this runner does not take a working directory; send the request to api.miosa.ai"
        raise ApiError(400, "RUNNER_UNSUPPORTED_REQUEST", message, details={"field": "cwd"})
    request = ExecRequest.parse({**body, "env": None})
    size = len(request.command.encode())
    if size > _MAX_COMMAND:
        details: dict[str, object] = {"field": "argument", "limit": _MAX_COMMAND, "actual": size}
        raise ApiError(413, "RUNNER_COMMAND_TOO_LARGE", "the command is too large for a runner", details=details)
    timeout = request.timeout or _TIMEOUT
    if timeout > _MAX_TIMEOUT:
        details = {"field": "timeout", "limit_ms": _MAX_TIMEOUT * 1000, "actual_ms": timeout * 1000}
        raise ApiError(400, "EXEC_TIMEOUT_UNSUPPORTED", "the timeout is too long for a runner", details=details)
    return replace(request, timeout=timeout, max_output=MAX_OUTPUT)


def failure(outcome: Outcome) -> ApiError | None:
    """The error that runners report in place of an exit, if there is one."""
    alive: dict[str, object] = {"sandbox_alive": True}
    if outcome.timed_out:
        return ApiError(504, "EXEC_TIMEOUT", "the command was stopped at its deadline", details=alive)
    if outcome.over_limit:
        return ApiError(413, "EXEC_OUTPUT_LIMIT", "the command printed too much and was stopped", details=alive)
    return None
