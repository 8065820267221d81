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

    name = next((word for word in argv if not word.startswith("-")), "")
    extra = "serve" if name in _SERVERS else "cli"
    message = f'the command line needs typer: pip install "sse_bridge[{extra}]"'
    if name not in _RUNNERS:
        return fail(message)
    return fail_before(message, as_json="--json" in argv)
