"""What commands say for themselves, and the exit codes that are theirs."""

from __future__ import annotations

import sys
from typing import Final

from ..errors import BridgeError

__all__ = ["BROKEN_PIPE", "FAILED", "exit_status", "fail", "missing", "say", "words_of"]

#: The command's exit code is unknown, because something other than the command failed: docker's 125.
FAILED: Final = 125
#: 128 + SIGPIPE, as the shell says of a program whose reader has left.
BROKEN_PIPE: Final = 141
#: Negative exit codes stand for signals in some runtimes.
_MOST_SIGNALS: Final = 64


def say(message: str) -> None:
    """Tells the user on stderr: stdout is the command's."""
    print(f"sse-bridge: {message}", file=sys.stderr, flush=True)


def fail(message: str, code: int = 1) -> int:
    """Says why a command cannot do its work; returns its exit code."""
    say(message)
    return code


def missing(error: ModuleNotFoundError, package: str, extra: str) -> int:
    """Says what to install, if it is that package that is missing.

    Raises:
        ModuleNotFoundError: another one is.
    """
    if error.name != package:
        raise error
    return fail(f'this needs {package}: pip install "sse_bridge[{extra}]"')


def words_of(error: Exception) -> str:
    """An error in one line, with its code and the platform's id of the request where it has them."""
    message = str(getattr(error, "message", error))
    details = [str(it) for it in (getattr(error, "code", None), getattr(error, "request_id", None)) if it]
    return f"{message} ({', '.join(details)})" if isinstance(error, BridgeError) and details else message


def exit_status(code: int) -> int:
    """An exit code as a process can have it."""
    if 0 <= code <= 255:
        return code
    return 128 - code if -_MOST_SIGNALS < code < 0 else FAILED
