"""The bridge in a Quart application, which has no mounts: the middleware serves it at one path.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    hypercorn examples.quart_app:app

A page connects with `new EventSource("/run-sse")`.
"""

import os

from quart import Quart
from starlette.requests import Request

from sse_bridge import Miosa, SandboxExec, SSEBridge, SSEBridgeMiddleware

app = Quart(__name__)


@app.get("/")
async def page() -> str:
    """A page that shows what arrives."""
    return """<pre id="output"></pre><script>
      const source = new EventSource("/run-sse");
      source.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        output.append(message.line ?? `[${message.type} ${message.code}]`, "\\n");
        if (message.type === "exit" || message.type === "error") source.close();
      };
    </script>"""


def pipeline(request: Request) -> SandboxExec:
    """What to run. A plain function will do; it runs in a thread."""
    command = "for batch in 1 2 3; do echo processing batch $batch; sleep 0.2; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


app.asgi_app = SSEBridgeMiddleware(app.asgi_app, "/run-sse", SSEBridge(Miosa(), pipeline))  # type: ignore[method-assign, assignment, arg-type]
