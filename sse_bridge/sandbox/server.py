"""Runs the sandbox server until it is told to stop.

The only module that configures uvicorn: the demo uses it for both of its servers.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette

__all__ = ["ClosingServer", "hangup_stops", "sandbox_server", "serve", "server_config"]

#: Seconds that open responses get when the server is told to stop. Their commands are dead by then.
_SHUTDOWN_TIMEOUT: Final = 1


class ClosingServer(uvicorn.Server):
    """Calls `close` before it waits for open responses, so that these can end.

    Args:
        config: of the server.
        close: ends the work behind open responses. The sandbox's kills every command, and each stream then ends with
            an exit frame.
    """

    def __init__(self, config: uvicorn.Config, close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._close = close

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What uvicorn calls when it was told to stop."""
        try:
            await self._close()
        finally:
            await super().shutdown(sockets)


def server_config(app: Callable[..., Any], shutdown_timeout: int) -> uvicorn.Config:
    """A quiet server, which only logs warnings.

    Args:
        app: an ASGI application with lifespan events.
        shutdown_timeout: seconds that open responses get when the server is told to stop.
    """
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=shutdown_timeout,
    )


def sandbox_server(app: Starlette, shutdown_timeout: int = _SHUTDOWN_TIMEOUT) -> ClosingServer:
    """A server for `app`, as `create_app` made it."""
    return ClosingServer(server_config(app, shutdown_timeout), app.state.sandboxes.close)


def serve(app: Starlette, listener: socket.socket) -> None:
    """Serves `app`, as `create_app` made it, on a listening socket, until a signal stops it.

    SIGINT, SIGTERM and, unless it is ignored, SIGHUP do that.
    """
    with hangup_stops():
        sandbox_server(app).run(sockets=[listener])


@contextmanager
def hangup_stops() -> Iterator[None]:
    """Makes SIGHUP a SIGTERM, unless it is ignored, as by `nohup`.

    uvicorn has no handler for it, so closing the terminal would leave commands behind: they run in sandboxes, or in
    sessions of their own.
    """
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or signal.getsignal(hangup) is not signal.SIG_DFL:
        yield
        return
    signal.signal(hangup, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(hangup, signal.SIG_DFL)
