"""What an operator reads in the log about a run: its start, its end, and why it failed.

INFO for what happens on a healthy day, WARNING for what an operator has to mend.
Keys, command lines and output stay out.
"""

from __future__ import annotations

import logging
from typing import Final

from ..causes import log_cause
from ..errors import UpstreamError
from ..upstream.base import Source, Traceable, Work
from .info import Outcome, RunFacts

__all__ = ["broken_off", "discarded", "ended", "failed", "name_of", "resumed", "source_of", "started"]

logger: Final = logging.getLogger("sse_bridge")

#: Codes of failures that lie with the request, or pass by themselves.
_EXPECTED: Final = frozenset({"busy", "not_found", "not_ready", "not_running", "upstream_finished"})
_PACKAGE: Final = __name__.partition(".")[0]
#: Characters of a code or an identity that others chose. More would only blur the line.
_MOST_SHOWN: Final = 100


def name_of(token: str) -> str:
    """A run's name for logs. The whole token lets its holder follow and cancel the run."""
    return token[:6]


def started(facts: RunFacts, work: Work) -> None:
    """The upstream has said yes."""
    mark = f", {work.mark}" if isinstance(work, Traceable) else ""
    logger.info("run %s...: started%s %s", name_of(facts.token), mark, _Whose(facts))


def resumed(facts: RunFacts) -> None:
    """Its stream had broken off, and was opened again."""
    logger.info("run %s...: its stream was interrupted, and is followed again", name_of(facts.token))


def failed(facts: RunFacts, error: UpstreamError) -> None:
    """The upstream refused, or its stream broke off."""
    level = logging.INFO if error.code in _EXPECTED else logging.WARNING
    if error.upstream_host is not None:
        logger.log(level, "run %s...: %s (no answer from %s)", name_of(facts.token), error.code, error.upstream_host)
    else:
        logger.log(
            level,
            "run %s...: %s (upstream status %s, request %s)",
            name_of(facts.token),
            error.code,
            error.upstream_status,
            error.request_id,
        )
    log_cause(error, "run %s...: the cause", name_of(facts.token))


def discarded(facts: RunFacts, size: int) -> None:
    """An upstream frame was larger than `max_frame_size`."""
    logger.warning("run %s...: discarded a frame of %d bytes, above max_frame_size", name_of(facts.token), size)


def broken_off(facts: RunFacts, outcome: Outcome) -> None:
    """The upstream's last frame was an error: its stream failed, or its command could not be run."""
    if outcome.error is not None:
        logger.warning("run %s...: its upstream reported %s", name_of(facts.token), _shown(outcome.error))


def ended(facts: RunFacts, outcome: Outcome) -> None:
    """The run has left no work running, or has stopped waiting for its work to end."""
    logger.info(
        "run %s...: %s after %.1f s and %d lines%s %s",
        name_of(facts.token),
        _how(outcome),
        outcome.duration,
        outcome.lines,
        "" if outcome.cancelled is None else f", its work was ended ({outcome.cancelled.value})",
        _Whose(facts),
    )


def _how(outcome: Outcome) -> str:
    """The error's code, or the exit. The -1 of a command that timed out is not its own."""
    if outcome.error is not None:
        return _shown(outcome.error)
    if outcome.timed_out:
        return "timed out" if outcome.exit_code in (None, -1) else f"timed out (exit {outcome.exit_code})"
    return "ended" if outcome.exit_code is None else f"exit {outcome.exit_code}"


class _Whose:
    """A run's source and owner, spelled only if the line is written."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts

    def __str__(self) -> str:
        owner = "" if self._facts.owner is None else f", owner {_shown(self._facts.owner)}"
        return f"[{source_of(self._facts.source)}{owner}]"


def source_of(source: Source) -> str:
    """`repr` of the package's own sources, which leaves secrets out. For other sources their class: `repr` of a
    dataclass shows every field, and one of them may be a command.
    """
    is_own = type(source).__module__.partition(".")[0] == _PACKAGE
    return repr(source) if is_own else type(source).__qualname__


def _shown(text: str) -> str:
    """A text that others chose, on one line."""
    shown = text[:_MOST_SHOWN]
    return shown if shown.isidentifier() else repr(shown)
