"""The bridge in a FastAPI application, for logged-in users only. Each user follows and ends only runs of their own.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    uvicorn examples.fastapi_app:app

The page connects with `new EventSource("/run-sse/")`, and the browser sends the cookie with it. An `EventSource` cannot
see HTTP statuses, so with `refusals="frame"` the page gets refusals as messages.
"""

import os

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from sse_bridge import Miosa, SandboxExec, SSEBridge

app = FastAPI()

PAGE = """<!doctype html><title>Pipeline</title><button disabled>Stop</button><pre></pre><script>
  const output = document.querySelector("pre"), stop = document.querySelector("button");
  const source = new EventSource("/run-sse/");
  source.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "start") {
      stop.onclick = () => fetch("/run-sse/" + message.run, { method: "DELETE" });
      stop.disabled = false;
    } else if (message.line !== undefined) output.append(message.line, "\\n");
    else if (message.type === "exit") output.append(`[exit ${message.code}]`, "\\n");
    else if (message.type === "error") output.append(`[${message.message}]`, "\\n");
    if (message.type === "exit" || message.type === "error") source.close();
  };
</script>"""


@app.get("/")
async def page() -> HTMLResponse:
    """A page that shows each line, how the run ended, or why it was refused."""
    return HTMLResponse(PAGE)


def user(request: Request) -> str | None:
    """The name of the user; `None` before a login. A cookie that anyone can write stands in for your login here."""
    return request.cookies.get("user")


async def pipeline(request: Request) -> SandboxExec:
    """What to run for this user. Check the login here: FastAPI's dependencies end at a mounted application."""
    if user(request) is None:
        raise HTTPException(401, "Log in first.")
    command = "for batch in 1 2 3; do echo processing batch $batch; sleep 0.2; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


app.mount("/run-sse", SSEBridge(Miosa(), pipeline, identify=user, refusals="frame"))
