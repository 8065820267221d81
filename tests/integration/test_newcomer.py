"""The way from an empty folder to the first line of one's own script, typed as README and tutorial say."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.support.documentation import DOCS, README, ROOT, blocks
from tests.support.programs import find, free_port
from tests.support.sandboxes import running
from tests.support.waiting import eventually

TUTORIAL = DOCS / "tutorial.md"
Terminals = Callable[[str], "pexpect.spawn[str]"]

#: What the page's example shows in place of the id that the reader's own sandbox prints.
EXAMPLE_ID = "sbx_9ccc416576c8a9d1"
PROMPT = r"\[(\d+)\]\$ "
#: What the reader waits for behind a command that keeps its terminal.
KEEPS_ITS_TERMINAL = {
    "sse-bridge sandbox": r"in the sandbox (sbx_\w+):",
    "uvicorn": "Application startup complete",
    "curl": r'"line":"(tick 1)"',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty one, beside a checkout."""
    (tmp_path / "sse_bridge").symlink_to(ROOT)
    made = tmp_path / "app"
    made.mkdir()
    return made


@pytest.fixture
def terminals(folder: Path) -> Iterator[Terminals]:
    """A terminal by its name, which is opened in the folder when it is first asked for."""
    opened: dict[str, Any] = {}
    hidden = ("MIOSA_", "PYTHON", "SSE_BRIDGE_", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    # Not the Python of the tests' own environment, in which everything is installed.
    environment |= {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin", "PS1": r"[$?]$ "}

    def terminal(name: str) -> Any:
        if name not in opened:
            shell = ["--norc", "--noprofile", "--noediting"]
            opened[name] = pexpect.spawn(
                "bash", shell, cwd=folder, env=environment, encoding="utf-8", timeout=120, echo=False
            )
            opened[name].expect(PROMPT)
        return opened[name]

    yield terminal
    for shell in opened.values():
        shell.sendintr()
        shell.expect([PROMPT, pexpect.EOF])
        shell.close(force=True)


def type_in(terminal: Any, command: str) -> str:
    """Types a line, and waits until it is done, or for what it prints. Returns what the reader sees."""
    terminal.sendline(command)
    for name, sight in KEEPS_ITS_TERMINAL.items():
        if command.startswith(name):
            assert terminal.expect([sight, PROMPT]) == 0, terminal.before
            return str(terminal.match[terminal.match.lastindex or 0])
    terminal.expect(PROMPT)
    assert terminal.match[1] == "0", f"{command}\n{terminal.before}"
    return str(terminal.before)


@pytest.mark.slow
@pytest.mark.timeout(300)  # what the page promises
def test_a_newcomer_sees_the_first_line_of_a_script(folder: Path, terminals: Terminals) -> None:
    """The line arrives while the script runs. A stop of the server ends the script."""
    find("curl")
    assert f"[tutorial]({TUTORIAL.relative_to(ROOT)})" in README.read_text()
    mine = {"8080": str(free_port()), "8000": str(free_port())}
    seen = ""
    for block in blocks(TUTORIAL):
        if not block.title.startswith("Terminal"):
            (folder / block.title).write_text(block.text)
            continue
        for line in block.text.splitlines():
            command = re.sub("|".join(mine), lambda port: mine[port[0]], line)
            seen = type_in(terminals(block.title), command)
            if seen.startswith("sbx_"):
                mine[EXAMPLE_ID] = seen

    assert seen == "tick 1"
    script = str(folder / "ticker.py")
    assert running(script)
    terminals("Terminal 3").expect('"line":"tick 2"')

    terminals("Terminal 2").sendintr()
    terminals("Terminal 3").expect('"code":"server_stopped"')
    eventually(lambda: not running(script))
