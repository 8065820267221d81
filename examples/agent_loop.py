"""An agent that writes a program, runs it in a sandbox, reads the errors and corrects itself, live on a page.

    pip install miosa uvicorn
    export MIOSA_API_KEY=... SANDBOX_ID=...          # or MIOSA_BASE_URL for a local sandbox
    export MODEL_URL=https://.../v1 MODEL_KEY=... MODEL_NAME=...      # left out, a stub plays the model
    uvicorn examples.agent_loop:app

The loop is an async generator, and `Lines` carries what it yields. Each attempt is a process of the sandbox, because
the platform stops a process when it is asked to: when the last viewer leaves, the attempt under way is stopped.
"""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import httpx
import miosa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import Exit, Lines, SSEBridge

TASK = "Write a Python program that prints the sum of the numbers 1 to 10."
ATTEMPTS = 5

Message = dict[str, str]
#: Takes the conversation so far, and returns the program.
Model = Callable[[list[Message]], Awaitable[str]]

PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>An agent at work</title>
<style>
  :root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
  body { max-width: 50rem; margin: 1.5rem auto; padding: 0 1rem }
  section { border-left: .25rem solid #888; padding: 0 1rem; margin: 1rem 0 }
  section.failed { border-color: #c22 } section.passed { border-color: #292 }
  pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0 }
  .code { border: 1px solid #888; border-radius: .25rem; padding: .5rem }
</style>
<h1>An agent at work</h1><main></main><p role="status">Working…</p><script>
  const status = document.querySelector("[role=status]");
  const source = new EventSource("/run-sse/");
  let attempt, box;
  source.onmessage = ({ data }) => {
    const { type, line, code, message } = JSON.parse(data);
    if (line !== undefined) show(type, line);
    else if (type === "exit") status.textContent = code === 0 ? "Done." : "The agent gave up.";
    else if (type === "error") status.textContent = message;
    if (type === "exit" || type === "error") source.close();
  };
  function show(stream, line) { // the agent's own words are on stderr, apart from what its programs print
    const [, kind, text] = stream === "stderr" ? /^(\\w+) (.*)$/.exec(line) : [null, "printed", line];
    if (kind === "attempt") {
      attempt = document.createElement("section");
      attempt.append(Object.assign(document.createElement("h2"), { textContent: `Attempt ${text}` }));
      document.querySelector("main").append(attempt);
      box = null;
    } else if (kind === "result") attempt.className = text === "0" ? "passed" : "failed";
    else {
      if (box?.className !== kind) {
        box = Object.assign(document.createElement("pre"), { className: kind });
        attempt.append(box);
      }
      box.append(text, "\\n");
    }
  }
</script>"""


async def stub(messages: list[Message]) -> str:
    """Plays the model: makes two mistakes, and mends each when it has read the error."""
    said = messages[-1]["content"]
    if "SyntaxError" in said:
        return "print('adding up')\ntotal = sum(range(1, 11))\nprint(totall)"
    if "NameError" in said:
        return "print('adding up')\ntotal = sum(range(1, 11))\nprint(total)"
    return "print('adding up')\ntotal = sum(range(1, 11)\nprint(total)"


def model_at(url: str, key: str, name: str) -> Model:
    """A real model, behind any API of OpenAI's form."""

    async def ask(messages: list[Message]) -> str:
        async with httpx.AsyncClient(timeout=120) as client:
            answer = await client.post(
                f"{url}/chat/completions",
                headers={"Authorization": f"Bearer {key}"},
                json={"model": name, "messages": messages},
            )
        text: str = answer.raise_for_status().json()["choices"][0]["message"]["content"]
        block = re.search(r"```(?:python)?\n(.*?)```", text, re.DOTALL)
        return block[1] if block else text

    return ask


def chosen_model() -> Model:
    """The model of the environment, or the stub."""
    if "MODEL_URL" not in os.environ:
        return stub
    return model_at(os.environ["MODEL_URL"], os.environ["MODEL_KEY"], os.environ["MODEL_NAME"])


async def agent(model: Model) -> AsyncIterator[str | tuple[str, str] | Exit]:
    """Lines for the page: what its programs print, and on stderr what the agent does: `attempt`, `code`, `result`."""
    messages = [{"role": "user", "content": TASK + " Answer with the program only."}]
    async with miosa.AsyncMiosa(timeout=300) as client:
        sandbox = await client.sandboxes.get(os.environ["SANDBOX_ID"])
        for attempt in range(1, ATTEMPTS + 1):
            yield "stderr", f"attempt {attempt}"
            program = await model(messages)
            for line in program.splitlines():
                yield "stderr", f"code {line}"
            await sandbox.write_file("/workspace/program.py", program)
            printed: list[str] = []
            code = None
            process = await sandbox.processes.start("cd /workspace && exec python3 -u program.py 2>&1")
            try:
                async for said in sandbox.processes.stream(process["pid"]):
                    if "line" in said:
                        printed.append(said["line"])
                        yield said["line"]
                    code = said.get("exit_code", code)
            finally:
                if code is None:  # the viewers have left, or the stream broke off
                    with anyio.CancelScope(shield=True):
                        await sandbox.processes.stop(process["pid"])
            yield "stderr", f"result {code}"
            if code == 0:
                yield Exit(0)
                return
            messages += [
                {"role": "assistant", "content": program},
                {"role": "user", "content": f"It ended with {code}, and printed:\n" + "\n".join(printed[-50:])},
            ]
    yield Exit(1)


async def page(request: Request) -> HTMLResponse:
    """The page that shows every attempt."""
    return HTMLResponse(PAGE)


async def resolve(request: Request) -> Lines:
    """A new agent for each page."""
    return Lines(agent(chosen_model()), name="agent")


bridge = SSEBridge(resolve=resolve, refusals="frame")
app = Starlette(routes=[Route("/", page), Mount("/run-sse", bridge)])
