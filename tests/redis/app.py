"""One worker of the tests: a bridge with a shared store in a process of its own, on a listener that it inherits.

Each request says in its query which command to run, and by which policy its viewer is served.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import sse_bridge
from sse_bridge import Miosa, SandboxExec, SSEBridge

#: Names that a viewer may give in the query parameter `policy`, to a class and its arguments.
Policies = dict[str, tuple[str, dict[str, Any]]]


def make_app(settings: dict[str, Any]) -> Starlette:
    """The application that a worker serves."""
    policies = {name: getattr(sse_bridge, kind)(**given) for name, (kind, given) in settings["policies"].items()}

    def resolve(request: Request) -> SandboxExec:
        return SandboxExec(settings["sandbox"], request.query_params["command"], cwd="/workspace")

    async def choose(request: Request) -> Any:
        return policies[request.query_params.get("policy", "default")]

    async def identify(request: Request) -> str | None:
        return request.headers.get("user")

    options: dict[str, Any] = {"policy": choose, "identify": identify, **settings["options"]}
    if settings["store"] is not None:
        options["store"] = sse_bridge.RedisStore(**settings["store"])
    bridge = SSEBridge(Miosa(settings["url"], settings["key"]), resolve, **options)
    return Starlette(routes=[Route("/health", lambda request: PlainTextResponse("ok")), Mount("/runs", bridge)])


def from_environment() -> ASGIApp:
    """For `uvicorn --workers`. Each response names the process that made it."""
    app = make_app(json.loads(os.environ["BRIDGE"]))

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_name(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"process", b"%d" % os.getpid())]
            await send(message)

        await app(scope, receive, send_with_name)

    return named


def main(listener: int) -> None:
    logging.basicConfig(level=logging.INFO)
    settings = json.loads(os.environ["BRIDGE"])
    config = uvicorn.Config(make_app(settings), log_level="info", timeout_graceful_shutdown=settings["graceful"])
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
