"""Runs the sandbox server until it is told to stop. The only module here that imports uvicorn."""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import uvicorn
from starlette.applications import Starlette

__all__ = ["ClosingServer", "serve"]

#: Seconds that open responses get when the server is told to stop; what they wait for is dead by then.
_SHUTDOWN: Final = 1


class ClosingServer(uvicorn.Server):
    """Kills what runs before it waits for open responses: streams then end by themselves, with an exit frame."""

    def __init__(self, config: uvicorn.Config, close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._close = close

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What uvicorn calls when it was told to stop."""
        try:
            await self._close()
        finally:
            await super().shutdown(sockets)


def serve(app: Starlette, listener: socket.socket) -> None:
    """Serves `app`, as `create_app` made it, on a listening socket; returns when it was told to stop.

    SIGINT, SIGTERM and, unless it is ignored, SIGHUP do that: commands run in sessions of their own, so a terminal
    that closes would leave them behind.
    """
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN,
    )
    server = ClosingServer(config, app.state.sandboxes.close)
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGHUP, before)
