"""The demo's application: `/` is the page, `/run-sse` is the bridge, and `/sse-bridge` serves the modules.

The page chooses a script, a policy and a rate by name, in the query. The commands themselves stay on the server.
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
from starlette.routing import Mount, Route

from ..asgi.app import SSEBridge
from ..asgi.middleware import SSEBridgeMiddleware
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Coalesce, Drop, Policy
from ..upstream.miosa.client import Miosa
from ..upstream.miosa.sandbox_exec import SandboxExec
from .files import static_files
from .pages import DEMO, page_of

__all__ = ["create_app"]

_HERE: Final = Path(__file__).parent
#: Seconds for which a script runs on after its last tab has gone. A browser reconnects after two, but handles the
#: events it has received first: under `Block`, megabytes of lines on a slow machine took it more than three more.
_GRACE: Final = 15.0
#: Scripts that run at once, all on the machine that serves the demo.
_MAX_RUNS: Final = 8
#: Seconds for each call that sets the sandbox up.
_SETUP_TIMEOUT: Final = 30.0
#: Files of this folder that are copied into the sandbox.
_SCRIPTS: Final = ("pipeline.py", "lines.py")

# The page's choices: the name in the query, and its meaning. The first is the default.

_COMMANDS: Final = {
    "pipeline": "python3 -u /workspace/pipeline.py",
    "lines": "python3 /workspace/lines.py",  # buffered: with `-u`, system calls take most of the time
}
_POLICIES: Final[Mapping[str, Policy]] = {
    "block": Block(),
    # A quarter of the default mark. The lines that wait below the mark when the script ends arrive without a gap; a
    # full mark holds thousands of them, which would push the notices out of what the page keeps.
    "drop": Drop(high_water=256 * 1024),
    # The defaults will do: where the page falls behind, the run waits, and the limit on events is lifted meanwhile.
    "coalesce": Coalesce(),
}
#: On loopback every viewer keeps up. At 1,000 events a second, 200,000 lines take over three minutes under `Block`.
_RATES: Final[Mapping[str, TokenBucket | None]] = {"full": None, "slow": TokenBucket(1000)}

T = TypeVar("T")


def create_app(miosa: Miosa) -> SSEBridgeMiddleware:
    """The page and the bridge. Startup creates one sandbox, shutdown destroys it.

    Serve it as the server's main application: it needs lifespan events.

    Args:
        miosa: the server on which the sandbox is created.
    """
    sandbox = _Sandbox(miosa)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await sandbox.create()
        try:
            yield
        finally:
            await sandbox.destroy()

    async def pipeline(request: Request) -> SandboxExec:
        return SandboxExec(sandbox.id, _choice(request, "script", _COMMANDS), cwd="/workspace", timeout=600)

    async def policy(request: Request) -> Policy:
        return _choice(request, "policy", _POLICIES)

    async def rate(request: Request) -> TokenBucket | None:
        return _choice(request, "rate", _RATES)

    bridge = SSEBridge(miosa, pipeline, policy=policy, rate=rate, grace=_GRACE, max_runs=_MAX_RUNS, refusals="frame")
    routes = [Route("/", page_of(DEMO)), Mount("/sse-bridge", static_files())]
    app = Starlette(routes=routes, lifespan=lifespan)
    return SSEBridgeMiddleware(app, "/run-sse", bridge)


def _choice(request: Request, name: str, choices: Mapping[str, T]) -> T:
    """The choice that the query parameter `name` names; the first choice if the parameter is missing."""
    chosen = request.query_params.get(name, next(iter(choices)))
    if chosen not in choices:
        raise HTTPException(400, f"{name} must be one of: {', '.join(choices)}.")
    return choices[chosen]


class _Sandbox:
    """A sandbox that holds the scripts."""

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
        address = miosa.address(path)
        status, answer = await miosa.call(method, address, headers=headers, json=body, timeout=_SETUP_TIMEOUT)
        if not (200 <= status < 300 or status == gone):
            raise RuntimeError(f"the sandbox server answered {status} to {method} {path}")
        return json.loads(answer or b"null")
