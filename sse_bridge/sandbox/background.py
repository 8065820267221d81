"""`processes`: commands that run on after their request, with a number, a log, a stream of their own, and a stop.

MIOSA documents the routes, the requests and the object. It does not document the frames of the stream, how much output
is kept, and what a second stop answers: those are our choices, and say so.

A process is read by the task of the request that started it, as a command of `exec` is. That task goes on after its
response, so a process needs no lifespan events of the host.
"""

from __future__ import annotations

from contextlib import suppress

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .following import follow
from .jobs import Job
from .outlet import Outlet
from .output import exit_frame
from .requests import ExecRequest, json_object, optional_text, tail_of
from .state import Sandboxes

__all__ = ["ProcessStart", "ProcessStream", "routes"]


def routes(sandboxes: Sandboxes, *, heartbeat: float) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    processes = _Processes(sandboxes)
    return [
        Route("/sandboxes/{id}/processes", ProcessStart(sandboxes), methods=["POST"]),
        Route("/sandboxes/{id}/processes", processes.list, methods=["GET"]),
        Route("/sandboxes/{id}/processes/{pid}", processes.get, methods=["GET"]),
        Route("/sandboxes/{id}/processes/{pid}", processes.stop, methods=["DELETE"]),
        Route("/sandboxes/{id}/processes/{pid}/logs", processes.logs, methods=["GET"]),
        Route("/sandboxes/{id}/processes/{pid}/stream", ProcessStream(sandboxes, heartbeat), methods=["GET"]),
    ]


class ProcessStart:
    """`POST /sandboxes/{id}/processes`: starts a command, answers 201 with it, and reads it until it ends."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        body = await json_object(request)
        wanted, name = ExecRequest.parse(body), optional_text(body.get("name"), "name")
        async with sandbox.run(wanted) as command, anyio.create_task_group() as tasks:
            job = Job(str(command.process.pid), command, text=wanted.command, name=name, log=sandbox.log)
            sandbox.processes.add(job)
            tasks.start_soon(job.run)
            with suppress(OSError):  # the client has left (ASGI HTTP, 2.4); the process runs on
                await JSONResponse({"data": _view(job)}, status_code=201)(scope, receive, send)


class _Processes:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def list(self, request: Request) -> Response:
        """All that run, and the last 100 that have ended."""
        sandbox = self._sandboxes.get(request.path_params["id"])
        return JSONResponse({"data": [_view(job) for job in sandbox.processes]})

    async def get(self, request: Request) -> Response:
        """One process, also after its end."""
        return JSONResponse({"data": _view(_job(self._sandboxes, request))})

    async def stop(self, request: Request) -> Response:
        """Answers 204 once the process has ended: SIGTERM to its group, and SIGKILL after five seconds.

        For one that has ended it answers 204 again. MIOSA documents no answer for that; this is our choice, so that a
        client may repeat a stop whose answer was lost.
        """
        await _job(self._sandboxes, request).stop()
        return Response(status_code=204)

    async def logs(self, request: Request) -> Response:
        """The last lines of what is kept, 200 unless `tail` says how many."""
        tail = tail_of(request.query_params, "tail")
        return JSONResponse({"data": _job(self._sandboxes, request).output.text(tail)})


class ProcessStream:
    """`GET /sandboxes/{id}/processes/{pid}/stream`: the kept output, then the live one, then the exit.

    The frames are those of `exec/stream`, which is our choice: MIOSA documents none. The process runs on when a client
    closes the stream.
    """

    def __init__(self, sandboxes: Sandboxes, heartbeat: float) -> None:
        self._sandboxes = sandboxes
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        job = _job(self._sandboxes, Request(scope, receive))
        await follow(job.output, Outlet(send, self._heartbeat), receive, ending=lambda: _exit_of(job))


def _exit_of(job: Job) -> bytes:
    outcome = job.outcome
    return b"" if outcome is None else exit_frame(outcome.exit_code, timed_out=outcome.timed_out)


def _view(job: Job) -> dict[str, object]:
    return {"pid": job.pid, **job.view()}


def _job(sandboxes: Sandboxes, request: Request) -> Job:
    return sandboxes.get(request.path_params["id"]).processes.get(request.path_params["pid"])
