"""A bridge in its own process, for tests that observe its memory, sockets and end from outside.

Run as a program, this module serves one bridge on the listening socket that it inherits; see `bridge_process`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.programs import end
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class BridgeProcess:
    url: str
    port: int
    process: psutil.Process
    log: Path

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(self.process.memory_info().rss)


@contextmanager
def bridge_process(
    tmp_path: Path, *, server: str = "uvicorn", send_buffer: int | None = None, **settings: Any
) -> Iterator[BridgeProcess]:
    """Serves `SSEBridge(**settings["options"])` at `/run-sse` until the context ends.

    Args:
        server: `uvicorn`, `hypercorn` or `granian`.
        send_buffer: bytes that the kernel holds for each connection; `None` leaves it to the kernel. Not for granian.
        settings: `url` and `key` of the platform, `sandbox` and `command` to run; or `follow`, the URL of a stream.
            `policies` maps the names that a viewer may give in the query parameter `policy` to a class's name and its
            arguments; the first is the default.
    """
    log = tmp_path / f"{server}.log"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        if send_buffer is not None:  # connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "tests.support.bridge_process", server, str(listener.fileno()), str(port)]
        if server == "granian":  # binds the port itself
            listener.close()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "BRIDGE": json.dumps(settings), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[] if server == "granian" else [listener.fileno()],
            )
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: process.poll() is not None or _answers(url), 20)
            assert process.poll() is None, log.read_text()
            yield BridgeProcess(url, port, psutil.Process(process.pid), log)
        finally:
            end(process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health").status_code == 200
    except httpx.TransportError:
        return False


def make_app() -> Any:
    """The application that the program serves; granian calls it by name."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    import sse_bridge
    from sse_bridge import EventStream, Miosa, SandboxExec, SSEBridge, SSEBridgeMiddleware

    settings = json.loads(os.environ["BRIDGE"])
    options = settings.get("options", {})
    if "policies" in settings:
        policies = {name: getattr(sse_bridge, kind)(**given) for name, (kind, given) in settings["policies"].items()}
        default = next(iter(policies))

        async def choose(request: Any) -> Any:
            return policies[request.query_params.get("policy", default)]

        options["policy"] = choose
    if "follow" in settings:
        bridge = SSEBridge(None, lambda request: EventStream(settings["follow"]), **options)
    else:
        work = SandboxExec(settings["sandbox"], settings["command"], cwd="/workspace")
        bridge = SSEBridge(Miosa(settings["url"], settings["key"]), lambda request: work, **options)
    app = Starlette(routes=[Route("/health", lambda request: PlainTextResponse("ok"))])
    return SSEBridgeMiddleware(app, "/run-sse", bridge)


def main(server: str, fd: int, port: int) -> None:
    if server == "uvicorn":
        import uvicorn

        config = uvicorn.Config(make_app(), log_level="info", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])
    elif server == "hypercorn":
        import asyncio

        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        hypercorn = Config()
        hypercorn.bind = [f"fd://{fd}"]
        hypercorn.graceful_timeout = 1
        asyncio.run(serve(make_app(), hypercorn))
    else:
        from granian import Granian
        from granian.constants import Interfaces

        Granian(
            "tests.support.bridge_process:make_app",
            address="127.0.0.1",
            port=port,
            interface=Interfaces.ASGI,
            factory=True,
            workers_kill_timeout=2,
        ).serve()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
