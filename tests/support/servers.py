"""Real servers for an ASGI application, in a thread of the test's process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import hypercorn.asyncio
import hypercorn.config
import hypercorn.trio
import pytest
import uvicorn
from starlette.types import ASGIApp

__all__ = ["SERVERS", "Served", "run_hypercorn", "serve", "serve_on_hypercorn"]

#: For tests with each server as a process of its own. The others wait for `make test-slow`.
SERVERS: Final = [
    "uvicorn",
    pytest.param("hypercorn", marks=pytest.mark.slow),
    pytest.param("granian", marks=pytest.mark.slow),
]

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
def serve_on_hypercorn(app: Any, *, backend: str = "asyncio", graceful: float = _GRACEFUL) -> Iterator[str]:
    """Serves `app` on a free loopback port until the context ends; yields the URL. hypercorn says a leaving once.

    Args:
        app: any ASGI application.
        backend: `asyncio` or `trio`.
        graceful: seconds that hypercorn waits for requests when it stops.

    Raises:
        RuntimeError: the server failed to stop in time.
    """
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]  # connections wait in the backlog until the server is up
    thread = threading.Thread(target=run_hypercorn, args=(app, listener, stop, backend, graceful), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(_TIMEOUT)
        if thread.is_alive():
            raise RuntimeError("the server did not stop")


def run_hypercorn(app: Any, listener: socket.socket, stop: threading.Event, backend: str, graceful: float) -> None:
    """Runs hypercorn in this thread until `stop` is set, on a listener that it closes. See `serve_on_hypercorn`."""
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = graceful
    config.errorlog = None

    async def until_told() -> None:
        while not stop.is_set():  # noqa: ASYNC110 (another thread sets it)
            await anyio.sleep(0.02)

    async def main() -> None:
        on_trio = backend == "trio"
        await (hypercorn.trio.serve if on_trio else hypercorn.asyncio.serve)(app, config, shutdown_trigger=until_told)

    anyio.run(main, backend=backend)


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
