"""What `run` and `serve` are asked to run, and on which platform."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..upstream.base import Source
    from ..upstream.miosa.client import Miosa

__all__ = ["CommandLine", "Cwd", "Env", "Sandbox", "Timeout", "Wanted", "platform"]


def _id_of(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("the id of the sandbox is blank.")
    return text


def _variable_of(text: str) -> str:
    if not text.partition("=")[0]:
        raise typer.BadParameter(f"not a variable: {text!r}. Write NAME=VALUE, or NAME.")
    return text


def _folder_of(text: str) -> str:
    if not text.startswith("/"):
        raise typer.BadParameter(f"not an absolute path: {text!r}. Write one such as /workspace.")
    return text


def _command_of(context: typer.Context, words: list[str]) -> list[str]:
    """Refuses a blank command, and one that begins with an option of ours: it stands behind the sandbox by mistake."""
    if words and not _line_of(words).strip():
        raise typer.BadParameter("the command is blank.")
    name = words[0].partition("=")[0] if words else ""
    ours = {spelled for parameter in context.command.get_params(context) for spelled in parameter.opts}
    if name.startswith("-") and name in ours:
        raise typer.BadParameter(f"`{name}` is an option of sse-bridge: write it before the sandbox.")
    return words


def _line_of(words: list[str]) -> str:
    """The words behind the sandbox as a command line."""
    words = words[1:] if words[:1] == ["--"] else words
    return words[0] if len(words) == 1 else shlex.join(words)


Sandbox = Annotated[str, typer.Argument(parser=_id_of, metavar="SANDBOX", help="The sandbox's id.")]
CommandLine = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND",
        callback=_command_of,
        help="One argument is a line for the sandbox's shell; several are quoted.",
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        parser=_variable_of,
        metavar="NAME[=VALUE]",
        help="A variable. Without a value, it takes this shell's; if the shell has none, it is not set.",
    ),
]
Cwd = Annotated[
    str | None,
    typer.Option(parser=_folder_of, metavar="PATH", help="Working directory in the sandbox, as an absolute path."),
]
#: The bounds are the platform's.
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=1, max=86_400, help="Time after which the platform ends the command."),
]


class Wanted(NamedTuple):
    """What the arguments ask to run."""

    sandbox: str
    command: list[str]
    env: list[str] | None
    cwd: str | None
    timeout: float | None

    def source(self) -> Source:
        """The command as a source.

        Raises:
            ConfigurationError: an argument is unfit.
        """
        from ..upstream.miosa.sandbox_exec import SandboxExec

        line = _line_of(self.command)
        env = _variables(self.env or [])
        return SandboxExec(self.sandbox, line, env=env or None, cwd=self.cwd, timeout=self.timeout)


def _variables(given: list[str]) -> dict[str, str]:
    """Values by name. A name that this shell lacks is left out, as docker does: an empty value is not the same."""
    variables: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals:
            variables[name] = value
        elif name in os.environ:
            variables[name] = os.environ[name]
    return variables


def platform() -> Miosa:
    """The platform that the environment names.

    Raises:
        ConfigurationError: a variable is missing, or is unfit.
    """
    from ..upstream.miosa.client import Miosa

    miosa = Miosa()
    try:
        miosa.check_key()
    except ConfigurationError:
        raise ConfigurationError(
            "There is no API key. Set MIOSA_API_KEY (or MIOSA_ACCESS_TOKEN, which wins)."
        ) from None
    return miosa
