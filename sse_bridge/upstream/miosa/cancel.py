"""Ending a command that the platform has no way to end.

MIOSA documents no cancel for `exec/stream`, and does not promise that closing the stream ends the command
(`miosa-wire.md` §3). So every command is started with a marker in its environment, which its children inherit, and
a second `exec` looks for processes that carry it and ends them: SIGTERM once, SIGKILL after a while, again and
again until none is left, so that a command which starts late, or forks while we look, is caught too. It is one
call, since keys have rate limits; the loop runs in the sandbox.

What it cannot see: a process that dropped the marker from its environment, unless the leader of its process group
still has it; processes of another user that it may not look at; and a chain of processes of which each has started the
next and is gone before the look gets to it (a fork every millisecond, and no parent that stays).

What stays expensive is a viewer that leaves before the platform has answered. The request is out, the command may start
at any time, and one that has not started yet leaves nothing to look for. So the loop looks until its time is up, and
where nothing ever starts the ending stays unconfirmed. Only the platform's answer could tell (the connection is closed
by then), or a command that looks first whether it is still wanted; what we are given to run we do not change.
"""

from __future__ import annotations

import json
from enum import IntEnum
from string import Template
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..base import Cancelled
from ..client import ceil_seconds
from ..refusals import Refusal

if TYPE_CHECKING:
    from .client import Miosa

__all__ = ["MARKER", "Evidence", "end_marked"]

#: The variable that every command gets.
MARKER: Final = "SSE_BRIDGE_EXEC"

#: Seconds between two looks, the same when the time is up, and seconds kept back for these and for the call itself
#: (half of the time, if there is no more than a second).
_INTERVAL: Final = 0.1
_SHORT_INTERVAL: Final = 0.03
_OVERHEAD: Final = 0.5

#: Seconds before the call is made a second time, doubled up to the limit: five calls in five seconds, since keys may be
#: held to 60 requests a minute (`miosa-wire.md` §1.5).
_FIRST_DELAY: Final = 0.25
_MAX_DELAY: Final = 2.0


class Evidence(IntEnum):
    """What is known of the command's start: the less, the longer the loop waits for it to turn up.

    The value is the number of looks without a process, one after the other, before the command counts as gone.
    """

    #: The request went out; there is no answer. It may start at any time: look for as long as there is time.
    NONE = 1_000_000
    #: The stream was opened. A platform may answer before it starts the command.
    ANSWERED = 10
    #: There was output, so it has started.
    OUTPUT = 2


