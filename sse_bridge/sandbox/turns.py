"""Which command may run, where a sandbox runs one at a time, as MIOSA's runners do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .errors import ApiError

__all__ = ["Turn"]

#: Milliseconds that runners name for the next attempt to destroy a busy sandbox.
_RETRY_AFTER: Final = 200


class Turn:
    """The right to run a command by `exec` or `exec/stream`.

    Args:
        is_exclusive: one command has it at a time; otherwise every command has it.
    """

    def __init__(self, *, is_exclusive: bool) -> None:
        self._is_exclusive = is_exclusive
        self._is_taken = False

    @contextmanager
    def taken(self) -> Iterator[Callable[[], None]]:
        """Takes the turn for a command. The block gets a function that gives it back before the block ends.

        Raises:
            ApiError: 409, another command has it.
        """
        if self._is_taken:
            raise _busy()
        self._is_taken = mine = self._is_exclusive

        def give_back() -> None:
            nonlocal mine
            if mine:
                self._is_taken = mine = False

        try:
            yield give_back
        finally:
            give_back()

    def demand_free(self) -> None:
        """Refuses what cannot be done beside a command.

        Raises:
            ApiError: 409, a command has the turn.
        """
        if self._is_taken:
            raise _busy(_RETRY_AFTER)


def _busy(retry_after_ms: int | None = None) -> ApiError:
    message = "the sandbox runs another command"
    return ApiError(409, "SANDBOX_BUSY", message, retryable=True, retry_after_ms=retry_after_ms)
