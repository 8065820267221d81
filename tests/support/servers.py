"""Real servers for an ASGI application, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import hypercorn.asyncio
import hypercorn.config
import uvicorn
from starlette.types import ASGIApp

__all__ = ["Served", "serve", "serve_on_hypercorn"]

#: Seconds in which a server has to start, or stop. Either takes tenths of a second.
_TIMEOUT: Final = 10.0

#: Seconds; `asyncio.wait_for` accepts a fraction. Requests that are still open when a test ends get cancelled.
_GRACEFUL: Final = 0.2

_OPTIONS: Final = {
    "log_config": None,  # keeps uvicorn's loggers as they are, so that `caplog` sees their records
    "access_log": False,
    "ws": "none",
    "timeout_graceful_shutdown": _GRACEFUL,
}


@dataclass(frozen=True)
class Served:
    """A running server."""

    #: `http://127.0.0.1:<port>`
    url: str
    port: int
    server: uvicorn.Server


@contextmanager
def serve(app: ASGIApp, **uvicorn_options: Any) -> Iterator[Served]:
    """Serves `app` on a free loopback port until the context ends.

    Args:
        app: any ASGI application.
        uvicorn_options: keywords of `uvicorn.Config`.

    Raises:
        RuntimeError: the server failed to start or to stop in time.
    """
    server = uvicorn.Server(uvicorn.Config(app, **{**_OPTIONS, **uvicorn_options}))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=_run, args=(server, listener), name=f"uvicorn-{port}", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield Served(f"http://127.0.0.1:{port}", port, server)
        finally:
            _stop(server, thread)


@contextmanager
def serve_on_hypercorn(app: ASGIApp) -> Iterator[str]:
    """Serves `app` on a free loopback port until the context ends; yields the URL. hypercorn says a leaving once."""
    config = hypercorn.config.Config()
    config.graceful_timeout = _GRACEFUL
    config.errorlog = None
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        over = asyncio.Event()
        loops.append((asyncio.get_running_loop(), over))
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=over.wait)  # type: ignore[arg-type]

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes it
        thread = threading.Thread(target=asyncio.run, args=(run(),), name="hypercorn", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"  # connections wait in the backlog until it is up
        finally:
            loop, over = loops[0]
            loop.call_soon_threadsafe(over.set)
            thread.join(_TIMEOUT)
            if thread.is_alive():
                raise RuntimeError("the server did not stop")


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    # uvicorn raises `SystemExit` when the application's startup fails; `_wait_until_started` reports that.
    with suppress(SystemExit):
        server.run(sockets=[listener])


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.002)


def _stop(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join(_TIMEOUT)
    if thread.is_alive():
        server.force_exit = True
        thread.join(_TIMEOUT)
        raise RuntimeError("the server did not stop")
