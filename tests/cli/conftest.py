"""One sandbox for each file, and `sse-bridge` as users run it: in a terminal, and in a pipe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pexpect
import pytest

from tests.support.command_lines import ROOT
from tests.support.programs import banner_of
from tests.support.sandboxes import KEY, LocalSandbox, local_sandbox

PROGRAM: Final = [sys.executable, "-m", "sse_bridge"]

Piped = Callable[..., "subprocess.CompletedProcess[bytes]"]
Background = Callable[..., "subprocess.Popen[bytes]"]
Terminal = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    with local_sandbox() as made:
        yield made


@pytest.fixture
def environment(sandbox: LocalSandbox) -> dict[str, str]:
    """Of a user who has set up the platform."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIOSA_", "COLUMNS"))}
    return {**kept, "MIOSA_BASE_URL": sandbox.url, "MIOSA_API_KEY": KEY, "PYTHONPATH": str(ROOT), "TERM": "xterm"}


@pytest.fixture
def piped(environment: dict[str, str]) -> Piped:
    """Runs `sse-bridge` with these arguments to its end."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        env = {**environment, **variables}
        return subprocess.run([*PROGRAM, *arguments], env=env, capture_output=True, timeout=60, check=False)

    return run


@pytest.fixture
def background(environment: dict[str, str]) -> Iterator[Background]:
    """Starts `sse-bridge` with these arguments, and ends it with the test at the latest."""
    with ExitStack() as stack:

        def start(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
            env = {**environment, **variables}
            process = stack.enter_context(
                subprocess.Popen([*PROGRAM, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    """Runs `sse-bridge` with these arguments in a terminal."""
    opened: list[Any] = []

    def run(*arguments: str, **variables: str) -> Any:
        env = {**environment, **variables}
        child = pexpect.spawn(PROGRAM[0], [*PROGRAM[1:], *arguments], env=env, encoding="utf-8", timeout=30)
        opened.append(child)
        return child

    yield run
    for child in opened:
        child.close(force=True)


@contextmanager
def own_sandbox() -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
    """A sandbox on a server that a test may stop: its process, the sandbox's id, and where it is."""
    key = "k" * 20
    program = [*PROGRAM, "sandbox", "--port", "0", "--key", key, "--sandbox", "box"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        try:
            banner = banner_of(server)
            (url,) = re.findall(r"MIOSA_BASE_URL=(\S+)", banner)
            (box,) = re.findall(r"in the sandbox (\w+):", banner)
            yield server, box, {"MIOSA_BASE_URL": url, "MIOSA_API_KEY": key}
        finally:
            server.send_signal(signal.SIGCONT)
            server.terminate()
