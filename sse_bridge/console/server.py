"""Runs the demo: the local sandbox and the application, two servers in one process."""

from __future__ import annotations

import secrets
import socket
from typing import Final

import anyio
import uvicorn

from ..sandbox import create_app as create_sandbox
from ..sandbox.server import hangup_stops, sandbox_server, server_config
from ..upstream.miosa.client import Miosa
from .app import create_app

__all__ = ["serve"]

#: Seconds that open responses get when the demo is told to stop: more than the bridge takes to end its streams and
#: their commands, and less than a person waits.
_SHUTDOWN_TIMEOUT: Final = 8


def serve(listener: socket.socket) -> None:
    """Serves the demo on a listening socket, until a signal stops it. Raises `KeyboardInterrupt` after Ctrl-C."""
    with hangup_stops():
        anyio.run(_serve, listener)


async def _serve(listener: socket.socket) -> None:
    key = f"msk_local_{secrets.token_urlsafe(24)}"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sandbox_listener:
        port = sandbox_listener.getsockname()[1]
        sandbox = sandbox_server(create_sandbox(key=key), _SHUTDOWN_TIMEOUT)
        app = create_app(Miosa(f"http://127.0.0.1:{port}", key))
        demo = uvicorn.Server(server_config(app, _SHUTDOWN_TIMEOUT))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sandbox.serve, [sandbox_listener])
            while not sandbox.started:  # noqa: ASYNC110 (uvicorn has no event for it)
                await anyio.sleep(0.01)
            # The demo's handlers replace the sandbox's, so a signal stops the demo first. uvicorn raises the signal
            # again once the demo has stopped, and it then reaches the sandbox's server.
            await demo.serve([listener])
            sandbox.should_exit = True
