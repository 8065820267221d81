"""One sandbox for each file, and `sse-bridge` as users run it: in a terminal, and in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import pexpect
import pytest

from tests.support.command_lines import ROOT
from tests.support.sandboxes import KEY, LocalSandbox, local_sandbox

PROGRAM: Final = [sys.executable, "-m", "sse_bridge"]

Piped = Callable[..., "subprocess.CompletedProcess[bytes]"]
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
