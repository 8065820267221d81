"""The routes that take a sandbox out of work and back: pause, stop, resume, extend.

A pause freezes the processes of this machine (SIGSTOP), and a resume lets them go on. A stop ends them and keeps the
files; after it, a resume is like the start of a machine. MIOSA documents these meanings and the names of the states.
Which state allows which change is our choice, where it documents none.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .requests import environment, json_object, seconds
from .state import Sandbox, Sandboxes

__all__ = ["routes"]


def routes(sandboxes: Sandboxes) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    resting = _Resting(sandboxes)
    return [
        Route("/sandboxes/{id}/pause", resting.pause, methods=["POST"]),
        Route("/sandboxes/{id}/stop", resting.stop, methods=["POST"]),
        Route("/sandboxes/{id}/resume", resting.resume, methods=["POST"]),
        Route("/sandboxes/{id}/extend", resting.extend, methods=["POST"]),
    ]


class _Resting:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def pause(self, request: Request) -> Response:
        """Answers once the processes are frozen. A command's time limit goes on: it is a time of the server's clock."""
        sandbox = self._sandbox(request)
        sandbox.pause()
        return JSONResponse({"data": sandbox.view()})

    async def stop(self, request: Request) -> Response:
        """Answers once the processes have ended. A paused sandbox can be stopped, too."""
        sandbox = self._sandbox(request)
        await sandbox.stop()
        return JSONResponse({"data": sandbox.view()})

    async def resume(self, request: Request) -> Response:
        """Answers with the running sandbox. `env` adds variables to those of later commands.

        A request that repeats its `Idempotency-Key` gets the first answer, as at a creation.
        """
        sandbox = self._sandbox(request)
        body = await json_object(request)
        key, asked = request.headers.get("idempotency-key"), {**body, "resume": sandbox.id}
        answer = self._sandboxes.replays.find(key, asked) if key else None
        if answer is None:
            sandbox.resume(environment(body.get("env")))
            answer = sandbox.view()
            if key:
                self._sandboxes.replays.keep(key, asked, answer)
        return JSONResponse({"data": answer})

    async def extend(self, request: Request) -> Response:
        """Checks the time and changes nothing: a sandbox of this server has no time limit that could end."""
        sandbox = self._sandbox(request)
        sandbox.life.demand_running()
        seconds((await json_object(request)).get("timeout_sec"), "timeout_sec")
        return JSONResponse({"data": sandbox.view()})

    def _sandbox(self, request: Request) -> Sandbox:
        return self._sandboxes.find(request.path_params["id"])
