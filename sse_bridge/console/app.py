"""The demo's application: `GET /` is the page, `GET /run-sse` is the bridge, mounted as anybody would mount it.

The page chooses a script, a policy and a pace by their names, in the query. It never says what runs.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from ..asgi.app import SSEBridge
from ..asgi.messages import ASGIApp
from ..asgi.middleware import SSEBridgeMiddleware
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Coalesce, Drop, Policy
from ..upstream.miosa.client import Miosa
from ..upstream.miosa.sandbox_exec import SandboxExec

__all__ = ["create_app"]

_HERE: Final = Path(__file__).parent
#: Seconds that a closed tab leaves the script. A browser comes back after two, but not before it is through with what
#: it was given already: under `Block`, with megabytes of lines on a slow machine, that took more than three more.
_GRACE: Final = 15.0
#: Seconds for each of the calls that set the sandbox up.
_TIMEOUT: Final = 30.0
#: What is written into the sandbox.
_SCRIPTS: Final = ("pipeline.py", "lines.py")

# What the page may choose: the name in the query, and what it stands for. The first one is the default.

_COMMANDS: Final = {
    "pipeline": "python3 -u /workspace/pipeline.py",
    "lines": "python3 /workspace/lines.py",  # without `-u`: one system call a line would be what takes the time
}
_POLICIES: Final[Mapping[str, Policy]] = {
    "block": Block(),
    # A quarter of the usual mark: the thousands of lines that wait in it come without a gap when the script is over,
    # and would push the notices out of what the page keeps.
    "drop": Drop(high_water=256 * 1024),
    # 200,000 lines are 29 MB within a second, far more than the usual mark. With this one it shows how it merges, and
    # not how it drops.
    "coalesce": Coalesce(high_water=32 * 1024 * 1024),
}
#: On loopback nobody is ever behind. At this rate the 200,000 lines take more than three minutes, if none is left out.
_RATES: Final[Mapping[str, TokenBucket | None]] = {"full": None, "slow": TokenBucket(1000)}

T = TypeVar("T")


def create_app(miosa: Miosa) -> ASGIApp:
    """The page and the bridge, over one sandbox that lives as long as the application.

    Args:
        miosa: where the sandbox is created. Needs lifespan events: serve it as the server's main application.
    """
    sandbox = _Sandbox(miosa)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await sandbox.create()
        try:
            yield
        finally:
            await sandbox.destroy()

    async def page(request: Request) -> FileResponse:
        return FileResponse(_HERE / "index.html", headers={"Cache-Control": "no-cache"})

    async def pipeline(request: Request) -> SandboxExec:
        return SandboxExec(sandbox.id, _choice(request, "script", _COMMANDS), cwd="/workspace", timeout=600)

    async def policy(request: Request) -> Policy:
        return _choice(request, "policy", _POLICIES)

    async def rate(request: Request) -> TokenBucket | None:
        return _choice(request, "rate", _RATES)

    app = Starlette(routes=[Route("/", page)], lifespan=lifespan)
    return SSEBridgeMiddleware(app, "/run-sse", SSEBridge(miosa, pipeline, policy=policy, rate=rate, grace=_GRACE))


def _choice(request: Request, name: str, choices: Mapping[str, T]) -> T:
    """What the query parameter `name` stands for; the first of the choices if it is not there."""
    chosen = request.query_params.get(name, next(iter(choices)))
    if chosen not in choices:
        raise HTTPException(400, f"{name} is one of {', '.join(choices)}.")
    return choices[chosen]


class _Sandbox:
    """A sandbox with the scripts in it."""

    def __init__(self, miosa: Miosa) -> None:
        self._miosa = miosa
        self.id = ""

    async def create(self) -> None:
        body = await self._call("POST", "/sandboxes", {"name": "sse-bridge-demo"})
        self.id = body["data"]["id"]
        for script in _SCRIPTS:
            content = b64encode((_HERE / script).read_bytes()).decode()
            file = {"path": f"/workspace/{script}", "content_base64": content}
            await self._call("POST", f"/sandboxes/{self.id}/fs/write", file)

    async def destroy(self) -> None:
        await self._call("DELETE", f"/sandboxes/{self.id}", None, gone=404)

    async def _call(self, method: str, path: str, body: Any, gone: int | None = None) -> Any:
        miosa = self._miosa
        headers = miosa.headers("application/json")
        status, answer = await miosa.call(method, miosa.address(path), headers=headers, json=body, timeout=_TIMEOUT)
        if not (200 <= status < 300 or status == gone):
            raise RuntimeError(f"the sandbox server answered {status} to {method} {path}")
        return json.loads(answer or b"null")
