"""The bridge in a Starlette application.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    uvicorn examples.starlette_app:app

A page connects with `new EventSource("/run-sse/")`.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from sse_bridge import Miosa, SandboxExec, SSEBridge


async def pipeline(request: Request) -> SandboxExec:
    """What to run. Decide it here, by `request.user`, a path or a database; a browser must not send commands."""
    command = "for batch in 1 2 3; do echo processing batch $batch; sleep 0.2; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


app = Starlette(routes=[Mount("/run-sse", SSEBridge(Miosa(), pipeline))])
