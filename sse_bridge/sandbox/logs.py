"""`logs`: what a sandbox's processes and detached commands have printed, as lines, or as an event stream.

On the platform these are stdout and stderr of the template's own processes. A sandbox of this server has no template,
so what clients start to run by itself stands in for these. The output of a command that a client waits for goes to that
client alone.

MIOSA documents the routes and `lines`. The form of the answer, the frames and how much is kept are our choices.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .following import follow
from .outlet import Outlet
from .requests import tail_of
from .state import Sandboxes

__all__ = ["LogStream", "routes"]


def routes(sandboxes: Sandboxes, *, heartbeat: float) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    return [
        Route("/sandboxes/{id}/logs", _Logs(sandboxes).get, methods=["GET"]),
        Route("/sandboxes/{id}/logs/stream", LogStream(sandboxes, heartbeat), methods=["GET"]),
    ]


class _Logs:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def get(self, request: Request) -> Response:
        """The last lines, 200 unless `lines` says how many."""
        count = tail_of(request.query_params, "lines")
        text = self._sandboxes.watched(request.path_params["id"]).log.text(count)
        return JSONResponse({"data": {"lines": text.removesuffix("\n").split("\n") if text else []}})


class LogStream:
    """`GET /sandboxes/{id}/logs/stream`: the kept log, then the live one, until the client leaves.

    The frames are those of `exec/stream`, without an exit. The stream ends with its sandbox.
    """

    def __init__(self, sandboxes: Sandboxes, heartbeat: float) -> None:
        self._sandboxes = sandboxes
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        log = self._sandboxes.watched(Request(scope, receive).path_params["id"]).log
        await follow(log, Outlet(send, self._heartbeat), receive, ending=bytes)
