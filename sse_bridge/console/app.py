"""The demo's application: `GET /` is the page, `GET /run-sse` is the bridge, mounted as anybody would mount it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from ..asgi.app import SSEBridge
from ..asgi.messages import ASGIApp
from ..asgi.middleware import SSEBridgeMiddleware
from ..upstream.miosa.client import Miosa
from ..upstream.miosa.execs import SandboxExec

__all__ = ["create_app"]

_HERE: Final = Path(__file__).parent
#: Seconds that a closed tab leaves the script: enough for a browser to come back, which takes it two.
_GRACE: Final = 5.0
#: Seconds for each of the calls that set the sandbox up.
_TIMEOUT: Final = 30.0


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
        return SandboxExec(sandbox.id, "python3 -u /workspace/pipeline.py", cwd="/workspace", timeout=600)

    app = Starlette(routes=[Route("/", page)], lifespan=lifespan)
    return SSEBridgeMiddleware(app, "/run-sse", SSEBridge(miosa, pipeline, grace=_GRACE))


class _Sandbox:
    """A sandbox with the script in it."""

    def __init__(self, miosa: Miosa) -> None:
        self._miosa = miosa
        self.id = ""

    async def create(self) -> None:
        body = await self._call("POST", "/sandboxes", {"name": "sse-bridge-demo"})
        self.id = body["data"]["id"]
        content = b64encode((_HERE / "pipeline.py").read_bytes()).decode()
        file = {"path": "/workspace/pipeline.py", "content_base64": content}
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
