"""The routes of a sandbox's life: create, get, list, wait until it is ready, destroy."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .errors import invalid
from .life import Life
from .requests import json_object
from .state import Sandbox, Sandboxes

__all__ = ["routes"]

#: Seconds between comments in a silent readiness stream.
_KEEPALIVE: Final = 15.0
#: Comments before the stream gives up: MIOSA watches for 30 s, whatever the client asks for.
_KEEPALIVES: Final = 2
#: Seconds that a creation with `?wait=` waits at most: the SDK's own timeout for any answer.
_MAX_WAIT: Final = 60.0


def routes(sandboxes: Sandboxes) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    life = _Lifecycle(sandboxes)
    return [
        Route("/sandboxes", life.create, methods=["POST"]),
        Route("/sandboxes", life.list, methods=["GET"]),
        Route("/sandboxes/by-name/{name:path}", life.get_by_name, methods=["GET"]),
        Route("/sandboxes/{id}", life.get, methods=["GET"]),
        Route("/sandboxes/{id}", life.destroy, methods=["DELETE"]),
        Route("/sandboxes/{id}/readiness", life.readiness, methods=["GET"]),
        Route("/sandboxes/{id}/readiness/stream", life.readiness_stream, methods=["GET"]),
    ]


class _Lifecycle:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def create(self, request: Request) -> Response:
        """Answers `provisioning`, as the platform does, so that clients have to wait or to ask again."""
        wait = _wait(request.query_params.get("wait"))
        body = await json_object(request)
        key = request.headers.get("idempotency-key")
        answer = self._sandboxes.replays.find(key, body) if key else None
        if answer is None:
            sandbox = self._sandboxes.create(body)
            answer = sandbox.view("provisioning")
            if key:
                self._sandboxes.replays.keep(key, body, answer)
            if wait and await sandbox.life.wait_until_ready(wait):
                answer.update(sandbox.view())
        return JSONResponse({"data": answer}, status_code=201)

    async def list(self, request: Request) -> Response:
        """All sandboxes on one page, without the destroyed ones unless `state` asks for them."""
        views = [sandbox.view() for sandbox in self._sandboxes.all(request.query_params.get("state"))]
        return JSONResponse({"data": views, "page": {"page": 1, "page_size": len(views), "total": len(views)}})

    async def get(self, request: Request) -> Response:
        """One sandbox. A destroyed one is still known, with its state."""
        return JSONResponse({"data": self._sandboxes.find(request.path_params["id"]).view()})

    async def get_by_name(self, request: Request) -> Response:
        """One sandbox. The SDK's `get_or_create` asks for it, resumes it if it is paused, and creates one on a 404."""
        return JSONResponse({"data": self._sandboxes.named(request.path_params["name"]).view()})

    async def destroy(self, request: Request) -> Response:
        """Answers once the sandbox's processes have ended and its folder is gone. May be repeated."""
        sandbox = self._sandboxes.find(request.path_params["id"])
        sandbox.turn.demand_free()
        await self._sandboxes.destroy(sandbox)
        if sandbox.profile.shows_destroyed:
            return JSONResponse({**sandbox.view(), "operation_id": None, "total_runtime_sec": None})
        return Response(status_code=204)

    async def readiness(self, request: Request) -> Response:
        """Whether the sandbox takes commands now."""
        return JSONResponse(self._sandbox(request).life.readiness())

    async def readiness_stream(self, request: Request) -> Response:
        """Sends `ready` as soon as the sandbox takes commands."""
        frames = _readiness_frames(self._sandbox(request).life)
        return StreamingResponse(frames, headers={"content-type": "text/event-stream", "cache-control": "no-cache"})

    def _sandbox(self, request: Request) -> Sandbox:
        return self._sandboxes.watched(request.path_params["id"])


async def _readiness_frames(life: Life) -> AsyncIterator[bytes]:
    for _ in range(_KEEPALIVES):
        yield b": keepalive\n\n"
        if await life.wait_until_ready(_KEEPALIVE):
            yield b"event: ready\ndata: {}\n\n"
            return
        if life.is_closing:
            return
    yield b'event: timeout\ndata: {"reason":"not_ready_after_30s"}\n\n'


def _wait(value: str | None) -> float:
    """Seconds to wait for readiness. The SDK sends a number of seconds, or a boolean."""
    if value in (None, "", "false"):
        return 0.0
    if value == "true":
        return _MAX_WAIT
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise invalid("wait must be a number of seconds, true or false", field="wait")
    return min(seconds, _MAX_WAIT)
