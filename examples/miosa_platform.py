"""Try the bridge against the real platform, with a key from the environment.

    pip install miosa uvicorn httpx-sse
    MIOSA_API_KEY=msk_... python examples/miosa_platform.py

Creates a sandbox with MIOSA's SDK, runs a script in it through the bridge and prints each event with the time between
printing and arrival. Then leaves a second run in the middle, checks that its process is gone, and destroys the sandbox.
To use a local sandbox (`sse-bridge sandbox`), set MIOSA_BASE_URL as well. The project's tests run this script against
the local sandbox only: they have no key for the platform.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import miosa
import uvicorn
from httpx_sse import connect_sse
from starlette.requests import Request

from sse_bridge import Miosa, SandboxExec, SSEBridge

SCRIPT = """
import sys, time
for number in range(5):
    print(f"{time.time():.3f} line {number}", flush=True)
    time.sleep(0.5)
print("a warning", file=sys.stderr)
sys.exit(3)
"""


@contextmanager
def served(bridge: SSEBridge) -> Iterator[str]:
    """Serves the bridge on a free port of this machine; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(bridge, log_level="warning", timeout_graceful_shutdown=10))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def follow(url: str) -> int | None:
    """Prints a run's events; returns its exit code."""
    with httpx.Client(timeout=None) as client, connect_sse(client, "GET", url) as source:
        source.response.raise_for_status()
        for event in source.iter_sse():
            if event.data:  # httpx-sse yields events for frames without data, too
                message = json.loads(event.data)
                printed_at = str(message.get("line", "")).partition(" ")[0]
                delay = f"{1000 * (time.time() - float(printed_at)):6.0f} ms" if "." in printed_at else ""
                print(f"{event.id:24} {event.data} {delay}")
                if message["type"] == "exit":
                    return int(message["code"])
    return None


def main() -> int:
    with miosa.Miosa() as client, client.sandboxes.create(name="sse-bridge-example") as sandbox:
        sandbox.wait_until_ready()
        sandbox.write_file("/workspace/example.py", SCRIPT)
        commands = iter(["python3 -u /workspace/example.py", "sleep 311"])

        def resolve(request: Request) -> SandboxExec:
            return SandboxExec(sandbox.id, next(commands), cwd="/workspace", timeout=600)

        with served(SSEBridge(Miosa(), resolve, grace=0)) as url:
            code = follow(url)
            print(f"exit code {code} (the clocks of this machine and the sandbox may differ)")
            with httpx.Client() as browser, browser.stream("GET", url) as response:
                response.raise_for_status()
                print("left a silent run:", response.headers["sse-bridge-run"])
        left = sandbox.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 31[1]'").stdout.strip()
        print("processes of it that still run:", left)
    return 0 if code == 3 and left == "0" else 1


if __name__ == "__main__":
    sys.exit(main())
