"""What commands say for themselves, and the exit codes that are theirs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ..errors import BridgeError, UpstreamError

__all__ = [
    "BROKEN_PIPE",
    "FAILED",
    "HOW_FAR",
    "End",
    "error_of",
    "exit_of",
    "exit_status",
    "fail",
    "fail_before",
    "message_of",
    "missing",
    "say",
    "words_of",
]

#: The command's exit code is unknown, because something other than the command failed: docker's 125.
FAILED: Final = 125
#: The platform ended the command because its time was up: `timeout(1)`'s 124.
TIMED_OUT: Final = 124
#: 128 + SIGPIPE, as the shell says of a program whose reader has left.
BROKEN_PIPE: Final = 141
#: Negative exit codes stand for signals in some runtimes.
_MOST_SIGNALS: Final = 64

#: How far ending a command got, in words for people.
HOW_FAR: Final = {
    "confirmed": "the command is gone (confirmed)",
    "acknowledged": "the platform took the request, but the command was not seen to end (acknowledged)",
    "requested": "the platform did not answer; the command may still be running (requested)",
}

#: Refusals whose reason only the platform's own words give.
_REFUSED: Final = {
    "upstream_rejected": "The platform refused the command",
    "upstream_failed": "The platform failed",
    "upstream_not_event_stream": "The platform sent no event stream",
}


class End(NamedTuple):
    """How `run` or `follow` ends."""

    #: This process's exit code.
    status: int
    #: The last line on stdout with `--json`; `None` where stdout is gone.
    body: dict[str, Any] | None
    #: What people read on stderr; empty where the output says it all.
    words: str = ""


def error_of(code: str, message: str, **details: object) -> dict[str, Any]:
    """The last line with `--json` of a run that ended without an exit code. Details that are `None` are left out."""
    known = {name: value for name, value in details.items() if value is not None}
    return {"type": "error", "code": code, "message": message, **known}


def exit_of(code: int, *, timed_out: bool) -> End:
    """How it ends with the command's exit."""
    if not timed_out:
        return End(exit_status(code), {"type": "exit", "code": code})
    body = {"type": "exit", "code": code, "timed_out": True}
    return End(TIMED_OUT, body, "the platform ended the command because its time was up")


def say(message: str) -> None:
    """Tells the user on stderr: stdout is the command's."""
    if sys.stderr is not None:  # it is None in a process that was started without (`2>&-`)
        with suppress(OSError):
            print(f"sse-bridge: {message}", file=sys.stderr, flush=True)


def fail(message: str, code: int = 1) -> int:
    """Says why a command cannot do its work; returns its exit code."""
    say(message)
    return code


def fail_before(message: str, *, as_json: bool) -> int:
    """The same for `run` and `follow` before they have begun: 125, and the last line of JSON."""
    if as_json and sys.stdout is not None:
        # `os.write` passes Python's buffer by, which Python would flush again at its end. If stdout cannot be written,
        # stderr and the exit code still tell.
        with suppress(OSError):
            os.write(sys.stdout.fileno(), json.dumps(error_of("configuration", message)).encode() + b"\n")
    return fail(message, FAILED)


def missing(error: ModuleNotFoundError, package: str, extra: str, fail_with: Callable[[str], int] = fail) -> int:
    """Says what to install, if it is that package that is missing.

    Raises:
        ModuleNotFoundError: another one is.
    """
    if error.name != package:
        raise error
    return fail_with(f'this needs {package}: pip install "sse_bridge[{extra}]"')


def message_of(error: Exception) -> str:
    """What an error says. The user of the command line owns the key, so it names the host and quotes the platform."""
    message = str(getattr(error, "message", error))
    if isinstance(error, UpstreamError):
        if error.upstream_host is not None:
            return message.replace("The upstream", error.upstream_host, 1)
        if error.upstream_message is not None and error.code in _REFUSED:
            return f"{_REFUSED[error.code]}: {error.upstream_message}"
    return message


def words_of(error: Exception) -> str:
    """An error in one line, with its code and the platform's id of the request where it has them."""
    message = message_of(error)
    details = [str(it) for it in (getattr(error, "code", None), getattr(error, "request_id", None)) if it]
    return f"{message} ({', '.join(details)})" if isinstance(error, BridgeError) and details else message


def exit_status(code: int) -> int:
    """An exit code as a process can have it."""
    if 0 <= code <= 255:
        return code
    return 128 - code if -_MOST_SIGNALS < code < 0 else FAILED
