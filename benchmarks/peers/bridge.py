"""The bridge at its defaults, except for `VARIANT`, and for `grace=0`: a viewer that leaves ends its run at once.

`VARIANT` is `typed`, `verbatim`, `drop`, `coalesce`, `coalesce-drop`, `h11` (as if the extra `fast` were missing),
or `httpx` (httpx's own transport, which trio gets). The sandbox is the request's `shape`, unless the environment sets
`SANDBOX`; the command may be set by `COMMAND`. With `STORE`, the URL of a Redis, runs are shared.
"""

import os

from starlette.requests import Request

from sse_bridge import Block, Coalesce, Drop, Miosa, RedisStore, SandboxExec, SSEBridge
from sse_bridge.upstream import parsing, transport

VARIANT = os.environ.get("VARIANT", "typed")
POLICIES: dict[str, Block | Drop | Coalesce] = {
    "drop": Drop(),
    "coalesce": Coalesce(),
    "coalesce-drop": Coalesce(beyond="drop"),
}
if VARIANT == "h11":
    vars(parsing)["httptools"] = None
if VARIANT == "httpx":
    vars(transport)["is_usable"] = lambda: False


async def resolve(request: Request) -> SandboxExec:
    sandbox = os.environ.get("SANDBOX", request.query_params["shape"])
    return SandboxExec(sandbox, os.environ.get("COMMAND", "run"))


app = SSEBridge(
    Miosa(os.environ["UPSTREAM"], "msk_bench_key"),
    resolve,
    dialect="verbatim" if VARIANT == "verbatim" else "typed",
    policy=POLICIES.get(VARIANT, Block()),
    grace=10 if "STORE" in os.environ else 0,  # seconds in which viewers move to another worker
    store=RedisStore(os.environ["STORE"]) if "STORE" in os.environ else None,
)
