"""`exec` and `exec/stream`: a command's output as one answer, or as an event stream while it is printed.

Both are plain ASGI applications, because a command outlives its response: it runs on when the client leaves and when
the response ends. MIOSA documents no cancel for these routes and does not promise that closing the connection kills, so
this server never kills for that. A command ends by itself, by its `timeout`, with its sandbox, or with the server.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .outlet import Outlet, ShownOutput
from .output import boundary, exit_frame
from .processes import Outcome
from .requests import ExecRequest, json_object
from .state import Sandboxes

__all__ = ["MAX_OUTPUT", "BlockingExec", "StreamingExec", "routes"]

#: Bytes that `exec` keeps of stdout, and of stderr; it reads and drops the rest. MIOSA documents no limit.
MAX_OUTPUT: Final = 10 * 1024 * 1024


def routes(sandboxes: Sandboxes, *, heartbeat: float) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    return [
        Route("/sandboxes/{id}/exec", BlockingExec(sandboxes), methods=["POST"]),
        Route("/sandboxes/{id}/exec/stream", StreamingExec(sandboxes, heartbeat), methods=["POST"]),
    ]


class BlockingExec:
    """`POST /sandboxes/{id}/exec`: runs a command and answers when it has ended."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        wanted = ExecRequest.parse(await json_object(request))
        stdout, stderr = _Head(MAX_OUTPUT), _Head(MAX_OUTPUT)
        async with sandbox.run(wanted) as command, anyio.create_task_group() as pumps:
            pumps.start_soon(command.stdout.pump, stdout.add)
            pumps.start_soon(command.stderr.pump, stderr.add)
            outcome = await command.ended()
            with suppress(OSError):  # the client has left (ASGI HTTP, 2.4); children in the background live on
                await _answer(outcome, stdout, stderr)(scope, receive, send)
            # The task group ends with the last process that holds the pipes; a child in the background may hold them
            # for long.


def _answer(outcome: Outcome, stdout: _Head, stderr: _Head) -> JSONResponse:
    data: dict[str, object] = {
        "stdout": stdout.text(),
        "stderr": stderr.text(),
        "exit_code": outcome.exit_code,
        "duration_ms": outcome.duration_ms,
    }
    if outcome.timed_out:
        data["timed_out"] = True
    if stdout.is_cut or stderr.is_cut:
        data["truncated"] = True
    return JSONResponse({"data": data})


class _Head:
    """The first bytes of an output, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.is_cut = False

    async def add(self, piece: bytes) -> None:
        """Keeps as much as still fits."""
        self._bytes += piece
        if len(self._bytes) > self._limit:
            self.is_cut = True
            del self._bytes[boundary(self._bytes, self._limit) :]

    def text(self) -> str:
        """The bytes kept, as text; invalid UTF-8 becomes U+FFFD."""
        return self._bytes.decode("utf-8", "replace")


class StreamingExec:
    """`POST /sandboxes/{id}/exec/stream`: runs a command and streams what it prints, line by line."""

    def __init__(self, sandboxes: Sandboxes, heartbeat: float) -> None:
        self._sandboxes = sandboxes
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        wanted = ExecRequest.parse(await json_object(request))
        async with sandbox.run(wanted) as command, anyio.create_task_group() as pumps:
            outlet = Outlet(send, self._heartbeat)
            await outlet.begin()
            stdout, stderr = ShownOutput(outlet, "stdout"), ShownOutput(outlet, "stderr")
            pumps.start_soon(command.stdout.pump, stdout.add)
            pumps.start_soon(command.stderr.pump, stderr.add)
            async with anyio.create_task_group() as watchers:
                watchers.start_soon(outlet.watch, receive)
                watchers.start_soon(outlet.beat)
                watchers.start_soon(stdout.show_unfinished)
                watchers.start_soon(stderr.show_unfinished)
                outcome = await command.ended()
                last = exit_frame(outcome.exit_code, timed_out=outcome.timed_out)
                await outlet.end(stdout.finish() + stderr.finish() + last)
                watchers.cancel_scope.cancel()
