"""Assembles the routes, the middleware and the sandboxes into one ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from . import background, commands, events, execs, files, lifecycle, logs, resting
from .errors import ApiError, BearerKey, RequestIds, on_api_error, on_http_exception, on_unexpected_error
from .profiles import PROFILES, Profile
from .state import Sandboxes

__all__ = ["API", "create_app"]

#: What the SDK appends to the base URL.
API: Final = "/api/v1"


def create_app(
    *, key: str, root: Path | None = None, heartbeat: float = 15.0, profile: Profile = PROFILES["standard"]
) -> Starlette:
    """A MIOSA-compatible sandbox server over processes of this machine, **without isolation**.

    The lifespan's shutdown kills every command and removes the folders; without lifespan events, garbage collection or
    the exit of Python does. `app.state.sandboxes.close()` does it at any time.

    Args:
        key: what clients have to send as `Authorization: Bearer <key>`.
        root: the folder under which each sandbox gets a folder of its own. `None`: a temporary folder.
        heartbeat: seconds of silence after which a stream of output sends a comment.
        profile: how a sandbox behaves whose request says no `runtime_profile`, or `auto`.

    Raises:
        ValueError: the key is empty, or the folder's path has characters special to a shell (see `Sandboxes`).
    """
    if not key:
        raise ValueError("key must not be empty")
    sandboxes = Sandboxes(root, profile)
    app = Starlette(
        routes=_routes(sandboxes, heartbeat),
        middleware=[Middleware(RequestIds), Middleware(BearerKey, key)],
        exception_handlers={
            ApiError: on_api_error,
            HTTPException: on_http_exception,
            Exception: on_unexpected_error,
        },
        lifespan=_closing(sandboxes),
    )
    app.router.redirect_slashes = False
    app.state.sandboxes = sandboxes
    return app


def _routes(sandboxes: Sandboxes, heartbeat: float) -> list[Route]:
    parts = (
        *lifecycle.routes(sandboxes),
        *resting.routes(sandboxes),
        *execs.routes(sandboxes, heartbeat=heartbeat),
        *background.routes(sandboxes, heartbeat=heartbeat),
        *commands.routes(sandboxes),
        *events.routes(sandboxes, heartbeat=heartbeat),
        *logs.routes(sandboxes, heartbeat=heartbeat),
        *files.routes(sandboxes),
    )
    return [Route(API + part.path, part.endpoint, methods=part.methods) for part in parts]


def _closing(sandboxes: Sandboxes) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await sandboxes.close()

    return lifespan
