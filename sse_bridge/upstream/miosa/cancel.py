"""Ending a command from within its sandbox.

MIOSA documents no cancel for `exec/stream`, and does not promise that closing the stream ends the command
(`docs/miosa.md` §7). So every command starts with a marker in its environment, which its children inherit, and a second
`exec` runs `end.sh` in the sandbox. That loop looks for processes that carry the marker, and for those that are tied to
them, and ends them, with SIGTERM at first and SIGKILL later, until all are gone. So it also catches a command that
starts late or forks meanwhile. It is one call, because keys have rate limits.

The loop claims only what it saw. A command that drops its marker (`exec env -i ...`) is not found, and this proves
nothing: while its stream was open, it existed. `docs/miosa.md` §7 says what can hide, and what is reported then.
Commands are run as they are given to us. A line after the command (`exit $?`) would keep the marker in its shell, but
the shell would then report signals on stderr, and would take the line for the rest of one that ends in a backslash, or
for part of a here-document that lacks its end.

A viewer that leaves before the platform has answered is still expensive. The request is out, so the command may start
at any time, and until then there is no process to find. The loop looks until its time is up, and if the command fails
to start, its end stays unconfirmed. Only the platform's answer could tell us more, and that connection is closed.
"""

from __future__ import annotations

import json
import re
from enum import Enum, IntEnum
from functools import cache
from importlib.resources import files
from math import inf
from typing import Any, Final

from anyio import current_time

from ...errors import UpstreamError
from ..base import Cancelled
from ..checks import ceil_seconds
from ..refusals import Refusal
from ..retrying import Backoff, may_change, retry
from .client import Miosa

__all__ = ["BACKOFF", "MARKER", "Evidence", "Finding", "end_marked", "look_for", "script"]

#: The environment variable that every command gets.
MARKER: Final = "SSE_BRIDGE_EXEC"

#: Seconds between two looks of the loop.
PAUSE: Final = 0.1
#: Seconds between two looks once the time is up.
_SHORT_PAUSE: Final = 0.03
#: Seconds kept back for the last looks and for the call itself (half of the time, if that is a second or less).
_OVERHEAD: Final = 0.5

#: Between calls that fail for the moment: five in five seconds, because keys may be held to 60 requests a minute
#: (`docs/miosa.md` §6).
BACKOFF: Final = Backoff(first=0.25, most=2.0)

#: The code of the 409 of a sandbox that runs one command at a time.
_BUSY: Final = "SANDBOX_BUSY"
#: The code of the 409 of a sandbox that is stopped, or destroyed.
_NOT_RUNNING: Final = "SANDBOX_NOT_RUNNING"
#: Statuses of a sandbox that does not exist, so none of its processes does.
_NO_SANDBOX: Final = frozenset({404, 410})
#: Seconds; four months. In hundredths it still fits into the 32 bits of small shells.
_OLDEST: Final = 10_000_000.0


class Evidence(IntEnum):
    """What is known of the command's start. The less it is, the longer the loop waits for the command to turn up.

    The value is the number of empty looks in a row before the loop gives up on a command that it never saw.
    """

    #: The request is out, but not answered. The command may start at any time: look as long as there is time.
    NONE = 1_000_000
    #: The stream is open. A platform may answer before it starts the command.
    ANSWERED = 10
    #: Output has arrived, so the command has started.
    OUTPUT = 2


class Finding(Enum):
    """What came of the attempt to end a command, and how far it got. The second value is for people."""

    UNANSWERED = (Cancelled.REQUESTED, "the platform did not answer in time whether it searched for it")
    REFUSED = (Cancelled.REQUESTED, "the platform refused to search for it")
    BUSY = (Cancelled.REQUESTED, "the sandbox runs one command at a time, so the search for it could not run")
    UNCLEAR = (Cancelled.ACKNOWLEDGED, "the search for it said nothing that we know")
    BLIND = (Cancelled.ACKNOWLEDGED, "the search for it could not see all processes of the sandbox")
    UNSEEN = (Cancelled.ACKNOWLEDGED, "no process with its marker was found, so it may have dropped it")
    LEFT = (Cancelled.ACKNOWLEDGED, "some of its processes were left, or may have been")
    GONE = (Cancelled.CONFIRMED, "its processes are gone")

    def __init__(self, outcome: Cancelled, words: str) -> None:
        self.outcome = outcome
        self.words = words


