"""Ours, at its defaults but for what `VARIANT` names, and a viewer's leaving, which ends its run at once.

`VARIANT` is `typed`, `verbatim`, `drop`, `coalesce`, `h11` (as if the extra `fast` were not installed), or `httpx` (as
where a proxy is set: with httpx's own transport). The sandbox is the one that the request's `shape` names, or `SANDBOX`
where that is set, and so is `COMMAND`.
"""

import os

from starlette.requests import Request

from sse_bridge import Block, Coalesce, Drop, Miosa, SandboxExec, SSEBridge
from sse_bridge.upstream import parsing, transport

VARIANT = os.environ.get("VARIANT", "typed")
POLICIES: dict[str, Block | Drop | Coalesce] = {"drop": Drop(), "coalesce": Coalesce()}
if VARIANT == "h11":
    vars(parsing)["httptools"] = None
if VARIANT == "httpx":
    transport.is_usable = lambda: False


async def resolve(request: Request) -> SandboxExec:
    sandbox = os.environ.get("SANDBOX", request.query_params["shape"])
    return SandboxExec(sandbox, os.environ.get("COMMAND", "run"))


app = SSEBridge(
    Miosa(os.environ["UPSTREAM"], "msk_bench_key"),
    resolve,
    dialect="verbatim" if VARIANT == "verbatim" else "typed",
    policy=POLICIES.get(VARIANT, Block()),
    grace=0,
)