# Shell built-ins, grep and sleep: what the smallest image has. Zombies have no environment and count as gone.
# A process group counts as ours once its leader carries the marker, so `env -i` in a script does not escape. Looking at
# every process is what costs (a shell reads a byte a system call), so that waits until one was found. Time is what
# /proc/uptime says, in hundredths of a second; where there is none, a look counts as a tenth. Where there is nothing to
# look at or to look with, nothing is said to be gone. When the time is up, what was seen gets its SIGKILL and a few
# more looks: it takes two without a process to be sure, and to say `left` of what is dead would be a false alarm.
_SCRIPT: Final = Template(r"""
marker='$marker=$token' quiet=0 now=0 late=0 pause=$interval seen= told=' ' groups=' '
look_at_clock() {
  if { read -r up rest < /proc/uptime; } 2>/dev/null
  then now=$$(($${up%.*} * 100 + 1$${up#*.} - 100))  # the 1 keeps "0.08" from being octal
  else now=$$((now + 10))
  fi
}
grep -q . /proc/$$$$/stat 2>/dev/null || { echo sse-bridge:left; exit 1; }
look_at_clock
end=$$((now + $limit)) patience=$$((now + $patience))
while :; do
  alive= marked=' '
  for file in $$(grep -lsF -- "$$marker" /proc/[0-9]*/environ); do
    pid=$${file#/proc/}; marked="$$marked$${pid%/environ} "
  done
  if [ "$$marked$$groups" != '  ' ]; then
    for dir in /proc/[0-9]*; do
      { read -r stat < $$dir/stat; } 2>/dev/null || continue
      pid=$${dir#/proc/}
      set -- $${stat##*) }
      [ "$$1" = Z ] && continue
      case $$marked in
        *" $$pid "*) [ "$$3" = "$$pid" ] && groups="$$groups$$pid " ;;
        *) case $$groups in *" $$3 "*) ;; *) continue ;; esac ;;
      esac
      alive="$$alive $$pid"
    done
  fi
  if [ -n "$$alive" ]; then
    seen=1 quiet=0
    for pid in $$alive; do
      if [ $$now -gt $$patience ]; then kill -KILL $$pid 2>/dev/null
      else case $$told in
        *" $$pid "*) ;;
        *) kill -TERM $$pid 2>/dev/null; told="$$told$$pid " ;;
      esac; fi
    done
  else
    quiet=$$((quiet + 1))
    if [ $$quiet -ge $quiet ] || { [ -n "$$seen" ] && [ $$quiet -ge 2 ]; }; then echo sse-bridge:gone; exit 0; fi
  fi
  if [ $$now -ge $$end ]; then
    late=$$((late + 1)) pause=$short_interval
    if [ -z "$$seen" ] || [ $$late -ge 5 ]; then break; fi
  fi
  sleep $$pause 2>/dev/null || [ $$late -gt 0 ] || sleep 1
  look_at_clock
done
echo sse-bridge:left; exit 1
""")


async def end_marked(miosa: Miosa, sandbox: str, token: str, evidence: Evidence, timeout: float) -> Cancelled:
    """Ends what carries the marker, within `timeout` seconds.

    A platform that is busy or broken is asked again as long as there is time: a second loop does no harm.

    Args:
        sandbox: the sandbox's path below the base URL.

    Raises:
        UpstreamError: the platform could not be asked, or did not answer.
    """
    give_up = anyio.current_time() + timeout
    delay = _FIRST_DELAY
    while True:
        try:
            return await _call(miosa, sandbox, token, evidence, give_up - anyio.current_time())
        except Refusal as refused:
            if refused.upstream_status == 404:  # no sandbox, no command
                return Cancelled.CONFIRMED
            wait = max(delay, refused.wait or 0)
            if not _is_passing(refused) or anyio.current_time() + wait >= give_up:
                return Cancelled.REQUESTED
        await anyio.sleep(wait)
        delay = min(2 * delay, _MAX_DELAY)


async def _call(miosa: Miosa, sandbox: str, token: str, evidence: Evidence, timeout: float) -> Cancelled:
    body = {"command": script(token, evidence, timeout), "timeout": ceil_seconds(timeout)}
    answer = await miosa.post(f"{sandbox}/exec", body, timeout)
    return Cancelled.CONFIRMED if "sse-bridge:gone" in _stdout(answer) else Cancelled.ACKNOWLEDGED


def _is_passing(refused: Refusal) -> bool:
    """Whether the answer may be another one in a moment, whatever became of the call."""
    return refused.is_temporary or refused.upstream_status == 408 or (refused.upstream_status or 0) >= 500


def script(token: str, evidence: Evidence, timeout: float) -> str:
    """The loop, for a POSIX shell. Half of its time is for those who end when they are asked to."""
    limit = int(100 * max(timeout / 2, timeout - _OVERHEAD))
    return _SCRIPT.substitute(
        marker=MARKER,
        token=token,
        limit=limit,
        patience=limit // 2,
        quiet=int(evidence),
        interval=_INTERVAL,
        short_interval=_SHORT_INTERVAL,
    )


def _stdout(answer: bytes) -> str:
    """The output in a bare or wrapped exec result (`miosa-wire.md` §4)."""
    try:
        body: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    result = body.get("data", body) if isinstance(body, dict) else None
    return str(result.get("stdout", "")) if isinstance(result, dict) else ""
