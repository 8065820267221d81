"""The command line: `sse-bridge`. One file for each command.

A command imports its parts when it runs, so that applications can mount the bridge without uvicorn, typer or the
sandbox.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

#: What the extra `serve` is enough for.
_SERVERS: Final = ("sandbox", "serve", "demo")
#: Commands whose exit code is that of the command that they run or follow, unless it is 125.
_RUNNERS: Final = ("run", "follow")
#: Options of those that take a value.
_WITH_VALUE: Final = ("--env", "-e", "--cwd", "--timeout", "--header", "-H", "--give-up-after")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Args:
        argv: the arguments after the program's name; `None` takes the process's.
    """
    try:
        from . import program
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        return _fail_unparsed(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # while it was imported
        return 130
    return program.run(argv)


def _fail_unparsed(argv: Sequence[str]) -> int:
    """Says what to install where typer is missing, which would have parsed the arguments."""
    from .saying import fail, fail_before

    place, name = next(((place, word) for place, word in enumerate(argv) if not word.startswith("-")), (0, ""))
    extra = "serve" if name in _SERVERS else "cli"
    message = f'the command line needs typer: pip install "sse_bridge[{extra}]"'
    if name not in _RUNNERS:
        return fail(message)
    return fail_before(message, as_json=_has_json(argv[place + 1 :], ends_at_word=name == "run"))


def _has_json(words: Sequence[str], *, ends_at_word: bool) -> bool:
    """Whether `--json` is among the options, which for `run` stand before the sandbox."""
    rest = iter(words)
    for word in rest:
        if word == "--json":
            return True
        if word == "--" or (ends_at_word and not word.startswith("-")):
            return False
        if word in _WITH_VALUE:
            next(rest, None)
    return False
