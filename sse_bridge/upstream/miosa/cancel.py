"""Ending a command from within its sandbox.

MIOSA documents no cancel for `exec/stream`, and does not promise that closing the stream ends the command
(`docs/miosa.md` §7). So every command starts with a marker in its environment, which its children inherit, and a second
`exec` runs `end.sh` in the sandbox. That loop looks for processes that carry the marker and ends them, with SIGTERM at
first and SIGKILL later, until all are gone, so it also catches a command that starts late or forks meanwhile. It is one
call, because keys have rate limits.

The loop misses three kinds of process: one that dropped the marker, unless the leader of its process group still
carries it; one of another user, whose environment is private; and a chain of processes in which each starts the
next and exits before the loop looks at it (a fork every millisecond, by parents that exit at once).

A viewer that leaves before the platform has answered is still expensive. The request is out, so the command may start
at any time, and until then there is no process to find. The loop looks until its time is up, and if the command fails
to start, its end stays unconfirmed. Only the platform's answer could tell us more, and that connection is closed;
or the command would have to check whether it is still wanted, and we run commands as we are given them.
"""

from __future__ import annotations

import json
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

from ..base import Cancelled
from ..checks import ceil_seconds
from ..refusals import Refusal
from ..retrying import Backoff, retry
from .client import Miosa

__all__ = ["MARKER", "Evidence", "end_marked", "script"]

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


class Evidence(IntEnum):
    """What is known of the command's start. The less it is, the longer the loop waits for the command to turn up.

    The value is the number of empty looks in a row before the command counts as gone.
    """

    #: The request is out, but not answered. The command may start at any time: look as long as there is time.
    NONE = 1_000_000
    #: The stream is open. A platform may answer before it starts the command.
    ANSWERED = 10
    #: Output has arrived, so the command has started.
    OUTPUT = 2


async def end_marked(miosa: Miosa, sandbox: str, token: str, evidence: Evidence, timeout: float) -> Cancelled:
    """Ends all processes that carry the marker, within `timeout` seconds.

    A platform that is busy or broken is asked again while there is time: a second loop is harmless.

    Args:
        sandbox: the sandbox's path below the base URL.
        token: the value of the marker.

    Raises:
        UpstreamError: the platform refused, failed to answer in time, or was out of reach.
    """

    async def call(seconds_left: float) -> Cancelled:
        body = {"command": script(token, evidence, seconds_left), "timeout": ceil_seconds(seconds_left)}
        answer = await miosa.post(f"{sandbox}/exec", body, seconds_left)
        return Cancelled.CONFIRMED if "sse-bridge:gone" in _stdout(answer) else Cancelled.ACKNOWLEDGED

    try:
        return await retry(call, _may_pass, backoff=BACKOFF, timeout=timeout)
    except Refusal as refused:
        if refused.upstream_status == 404:  # the sandbox is gone, and its processes with it
            return Cancelled.CONFIRMED
        raise


def _may_pass(refused: Refusal) -> bool:
    """Whether the answer may change in a moment, whatever became of the call."""
    return refused.is_temporary or refused.upstream_status == 408 or (refused.upstream_status or 0) >= 500


def script(token: str, evidence: Evidence, timeout: float) -> str:
    """The loop as a command for a POSIX shell. Half of its time is for processes that end on SIGTERM."""
    limit = int(100 * max(timeout / 2, timeout - _OVERHEAD))
    parameters = {
        "marker": f"{MARKER}={token}",
        "looks": int(evidence),
        "limit": limit,
        "patience": limit // 2,
        "pause": PAUSE,
        "short_pause": _SHORT_PAUSE,
    }
    return "".join(f"{name}='{value}'\n" for name, value in parameters.items()) + _loop()


@cache
def _loop() -> str:
    """`end.sh`, stripped of comment lines."""
    lines = files(__package__).joinpath("end.sh").read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def _stdout(answer: bytes) -> str:
    """The output in the result of an exec, bare or in an envelope (`docs/miosa.md` §4)."""
    try:
        body: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    result = body.get("data", body) if isinstance(body, dict) else None
    return str(result.get("stdout", "")) if isinstance(result, dict) else ""
