"""The program as a whole."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sse_bridge import __version__, cli


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert not end.value.code
    assert capsys.readouterr().out == f"sse-bridge {__version__}\n"


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert not end.value.code
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("run", "follow", "serve", "doctor", "sandbox", "demo"))


@pytest.mark.parametrize("command", [[], ["run"], ["follow"], ["serve"], ["doctor"], ["sandbox"], ["demo"]])
def test_help_shows_flags_as_flags(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Their words follow them, instead of the type of a value."""
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--help"])
    assert not end.value.code
    shown = capsys.readouterr().out
    assert re.search(r"--help +Show this message and exit\.", shown)
    assert not re.search(r"bool", shown, re.IGNORECASE)


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("typer", ["demo"]),
        ("httpx_sse", ["run", "sbx_1", "true"]),
        ("httpx_sse", ["follow", "http://localhost/"]),
        ("httpx_sse", ["doctor"]),
    ],
)
def test_what_is_missing_is_named(package: str, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None; from sse_bridge.cli import main; sys.exit(main({arguments}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "sse_bridge[cli]"' in done.stderr
