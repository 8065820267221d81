"""The command line: `sse-bridge`. One file for each command.

A command imports its parts when it runs, so that applications can mount the bridge without uvicorn, typer or the
sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Args:
        argv: the arguments after the program's name; `None` takes the process's.
    """
    from .saying import fail

    try:
        from . import program
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        return fail('the command line needs typer: pip install "sse_bridge[cli]"')
    except KeyboardInterrupt:  # while it was imported
        return 130
    return program.run(argv)
