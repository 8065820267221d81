"""The lines of docs/command-line.md, typed as they stand, against a local sandbox and a local bridge."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Mount, Router

from sse_bridge import SSEBridge
from sse_bridge.testing import Script
from tests.redis.keeper import keeper
from tests.support.documentation import DOCS, blocks
from tests.support.programs import banner_of
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import Served, serve

#: Installs are tested in tests/test_installs.py, and the key is in the environment.
ELSEWHERE = ("pip install", "export MIOSA_API_KEY=")
LINES = [
    line
    for block in blocks(DOCS / "command-line.md", "sh")
    for line in block.text.splitlines()
    if not line.startswith(ELSEWHERE)
]
#: A run of the bridge, as the page shows it.
RUN = "Zk3vQ0x9bTnWf2Rq"

Typed = Callable[[str], "subprocess.Popen[str]"]


def lines_with(*words: str) -> list[str]:
    return [line for line in LINES if any(f"sse-bridge {word}" in line for word in words)]


def some_slow(lines: list[str], *quick: str) -> list[Any]:
    """The same as parameters of a test, slow but for the quick ones."""
    marks = {line: [] if line.split("#")[0].strip() in quick else [pytest.mark.slow] for line in lines}
    return [pytest.param(line, marks=marks[line]) for line in lines]


@pytest.fixture
def typed(environment: dict[str, str], tmp_path: Path) -> Typed:
    """Types a line into a shell that knows `sse-bridge`."""
    (tmp_path / "sse-bridge").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sse_bridge "$@"\n')
    (tmp_path / "sse-bridge").chmod(0o755)
    env = {**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}", "COLUMNS": "200"}

    def start(line: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(["bash", "-c", f"exec {line}"], env=env, stdout=pipe, stderr=pipe, text=True)

    return start


def outcome(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What it prints, and its exit code."""
    with process:
        output, _ = process.communicate(timeout=60)
    return output, process.returncode


def site(**options: Any) -> Router:
    """A bridge at the path of the page. `options` are those of its script."""
    script = Script(["a"], exit=3, **options)
    return Router([Mount("/run-sse", SSEBridge(None, lambda request: script, heartbeat=0.5))])


def test_every_line_is_typed() -> None:
    commands = ("run", "follow", "serve", "sandbox", "demo", "doctor")

    assert sorted(line for command in commands for line in lines_with(command)) == sorted(LINES)
    assert all(lines_with(command) for command in commands)


def test_run(typed: Typed, sandbox: LocalSandbox) -> None:
    sandbox.write("/workspace/pipeline.py", "print('a line')\nraise SystemExit(3)\n")
    for line in lines_with("run"):
        mine = line.replace("sbx_123", sandbox.id).replace("/workspace/", "")
        assert outcome(typed(mine)) == ("a line\n", 3)


def test_follow(typed: Typed) -> None:
    """A run that is over, and a new one."""
    with serve(site()) as served:
        run = started(served)
        for line in lines_with("follow"):
            mine = line.replace("https://example.org", served.url).replace(RUN, run)
            assert outcome(typed(mine)) == ("a\n", 3)


def started(served: Served) -> str:
    """The token of a run that is over."""
    token: str = httpx.get(f"{served.url}/run-sse/").headers["sse-bridge-run"]
    return token


@pytest.mark.parametrize("line", some_slow(lines_with("serve", "sandbox", "demo"), "sse-bridge demo"))
def test_servers(line: str, typed: Typed, sandbox: LocalSandbox) -> None:
    """On a port of their own. They say where they are, and end with Ctrl-C."""
    on_a_free_port = re.sub(r"sse-bridge (\w+)(?: --port \d+)?", r"sse-bridge \1 --port 0", line)
    with typed(on_a_free_port.replace("sbx_123", sandbox.id)) as server:
        try:
            banner = banner_of(server)
            (url, *_) = re.findall(r"http://127\.0\.0\.1:\d+", banner)
            status = httpx.get(f"{url}/").status_code
            server.send_signal(signal.SIGINT)
            assert server.wait(20) == 0
        finally:
            server.kill()

    assert status == (401 if "sandbox --port" in line else 200)
    assert ("MIOSA_API_KEY=msk_local_tutorial" in banner) == ("msk_local_tutorial" in line)


@pytest.mark.parametrize("line", some_slow(lines_with("doctor"), "sse-bridge doctor"))
def test_doctor(line: str, typed: Typed, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It finds nothing wrong with the platform, with a bridge, and with a Redis."""
    with ExitStack() as stack:
        mine = line
        if "https://" in line:
            served = stack.enter_context(serve(site(waits=True)))
            mine = line.replace("https://example.org", served.url)
        if "redis://" in line:
            redis = stack.enter_context(keeper(tmp_path_factory.mktemp("redis")))
            mine = line.replace("redis://localhost:6379/0", redis.url)
        said, code = outcome(typed(mine))

    assert "wrong" not in said
    assert code == 0, said
