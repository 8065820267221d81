"""The bridge in a FastAPI application, for logged-in users only.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    uvicorn examples.fastapi_app:app

A page connects with `new EventSource("/run-sse")`; the browser sends the cookie with it.
"""

import os

from fastapi import FastAPI, HTTPException
from starlette.requests import Request

from sse_bridge import Miosa, SandboxExec, SSEBridge

app = FastAPI()


async def pipeline(request: Request) -> SandboxExec:
    """What to run for this user. Check the login here: FastAPI's dependencies end at a mounted application."""
    if request.cookies.get("user") is None:
        raise HTTPException(401, "Log in first.")
    command = "for batch in 1 2 3; do echo processing batch $batch; sleep 0.2; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


app.mount("/run-sse", SSEBridge(Miosa(), pipeline))
