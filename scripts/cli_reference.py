#!/usr/bin/env python3
"""Writes docs/reference/cli.md, the reference of the command line, from what typer knows of it.

.venv/bin/python scripts/cli_reference.py
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import typer.main
from typer.models import ArgumentInfo, ParameterInfo

from sse_bridge.cli.program import app

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"

_HEAD: Final = """\
# The command line

Every command with its arguments and options, as `--help` shows them. `scripts/cli_reference.py` writes this page
from the program. How to use the commands: [Run and follow in a terminal](../command-line.md).
"""


class _Parameter(NamedTuple):
    #: Without `None`.
    kind: object
    info: ParameterInfo
    default: Any
    #: An option's names.
    names: list[str]

    @property
    def is_argument(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def is_list(self) -> bool:
        return self.kind == list[str]

    @property
    def spelled(self) -> str:
        """An argument as the command's line has it, or an option's names with its value."""
        if self.is_argument:
            shown = f"{self.info.metavar}..." if self.is_list else str(self.info.metavar)
            return shown if self.default is inspect.Parameter.empty else f"[{shown}]"
        long, *short = self.names
        value = "" if self.kind is bool else f" {self.info.metavar or ('TEXT' if self.kind is str else 'NUMBER')}"
        return ", ".join(f"`{each}`" for each in (long + value, *short))

    @property
    def default_shown(self) -> str:
        if self.default is None or self.default is False:
            return ""
        return f"`{self.default:g}`" if self.kind is float else f"`{self.default}`"

    @property
    def described(self) -> str:
        words = str(self.info.help)
        if self.is_list and not self.is_argument:
            words += " May be repeated."
        if self.info.max is not None:
            words += f" From {self.info.min} to {self.info.max}."
        elif self.info.min is not None:
            words += f" At least {self.info.min}."
        return words + (f" Variable: `{self.info.envvar}`." if self.info.envvar else "")


def page() -> str:
    """The text of the page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([_HEAD, *(line for name, command in commands.items() for line in _section(name, command))])


def _section(name: str, command: Any) -> Iterator[str]:
    function = inspect.unwrap(command.callback)
    parameters = list(_parameters(function, {each.name: list(each.opts) for each in command.params}))
    arguments = [each for each in parameters if each.is_argument]
    yield f"## `sse-bridge {name}`\n"
    yield f"`{' '.join(['sse-bridge', name, '[OPTIONS]', *(each.spelled for each in arguments)])}`\n"
    yield from _help(inspect.getdoc(function) or "")
    if arguments:
        yield "| argument | |\n|---|---|"
        yield from (f"| `{each.info.metavar}` | {each.described} |" for each in arguments)
        yield ""
    yield "| option | default | |\n|---|---|---|"
    for each in parameters:
        if not each.is_argument:
            yield f"| {each.spelled} | {each.default_shown} | {each.described} |"
    yield ""


def _parameters(function: Callable[..., Any], names: dict[str, list[str]]) -> Iterator[_Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])
        bare = next((each for each in get_args(kind) if type(None) in get_args(kind)), kind)
        yield _Parameter(bare, info, parameter.default, names[name])


def _help(text: str) -> Iterator[str]:
    """The help text. Lines of exit codes become a table."""
    for paragraph in text.split("\n\n"):
        title, *rows = paragraph.splitlines()
        if title != "Exit codes:":
            yield f"{paragraph}\n"
            continue
        yield "| exit code | means |\n|---|---|"
        yield from (f"| {code} | {words} |" for code, _, words in (row.partition(": ") for row in rows))
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
