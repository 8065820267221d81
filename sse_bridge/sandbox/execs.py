"""`exec` and `exec/stream`: a command's output as one answer, or as an event stream while it is printed.

Both are plain ASGI applications, because a command outlives its response: it runs on when the client leaves and when
the response ends. MIOSA documents no cancel for these routes and does not promise that closing the connection kills, so
this server never kills for that. A command ends by itself, by its `timeout`, with its sandbox, or with the server.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .capture import Captured, capturing
from .errors import envelope, error_frame
from .faults import breaking
from .outlet import Outlet, ShownOutput
from .processes import Command
from .profiles import Profile
from .requests import json_object
from .state import Sandboxes

__all__ = ["BlockingExec", "StreamingExec", "routes"]


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
        profile = sandbox.profile
        wanted = profile.parse(await json_object(request))
        with sandbox.turn.taken() as give_back:
            async with sandbox.run(wanted) as command, capturing(command) as captured:
                give_back()
                failure = profile.failure(captured.outcome)
                answer = _answer(captured, profile) if failure is None else envelope(scope, failure)
                with suppress(OSError):  # the client has left (ASGI HTTP, 2.4); children in the background live on
                    await answer(scope, receive, send)


def _answer(captured: Captured, profile: Profile) -> JSONResponse:
    data: dict[str, object] = {
        "stdout": captured.stdout.text(),
        "stderr": captured.stderr.text(),
        "exit_code": captured.outcome.exit_code,
    }
    if profile.says_duration:
        data["duration_ms"] = captured.outcome.duration_ms
    if captured.outcome.timed_out:
        data["timed_out"] = True
    if captured.stdout.is_cut or captured.stderr.is_cut:
        data["truncated"] = True
    return JSONResponse({"data": data})


class StreamingExec:
    """`POST /sandboxes/{id}/exec/stream`: runs a command and streams what it prints, as its sandbox's profile says."""

    def __init__(self, sandboxes: Sandboxes, heartbeat: float) -> None:
        self._sandboxes = sandboxes
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        wanted = sandbox.profile.parse(await json_object(request))
        with sandbox.turn.taken() as give_back:
            async with sandbox.run(wanted) as command:
                await anyio.sleep(sandbox.profile.header_delay)
                send = breaking(send, scope, sandbox.profile.cut_after, sandbox.profile.cuts_inside)
                await self._stream(command, sandbox.profile, scope, receive, send, give_back)

    async def _stream(
        self,
        command: Command,
        profile: Profile,
        scope: Scope,
        receive: Receive,
        send: Send,
        give_back: Callable[[], None],
    ) -> None:
        heartbeat, framing = profile.heartbeat, profile.framing
        interval = self._heartbeat if heartbeat.interval is None else heartbeat.interval
        outlet = Outlet(send, interval, heartbeat.comment)
        async with anyio.create_task_group() as pumps:
            await outlet.begin(heartbeat.comment if heartbeat.at_once else b"")
            stdout, stderr = (ShownOutput(outlet, framing.encoder(stream)) for stream in ("stdout", "stderr"))
            pumps.start_soon(command.stdout.pump, stdout.add)
            pumps.start_soon(command.stderr.pump, stderr.add)
            async with anyio.create_task_group() as watchers:
                watchers.start_soon(outlet.watch, receive)
                watchers.start_soon(outlet.beat)
                watchers.start_soon(stdout.show_unfinished)
                watchers.start_soon(stderr.show_unfinished)
                outcome = await command.ended()
                give_back()
                failure = profile.failure(outcome)
                if failure is None:
                    await outlet.end(stdout.finish() + stderr.finish() + framing.exit(outcome))
                else:  # output that is still to be sent is lost, as on runners
                    await outlet.end(error_frame(scope, failure))
                watchers.cancel_scope.cancel()