#: The last words of `end.sh`.
_SAID: Final = re.compile(r"^sse-bridge:(gone|left|unseen|blind)\s*$", re.MULTILINE)


async def end_marked(
    miosa: Miosa,
    sandbox: str,
    token: str,
    evidence: Evidence,
    timeout: float,
    *,
    asked_at: float = -inf,
    has_ended: bool = False,
) -> Finding:
    """Ends the processes of the command that carries the marker, within `timeout` seconds.

    A platform that is broken or not ready is asked again while there is time: a second loop is harmless. A sandbox that
    is busy with its one command is asked once, since only the end of that command would change the answer.

    Args:
        sandbox: the sandbox's path below the base URL.
        token: the value of the marker.
        asked_at: when the command was asked for, by the clock of the event loop.
        has_ended: see `script`.

    Raises:
        UpstreamError: the platform refused, failed to answer in time, or was out of reach.
    """

    async def call(seconds_left: float) -> Finding:
        age = current_time() - asked_at + seconds_left  # it may take as long until the loop begins
        command = script(token, evidence, seconds_left, age=age, has_ended=has_ended)
        body = {"command": command, "timeout": ceil_seconds(seconds_left)}
        result = _result(await miosa.post(f"{sandbox}/exec", body, seconds_left))
        said = _SAID.findall(str(result.get("stdout", "")))
        return Finding[said[-1].upper()] if said else Finding.UNCLEAR

    try:
        return await retry(call, _may_pass, backoff=BACKOFF, timeout=timeout)
    except Refusal as refused:
        if refused.upstream_status in _NO_SANDBOX:
            return Finding.GONE
        if refused.upstream_code == _NOT_RUNNING and await _is_destroyed(miosa, sandbox, timeout):
            return Finding.GONE
        if refused.upstream_code == _BUSY:
            return Finding.BUSY
        raise


async def _is_destroyed(miosa: Miosa, sandbox: str, timeout: float) -> bool:
    """Whether the sandbox is gone for good. One that is merely stopped may go on where it was."""
    headers = miosa.headers("application/json")
    try:
        answer = await miosa.ask("GET", miosa.address(sandbox), headers=headers, json=None, timeout=timeout)
    except Refusal as refused:
        return refused.upstream_status in _NO_SANDBOX
    return _result(answer).get("state") == "destroyed"


def _may_pass(error: UpstreamError) -> bool:
    """Whether the answer may change in a moment, whatever became of the call."""
    return may_change(error) and not (isinstance(error, Refusal) and error.upstream_code == _BUSY)


def look_for(token: str) -> str:
    """A command line that lists the processes which carry the marker. For operators, and any POSIX shell."""
    return (
        "for p in /proc/[0-9]*; do tr '\\0' '\\n' 2>/dev/null <$p/environ"
        f" | grep -qx {MARKER}={token} && echo ${{p#/proc/}}; done"
    )


def script(token: str, evidence: Evidence, timeout: float, *, age: float = inf, has_ended: bool = False) -> str:
    """The loop as a command for a POSIX shell. Half of its time is for processes that end on SIGTERM.

    Args:
        age: seconds. Of processes that are older, only those with the marker are the command's.
        has_ended: the platform has ended the stream, so it has seen the command end. Only then is a command gone that
            the loop never saw.
    """
    limit = int(100 * max(timeout / 2, timeout - _OVERHEAD))
    parameters = {
        "marker": f"{MARKER}={token}",
        "age": int(100 * min(age, _OLDEST)) + 1,
        "looks": int(evidence),
        "unseen": "gone" if has_ended else "unseen",
        "limit": limit,
        "patience": limit // 2,
        "pause": PAUSE,
        "short_pause": _SHORT_PAUSE,
    }
    return "".join(f"{name}='{value}'\n" for name, value in parameters.items()) + _loop()


@cache
def _loop() -> str:
    """`end.sh` without what only its readers need: comments, indentation, and the check of its parameters."""
    lines = files(__package__).joinpath("end.sh").read_text("utf-8").splitlines()
    code = (re.sub(r"(^|\s+)#( |!|$).*", "", line.strip()) for line in lines)
    return "\n".join(line for line in code if line and not line.startswith(": "))


def _result(answer: bytes) -> dict[str, Any]:
    """The result of a call, bare or in an envelope (`docs/miosa.md` §4). Empty if it cannot be read."""
    try:
        body: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    result = body.get("data", body) if isinstance(body, dict) else None
    return result if isinstance(result, dict) else {}
