"""All commands as one program, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from .demo import demo
from .doctor import doctor
from .follow import follow
from .run import run_command
from .sandbox import sandbox
from .serve import serve

__all__ = ["run"]

#: Options end where the command begins, as for `docker run`.
_COMMAND_FOLLOWS: Final = {"allow_interspersed_args": False}


def _shown_as_flags(parameters: list[Any]) -> list[Any]:
    """typer 0.29 shows flags as `--json <bool>` unless they have a metavar, as if they took a value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class _Command(TyperCommand):
    """A command whose help shows flags as flags, `--help` among them."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _shown_as_flags(super().get_params(ctx))


class _Group(TyperGroup):
    """The same for the program itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _shown_as_flags(super().get_params(ctx))


app = typer.Typer(
    cls=_Group,
    name="sse-bridge",
    add_completion=False,
    help="Sandbox output as Server-Sent Events.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold keys
)


class _Ended(SystemExit):
    """A command has run, and this is its exit code. typer ends by `SystemExit` in any case."""


def _add(function: Callable[..., int], name: str, settings: dict[str, Any] | None = None) -> None:
    @wraps(function)
    def command(*arguments: Any, **options: Any) -> NoReturn:
        raise _Ended(function(*arguments, **options))

    app.command(name, cls=_Command, context_settings=settings)(command)


_add(run_command, "run", _COMMAND_FOLLOWS)
_add(follow, "follow")
_add(serve, "serve", _COMMAND_FOLLOWS)
_add(doctor, "doctor")
_add(sandbox, "sandbox")
_add(demo, "demo")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"sse-bridge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Sandbox output as Server-Sent Events."""


def run(argv: Sequence[str] | None) -> int:
    """Runs the program with these arguments; returns the exit code.

    Raises:
        SystemExit: the arguments are wrong, or ask for help.
    """
    try:
        app(sys.argv[1:] if argv is None else list(argv), prog_name="sse-bridge")
    except _Ended as end:
        return int(end.code or 0)
    return 0
