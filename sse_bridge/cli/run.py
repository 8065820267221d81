"""`sse-bridge run`: a command in a sandbox, as if it ran here."""

from __future__ import annotations

import logging
from functools import partial
from typing import Annotated

import anyio
import typer

from .asking import CommandLine, Cwd, Env, Sandbox, Timeout, Wanted
from .saying import fail_before, missing

__all__ = ["run_command"]


def run_command(
    sandbox: Sandbox,
    command: CommandLine,
    env: Env = None,
    cwd: Cwd = None,
    timeout: Timeout = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON; the last one says how it ended.")
    ] = False,
) -> int:
    """Run a command in a MIOSA sandbox; print its output, and exit with its code. Ctrl-C ends it.

    The platform and the key are MIOSA_BASE_URL and MIOSA_API_KEY.

    Exit codes:
    0 to 255: the command's own; 137 if SIGKILL ended it.
    124: the command's time was up, and the platform ended it.
    125: the exit code is unknown (no such sandbox, a wrong key, a vanished platform), or output could not be written.
    130, 143, 129, 131: Ctrl-C, SIGTERM, SIGHUP, SIGQUIT. stderr says whether the command is gone.
    141: the reader of the pipe has left, and the command was ended.
    2: wrong arguments.
    """
    try:
        from .running import run_here
    except ModuleNotFoundError as error:
        return missing(error, "httpx_sse", "cli", partial(fail_before, as_json=as_json))
    logging.basicConfig(format="sse-bridge: %(message)s", level=logging.ERROR)
    return anyio.run(run_here, Wanted(sandbox, command, env, cwd, timeout), as_json)
