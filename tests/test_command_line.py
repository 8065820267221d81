"""docs/command-line.md has every option of every command, and docs/reference/cli.md is what the program says."""

from __future__ import annotations

import re

import pytest
import typer.main

from scripts.cli_reference import PAGE, page
from sse_bridge.cli.program import app
from tests.support.documentation import DOCS

#: The section of each command.
SECTIONS = {
    "run": "Run a command",
    "follow": "Follow a run",
    "serve": "Serve a bridge",
    "sandbox": "Serve a sandbox, or the demo",
    "demo": "Serve a sandbox, or the demo",
    "doctor": "Ask the doctor",
}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_its_options_on_the_page(name: str) -> None:
    page = (DOCS / "command-line.md").read_text()
    section = page.partition(f"\n## {SECTIONS[name]}\n")[2].partition("\n## ")[0]
    rows = "\n".join(re.findall(r"^\| (`-[^|]*) \|", section, re.MULTILINE))
    options = {text for one in COMMANDS[name].params for text in one.opts if text.startswith("-")} - {"--help"}

    assert options
    assert {option for option in options if not re.search(rf"`{option}\b", rows)} == set()


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it anew: .venv/bin/python scripts/cli_reference.py"
