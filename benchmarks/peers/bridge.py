"""Ours, at its defaults. `VARIANT` is `typed`, `verbatim`, or `httpx` (as if the extra `fast` were not installed)."""

import os

from starlette.requests import Request

from sse_bridge import Miosa, SandboxExec, SSEBridge
from sse_bridge.upstream import client

VARIANT = os.environ.get("VARIANT", "typed")
if VARIANT == "httpx":
    client._fast_transport = lambda ssl_context: None


async def resolve(request: Request) -> SandboxExec:
    return SandboxExec(request.query_params["shape"], "run")


app = SSEBridge(
    Miosa(os.environ["UPSTREAM"], "msk_bench_key"), resolve, dialect="verbatim" if VARIANT == "verbatim" else "typed"
)
