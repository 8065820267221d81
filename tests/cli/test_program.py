"""The program as a whole."""

from __future__ import annotations

import json
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


def without(package: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs the program where a package is missing."""
    program = (
        f"import sys; sys.modules[{package!r}] = None; from sse_bridge.cli import main; sys.exit(main({arguments}))"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("typer", [], "cli"),
        ("typer", ["--version"], "cli"),
        ("typer", ["doctor"], "cli"),
        ("typer", ["demo"], "serve"),
        ("typer", ["sandbox", "--sandbox", "run"], "serve"),
        ("typer", ["serve", "sbx_1", "run"], "serve"),
        ("uvicorn", ["demo"], "serve"),
        ("uvicorn", ["sandbox"], "serve"),
        ("uvicorn", ["serve", "sbx_1", "true"], "serve"),
        ("httpx_sse", ["doctor"], "cli"),
    ],
)
def test_what_is_missing_is_named(package: str, arguments: list[str], extra: str) -> None:
    """With the smallest extra that has it."""
    done = without(package, arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert f'pip install "sse_bridge[{extra}]"' in done.stderr


@pytest.mark.parametrize(
    ("package", "arguments", "is_json"),
    [
        ("typer", ["run", "sbx_1", "true"], False),
        ("typer", ["run", "--json", "sbx_1", "true"], True),
        ("typer", ["run", "-e", "A", "--timeout", "5", "--json", "sbx_1", "true"], True),
        ("typer", ["follow", "http://localhost/"], False),
        ("typer", ["follow", "http://localhost/", "-H", "a: b", "--json"], True),
        ("typer", ["follow", "--give-up-after", "5", "--json", "http://localhost/"], True),
        ("httpx_sse", ["run", "sbx_1", "true"], False),
        ("httpx_sse", ["run", "--json", "sbx_1", "true"], True),
        ("httpx_sse", ["follow", "http://localhost/", "--json"], True),
    ],
)
def test_what_is_missing_is_no_exit_code_of_the_commands(package: str, arguments: list[str], is_json: bool) -> None:
    """`run` and `follow` say it as they say all faults that are not the command's."""
    done = without(package, arguments)
    assert done.returncode == 125
    assert 'pip install "sse_bridge[cli]"' in done.stderr
    if is_json:
        message = done.stderr.removeprefix("sse-bridge: ").rstrip()
        assert json.loads(done.stdout) == {"type": "error", "code": "configuration", "message": message}
    else:
        assert done.stdout == ""
