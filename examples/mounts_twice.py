"""A page whose component is mounted twice, as React's StrictMode does, with one command for both mounts.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    uvicorn examples.mounts_twice:app

Such a component opens an `EventSource`, closes it, and opens another within milliseconds. The page chooses a random key
when it loads and sends it in the query; requests with the same key share one run.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import Miosa, SandboxExec, SSEBridge

PAGE = """<!doctype html><title>A component that mounts twice</title><pre></pre><script>
  const output = document.querySelector("pre");
  // 128 random bits. `crypto.randomUUID()` does as well, but only over https and on localhost.
  const key = [...crypto.getRandomValues(new Uint32Array(4))].map((word) => word.toString(36)).join("-");

  function mount() { // what a component does in `useEffect`; it returns the cleaning up
    output.textContent = "";
    const source = new EventSource("/run-sse/?key=" + key);
    source.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.line !== undefined) output.append(message.line, "\\n");
      else if (message.type === "exit") output.append(`[exit ${message.code}]`, "\\n");
      else if (message.type === "error") output.append(`[${message.message}]`, "\\n");
      if (message.type === "exit" || message.type === "error") source.close();
    };
    return () => source.close();
  }

  const unmount = mount();
  setTimeout(() => { unmount(); mount(); }, 30);
</script>"""


async def page(request: Request) -> HTMLResponse:
    """The page with the component."""
    return HTMLResponse(PAGE)


def key(request: Request) -> str | None:
    """Requests with the same key share a run. A key is a secret here: all who know it can follow the run."""
    return request.query_params.get("key")


async def pipeline(request: Request) -> SandboxExec:
    """What to run."""
    command = "for batch in 1 2 3; do echo processing batch $batch; sleep 0.2; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


bridge = SSEBridge(Miosa(), pipeline, key=key, refusals="frame")
app = Starlette(routes=[Route("/", page), Mount("/run-sse", bridge)])
