"""Workers that share their runs through Redis, behind one nginx: any of them serves any page.

    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    redis-server examples/many_workers/redis.conf
    for port in 8001 8002 8003; do uvicorn examples.many_workers.app:app --port $port & done; wait
    nginx -e stderr -p /tmp -c "$PWD/examples/many_workers/nginx.conf"

The last three run until they are stopped, so each needs a terminal of its own. The page is at http://localhost:8080/.
One uvicorn with `--workers 4` and without nginx serves the same page.

The page starts its run with a `POST` and a key, which it may repeat until a worker has answered: one command runs. Then
it puts the run's name into its address. Loaded again, or opened by somebody else, that address shows the same run.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import Miosa, RedisStore, SandboxExec, SSEBridge

PAGE = """<!doctype html><title>One run, many workers</title><pre></pre><script>
  const output = document.querySelector("pre");
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  async function start() {
    // 128 random bits. A key is a secret: with it, anyone can follow the run.
    const key = [...crypto.getRandomValues(new Uint32Array(4))].map((word) => word.toString(36)).join("-");
    for (;;) {
      let wait = 1;
      try {
        const headers = { Accept: "application/json", "Idempotency-Key": key };
        const answer = await fetch("/run-sse/", { method: "POST", headers });
        if (answer.ok) return (await answer.json()).run;
        if (answer.status < 500) throw new Error(`HTTP ${answer.status}`);
        wait = Number(answer.headers.get("Retry-After")) || wait;
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // which `fetch` raises when the connection breaks
      }
      await pause(wait); // a worker was stopped, or Redis is away
    }
  }

  function follow(run, place = "") {
    const source = new EventSource(`/run-sse/${run}?lastEventId=${encodeURIComponent(place)}`);
    source.onmessage = ({ data, lastEventId }) => {
      const message = JSON.parse(data);
      place = lastEventId || place;
      if (message.line !== undefined) output.append(message.line, "\\n");
      else if (message.type === "gap") output.append(`[${message.dropped} lines are missing]`, "\\n");
      else if (message.type === "exit") output.append(`[exit ${message.code}]`, "\\n");
      else if (message.type === "error") output.append(`[${message.message}]`, "\\n");
      if (message.type === "exit" || message.type === "error") source.close();
    };
    source.onerror = async () => { // a browser comes back by itself, unless nginx has answered 502
      if (source.readyState !== EventSource.CLOSED) return;
      await pause(1);
      follow(run, place);
    };
  }

  (async () => {
    if (!location.hash) location.hash = await start();
    follow(location.hash.slice(1));
  })().catch((error) => output.append(`[${error.message}]`, "\\n"));
</script>"""


async def page(request: Request) -> HTMLResponse:
    """A page that starts a run, or shows the one in its address."""
    return HTMLResponse(PAGE)


async def pipeline(request: Request) -> SandboxExec:
    """What to run."""
    command = "for batch in $(seq 40); do echo processing batch $batch; sleep 0.5; done"
    return SandboxExec(os.environ["SANDBOX_ID"], command, cwd="/workspace", timeout=600)


store = RedisStore(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
# A worker that is told to stop sends its viewers to the others, and goes on with its runs for a minute.
bridge = SSEBridge(Miosa(), pipeline, store=store, drain=60, refusals="frame")
app = Starlette(routes=[Route("/", page), Mount("/run-sse", bridge)])
