"""A run that an endpoint of FastAPI's starts, with dependencies and a model of its own, and that a page follows.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    uvicorn examples.fastapi_start:app

The page sends `POST /builds`, gets the run's name, and follows it with `new EventSource("/run-sse/" + run)`.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field
from starlette.requests import Request

from sse_bridge import BridgeUnavailable, Miosa, SandboxExec, SSEBridge, UpstreamError

app = FastAPI()

PAGE = """<!doctype html><title>Builds</title><button>Build</button><pre></pre><script>
  const output = document.querySelector("pre");
  document.querySelector("button").onclick = async () => {
    const answer = await fetch("/builds", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ batches: 3 }),
    });
    const body = await answer.json();
    if (answer.ok) follow(body.run);
    else output.append(`[${JSON.stringify(body.detail)}]`, "\\n");
  };
  function follow(run) {
    const source = new EventSource("/run-sse/" + run);
    source.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.line !== undefined) output.append(message.line, "\\n");
      else if (message.type === "exit") output.append(`[exit ${message.code}]`, "\\n");
      else if (message.type === "error") output.append(`[${message.message}]`, "\\n");
      if (message.type === "exit" || message.type === "error") source.close();
    };
  }
</script>"""


class Build(BaseModel):
    """What a page may ask for. The command itself stays here."""

    batches: int = Field(ge=1, le=10)


class Started(BaseModel):
    """Where to follow a build."""

    run: str


@app.get("/")
async def page() -> HTMLResponse:
    """A page with a button."""
    return HTMLResponse(PAGE)


def identify(request: Request) -> str | None:
    """The name of the user; `None` before a login. A cookie that anyone can write stands in for your login here."""
    return request.cookies.get("user")


def logged_in(request: Request) -> str:
    """A dependency: the user, or 401."""
    user = identify(request)
    if user is None:
        raise HTTPException(401, "Log in first.")
    return user


async def only_follow(request: Request) -> SandboxExec:
    """The bridge asks this what to run when a request to `/run-sse/` would start a run. Here, all are refused."""
    raise HTTPException(404, "Builds start at POST /builds.")


bridge = SSEBridge(Miosa(), only_follow, identify=identify, refusals="frame")


@app.post("/builds", status_code=201)
async def build(wanted: Build, user: Annotated[str, Depends(logged_in)], response: Response) -> Started:
    """Starts a build; only its owner can follow it. Its first viewer has ten seconds to come."""
    command = f"for batch in $(seq {wanted.batches}); do echo processing batch $batch; sleep 0.2; done"
    source = SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)
    try:
        run = await bridge.start(source, owner=user)
    except UpstreamError as refused:
        raise HTTPException(refused.status, refused.message) from refused
    except BridgeUnavailable as busy:
        raise HTTPException(503, str(busy), {"Retry-After": f"{busy.retry_after:.0f}"}) from busy
    response.headers["Location"] = f"/run-sse/{run.token}"
    return Started(run=run.token)


app.mount("/run-sse", bridge)
