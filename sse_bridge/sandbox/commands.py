"""`commands`: a command that is waited for, with a standard input, or that runs on by itself ("detached").

MIOSA documents the routes, the requests, the limits, and the answer of a command that is waited for. Of a detached one
it documents `id` and `status` only; how much output is kept, and how a kill ends a command, are our choices. Logs have
no event stream, as on the platform.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .capture import Captured, capturing
from .errors import ApiError, invalid
from .jobs import Job
from .requests import ExecRequest, encoded, integer, json_object, optional_text, tail_of
from .state import Sandbox, Sandboxes

__all__ = ["MAX_COMMAND", "MAX_STDIN", "CommandRequest", "CommandRun", "routes"]

#: Bytes of a command line, and of its standard input: MIOSA's limits.
MAX_COMMAND: Final = 64 * 1024
MAX_STDIN: Final = 32 * 1024

#: Seconds that a command may take: MIOSA's default, and its limit.
_TIMEOUT: Final = 60
_MAX_TIMEOUT: Final = 600
#: The refusal while the sandbox is starting. `exec` has another code.
_STARTING: Final = "SANDBOX_STARTING"


def routes(sandboxes: Sandboxes) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    commands = _Commands(sandboxes)
    return [
        Route("/sandboxes/{id}/commands", CommandRun(sandboxes), methods=["POST"]),
        Route("/sandboxes/{id}/commands", commands.list, methods=["GET"]),
        Route("/sandboxes/{id}/commands/{command}", commands.get, methods=["GET"]),
        Route("/sandboxes/{id}/commands/{command}/logs", commands.logs, methods=["GET"]),
        Route("/sandboxes/{id}/commands/{command}/kill", commands.kill, methods=["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A checked request to run a command."""

    wanted: ExecRequest
    #: Whether to answer at once and let it run on.
    detached: bool
    #: The client's name for it.
    name: str | None

    @classmethod
    def parse(cls, body: dict[str, object]) -> CommandRequest:
        """Checks a request's body. Unknown keys are ignored, as on the platform.

        A detached command without `timeout_seconds` runs until it ends or is killed: MIOSA documents the limit of 600
        seconds for commands that are waited for, and sends longer work here. That is our choice.

        Raises:
            ApiError: 400 for a missing command, 422 for another wrong value, and for what processes of this machine
                cannot have: a terminal, or another user.
        """
        _refuse_unsupported(body)
        detached = _flag(body, "detached")
        timeout = _timeout(integer(body.get("timeout_seconds"), "timeout_seconds"))
        if timeout is None and not detached:
            timeout = _TIMEOUT
        plain = ExecRequest.parse({key: body.get(key) for key in ("command", "cwd", "env")})
        if len(plain.command.encode()) > MAX_COMMAND:
            raise invalid(f"command must not exceed {MAX_COMMAND} bytes", field="command")
        wanted = ExecRequest(plain.command, plain.cwd, plain.env, timeout, plain.wait, _stdin(body.get("stdin")))
        return cls(wanted, detached, optional_text(body.get("name"), "name"))


class CommandRun:
    """`POST /sandboxes/{id}/commands`: answers when the command has ended, or 201 with it if it is detached.

    The command outlives the response, for the reasons in `execs` and `background`.
    """

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        asked = CommandRequest.parse(await json_object(request))
        serve = _detached if asked.detached else _waited_for
        await serve(sandbox, asked, _Answering(scope, receive, send))


class _Answering:
    """Sends the one answer of a request. The client may have left, which is an `OSError` (ASGI HTTP, 2.4)."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._message = (scope, receive, send)

    async def __call__(self, data: dict[str, object], status: int) -> None:
        with suppress(OSError):
            await JSONResponse({"data": data}, status_code=status)(*self._message)


async def _waited_for(sandbox: Sandbox, asked: CommandRequest, answer: _Answering) -> None:
    async with sandbox.run(asked.wanted, starting=_STARTING) as command, capturing(command) as captured:
        await answer(_result(captured), 200)


async def _detached(sandbox: Sandbox, asked: CommandRequest, answer: _Answering) -> None:
    async with sandbox.run(asked.wanted, starting=_STARTING) as command, anyio.create_task_group() as tasks:
        id = f"cmd_{secrets.token_hex(8)}"
        job = Job(id, command, text=asked.wanted.command, name=asked.name, log=sandbox.log)
        sandbox.commands.add(job)
        tasks.start_soon(job.run)
        await answer(_view(job), 201)


class _Commands:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def list(self, request: Request) -> Response:
        """All detached commands that run, and the last 100 that have ended."""
        sandbox = self._sandboxes.get(request.path_params["id"])
        return JSONResponse({"data": [_view(job) for job in sandbox.commands]})

    async def get(self, request: Request) -> Response:
        """One detached command, also after its end."""
        return JSONResponse({"data": _view(self._job(request))})

    async def logs(self, request: Request) -> Response:
        """The last lines of what is kept, 200 unless `tail` says how many."""
        tail = tail_of(request.query_params, "tail")
        return JSONResponse({"data": self._job(request).output.text(tail)})

    async def kill(self, request: Request) -> Response:
        """Answers with the command once it has ended, also when repeated. Ends it as a process is stopped.

        MIOSA documents no signal; ours are SIGTERM, and SIGKILL after five seconds.
        """
        job = self._job(request)
        await job.stop()
        return JSONResponse({"data": _view(job)})

    def _job(self, request: Request) -> Job:
        return self._sandboxes.get(request.path_params["id"]).commands.get(request.path_params["command"])


def _view(job: Job) -> dict[str, object]:
    return {"id": job.id, **job.view()}


def _result(captured: Captured) -> dict[str, object]:
    data: dict[str, object] = {
        "stdout": captured.stdout.text(),
        "stderr": captured.stderr.text(),
        "exit_code": captured.outcome.exit_code,
        "duration_ms": captured.outcome.duration_ms,
        "timed_out": captured.outcome.timed_out,
    }
    for name, head in (("stdout", captured.stdout), ("stderr", captured.stderr)):
        if head.is_cut:
            data[f"{name}_truncated"] = True
    return data


def _refuse_unsupported(body: dict[str, object]) -> None:
    """Refuses what would change how a command runs, rather than ignoring it: the command would do something else.

    There is no terminal for it, no input beyond `stdin`, and no user but the server's. MIOSA has no such refusal.
    """
    for field in ("tty", "interactive", "sudo"):
        if _flag(body, field):
            raise _unsupported(field)
    if optional_text(body.get("user"), "user"):
        raise _unsupported("user")


def _unsupported(field: str) -> ApiError:
    message = f"the local sandbox cannot run a command with {field}"
    return ApiError(422, "UNSUPPORTED_OPTION", message, details={"field": field})


def _flag(body: dict[str, object], field: str) -> bool:
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{field} must be true or false", field=field)
    return bool(value)


def _timeout(value: int | None) -> int | None:
    if value is not None and value > _MAX_TIMEOUT:
        raise ApiError(
            422,
            "TIMEOUT_TOO_LONG",
            f"timeout_seconds must not exceed {_MAX_TIMEOUT}; run longer work detached",
            details={"field": "timeout_seconds", "max": _MAX_TIMEOUT},
        )
    if value is not None and value < 1:
        raise invalid("timeout_seconds must be positive", field="timeout_seconds")
    return value


def _stdin(value: object) -> bytes | None:
    data = None if value is None else encoded(value, "stdin")
    if data is not None and len(data) > MAX_STDIN:
        raise invalid(f"stdin must not exceed {MAX_STDIN} bytes", field="stdin")
    return data
