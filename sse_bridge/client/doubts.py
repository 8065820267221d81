"""Starts that may have happened, for the error that says so. Sans-IO."""

from __future__ import annotations

from typing import Final

from .errors import RunLost
from .refusals import status_line

__all__ = ["START_AGAIN", "Doubts"]

#: Seconds in which a start is repeated that may have happened, from when it was sent first. A bridge knows the key for
#: `keep` seconds (60) after the run's end at the least; later, the same key could start a second command.
START_AGAIN: Final = 30.0


class Doubts:
    """What was answered to starts that may have happened.

    Args:
        method: of the start.
    """

    def __init__(self, method: str) -> None:
        self._statuses: set[int] = set()
        self._method = method

    def add(self, status: int) -> None:
        """A proxy or a server answered that; 0 if the answer was lost."""
        self._statuses.add(status)

    def error(self, trouble: Exception | None) -> RunLost:
        """The error behind which the reader does not know whether a command runs. `trouble` is its cause."""
        advice = " Start with POST, which can be repeated." if self._method == "GET" else ""
        error = RunLost(self._reason() + advice, code="start_unknown")
        error.__cause__ = trouble
        return error

    def _reason(self) -> str:
        if 0 in self._statuses:
            return "The answer to the start was lost, so a command may be running."
        answers = " or ".join(map(status_line, sorted(self._statuses)))
        often = f" each time for {START_AGAIN:g} seconds" if self._method == "POST" else ""
        return f"The server answered {answers}{often}, so it is not known whether a command runs. See the server's log."
