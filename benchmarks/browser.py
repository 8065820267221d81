"""Measures what `Coalesce` does for a browser: lines at full speed, to a page in Chromium, under each policy.

    python -m benchmarks.browser [--lines N] [--repeat N] [--figure docs/figures/coalesce.svg]

Three processes run beside the browser: an upstream that is never the bottleneck, a site (uvicorn, and the bridge at its
defaults except for the policy), and this one. The page is an `<sse-console>`. The table shows the time until the exit
is painted, and how long the page was deaf: how late a timer that is due every 20 ms got its turn, as a click would
have.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import uvicorn
from playwright.sync_api import Browser, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import Block, Coalesce, Drop, EventStream, Policy, SSEBridge
from sse_bridge.console import static_files

POLICIES: dict[str, Policy] = {
    "Block()": Block(),
    "Drop()": Drop(),
    "Coalesce()": Coalesce(),
    'Coalesce(beyond="drop")': Coalesce(beyond="drop"),
}
PAGE = """
<!doctype html><title>lines</title>
<sse-console style="height: 90vh" detailed></sse-console>
<script type="module">
  import "/sse-bridge/sse-console.js";
  const shown = document.querySelector("sse-console");
  const state = { lines: 0, missing: 0, events: 0, late: [], progress: [], done: 0 };
  let due = performance.now() + 20;
  setInterval(() => {
    const now = performance.now();
    state.late.push(Math.max(0, now - due));
    state.progress.push([now, shown.lines.received]);
    due = now + 20;
  }, 20);
  const started = performance.now();
  shown.addEventListener("message", ({ detail }) => {
    if (detail.type === "exit") requestAnimationFrame(() => setTimeout(finish)); // it has been painted by then
  });
  function finish() {
    state.done = performance.now() - started;
    state.lines = shown.lines.received;
    state.missing = shown.lines.missing;
    state.events = shown.counts.events;
    state.progress = state.progress.map(([at, lines]) => [at - started, lines]);
    setTimeout(() => { window.result = state; }, 100);
  }
  shown.setAttribute("src", "/run-sse/" + location.search);
  shown.start();
</script>
"""


# -- the two processes beside this one


async def upstream(listener: socket.socket, lines: int) -> None:
    """Serves an event stream of `lines` lines and an exit, in chunks of 64 KiB, at the client's speed."""
    text = "epoch 3 step {} loss=0.482 lr=3e-4 throughput=812/s".format
    frames = [f'event: stdout\ndata: {{"line":"{text(number)}"}}\n\n'.encode() for number in range(lines)]
    stream = b"".join([*frames, b'event: exit\ndata: {"exit_code":0}\n\n'])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for start in range(0, len(stream), 65536):
            writer.write(stream[start : start + 65536])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=listener)
    await server.serve_forever()


def site(listener: socket.socket, url: str) -> None:
    """Serves the page, and the bridge at its defaults."""

    async def choose(request: Request) -> Any:
        return POLICIES[request.query_params["policy"]]

    async def follow(request: Request) -> EventStream:
        return EventStream(url)

    bridge = SSEBridge(None, follow, policy=choose, dialect="typed")
    page = Route("/", lambda request: HTMLResponse(PAGE))
    app = Starlette(routes=[page, Mount("/run-sse", bridge), Mount("/sse-bridge", static_files())])
    uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none")).run(sockets=[listener])


@contextmanager
def process(*arguments: str) -> Iterator[str]:
    """Starts the upstream or the site on a free port; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "benchmarks.browser", *arguments, "--fd", str(listener.fileno())]
        child = subprocess.Popen(command, pass_fds=[listener.fileno()])
    try:
        yield url
    finally:
        child.kill()
        child.wait()


# -- the measurement


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        sys.exit("There is no Chromium; `make system` as root installs it.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def measure(browser: Browser, url: str, policy: str, lines: int) -> dict[str, Any]:
    """The figures of one page load."""
    page = browser.new_page()
    page.goto(f"{url}/?policy={quote(policy)}")
    page.wait_for_function("window.result", timeout=600_000)
    result: dict[str, Any] = page.evaluate("window.result")
    page.close()
    if result["lines"] + result["missing"] != lines:
        sys.exit(f"{policy}: {result['lines']} lines and {result['missing']} missing are not {lines}")
    if result["missing"] and not POLICIES[policy].may_lose:
        sys.exit(f"{policy}: {result['missing']} lines are missing under a policy that loses none")
    return result


def show(name: str, results: list[dict[str, Any]]) -> None:
    def median(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(of, results))

    print(
        f"{name:24} {median(lambda r: r['done']) / 1000:8.1f} s {median(lambda r: max(r['late'])) / 1000:9.2f} s"
        f" {median(lambda r: sum(late > 100 for late in r['late'])):9.0f}"
        f" {median(lambda r: r['events']):10.0f} {median(lambda r: r['lines']):10.0f}"
        f" {median(lambda r: r['missing']):9.0f}",
        flush=True,
    )


def plot(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    mpl.rcParams["svg.hashsalt"] = "sse_bridge"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5.5), layout="constrained")
    for name, runs in results.items():
        run = sorted(runs, key=lambda result: float(result["done"]))[len(runs) // 2]
        times = [at / 1000 for at, _ in run["progress"]]
        axes[0].plot(times, [shown / 1e6 for _, shown in run["progress"]], label=f"{name}: {run['events']:,} events")
        axes[1].plot(times, [late / 1000 for late in run["late"][: len(times)]], label=name)
    axes[0].set_ylabel("lines on the page, millions")
    axes[0].legend()
    axes[1].set_ylabel("page was deaf for, seconds")
    axes[1].set_xlabel("seconds since the page was opened")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines to print (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="page loads under each policy (default %(default)s)")
    parser.add_argument("--figure", type=Path, help="file for a figure: SVG or PNG")
    for internal in ("--serve-upstream", "--serve-site"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_upstream:
        return asyncio.run(upstream(socket.socket(fileno=arguments.fd), int(arguments.serve_upstream)))
    if arguments.serve_site:
        return site(socket.socket(fileno=arguments.fd), arguments.serve_site)
    with ExitStack() as stack:
        source = stack.enter_context(process("--serve-upstream", str(arguments.lines)))
        url = stack.enter_context(process("--serve-site", source))
        httpx.get(url, timeout=60)
        browser = stack.enter_context(chromium())
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in POLICIES}
        print(f"{arguments.lines:,} lines at full speed, medians of {arguments.repeat} page loads\n")
        columns = f"{'exit after':>10} {'deaf, max':>11} {'> 0.1 s':>9} {'events':>10} {'lines':>10} {'missing':>9}"
        print(f"{'policy':24} {columns}")
        for _ in range(arguments.repeat):
            for name, runs in results.items():
                runs.append(measure(browser, url, name, arguments.lines))
        for name, runs in results.items():
            show(name, runs)
        if arguments.figure:
            plot(results, arguments.figure)
    return None


if __name__ == "__main__":
    main()
