"""Runs the demo: the local sandbox and the application, two servers in one process."""

from __future__ import annotations

import secrets
import socket
from typing import Final

import anyio
import uvicorn

from ..asgi.messages import ASGIApp
from ..sandbox import create_app as create_sandbox
from ..sandbox.server import ClosingServer
from ..upstream.miosa.client import Miosa
from .app import create_app

__all__ = ["serve"]

#: Seconds that open responses get when the demo is told to stop: more than the bridge takes to end its streams and what
#: runs, and less than a person waits.
_SHUTDOWN: Final = 8


def serve(listener: socket.socket) -> None:
    """Serves the demo on a listening socket; returns, or raises `KeyboardInterrupt`, when it was told to stop."""
    anyio.run(_serve, listener)


async def _serve(listener: socket.socket) -> None:
    key = f"msk_local_{secrets.token_urlsafe(24)}"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sandbox_listener:
        port = sandbox_listener.getsockname()[1]
        app = create_sandbox(key=key)
        sandbox = ClosingServer(_config(app), app.state.sandboxes.close)
        demo = uvicorn.Server(_config(create_app(Miosa(f"http://127.0.0.1:{port}", key))))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sandbox.serve, [sandbox_listener])
            while not sandbox.started:  # noqa: ASYNC110 (uvicorn has no event for it)
                await anyio.sleep(0.01)
            # The demo takes the signals over and stops first. A signal that it caught is raised again when it has
            # stopped, and then reaches the sandbox's server.
            await demo.serve([listener])
            sandbox.should_exit = True


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN,
    )
