"""The bridge in a Quart application. Quart has no mounts, so the middleware serves the bridge at one path.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    hypercorn examples.quart_app:app

A page connects with `new EventSource("/run-sse")`. To keep `app` a Quart object, for `quart run`, assign the
middleware to `site.asgi_app` instead; mypy then needs a `type: ignore[method-assign]`, as for any method.
"""

import os

from quart import Quart
from starlette.requests import Request

from sse_bridge import Miosa, SandboxExec, SSEBridge, SSEBridgeMiddleware

site = Quart(__name__)


@site.get("/")
async def page() -> str:
    """A page that shows each line as it arrives."""
    return """<pre id="output"></pre><script>
      const source = new EventSource("/run-sse");
      source.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        const isOver = message.type === "exit" || message.type === "error";
        if (message.line !== undefined) output.append(message.line, "\\n");
        if (isOver) output.append(`[${message.type} ${message.code}]`, "\\n");
        if (isOver) source.close();
      };
    </script>"""


def pipeline(request: Request) -> SandboxExec:
    """What to run. A plain function may block: it runs in a thread."""
    command = "for batch in 1 2 3; do echo processing batch $batch; sleep 0.2; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


app = SSEBridgeMiddleware(site, "/run-sse", SSEBridge(Miosa(), pipeline))
