"""What can go wrong while a run is followed.

BridgeError
 └── FollowError              everything below
      ├── RunRefused          the bridge, or something in front of it, refused a request
      │    ├── RunUnknown     the bridge does not know the run: it expired, or never was
      │    └── KeyRefused     the idempotency key stands for something else (also a `KeyConflict`)
      ├── RunFailed           the run ended without an exit code
      ├── EventsMissing       output is missing
      └── RunLost             the run could not be followed to its end
"""

from __future__ import annotations

from ..errors import BridgeError, KeyConflict

__all__ = ["EventsMissing", "FollowError", "KeyRefused", "RunFailed", "RunLost", "RunRefused", "RunUnknown"]


class FollowError(BridgeError):
    """The run was not followed to its exit. Every argument is an attribute of the same name.

    Args:
        message: one sentence for people.
        code: one word in snake_case for programs.
        status: the HTTP status of the answer; `None` if the error is no answer.
        request_id: the platform's id of the failed request, for its support; `None` if unknown.
        run: the run's token; `None` if it is unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        request_id: str | None = None,
        run: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.run = run

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class RunRefused(FollowError):
    """The bridge, or something in front of it, refused a request."""


class RunUnknown(RunRefused):
    """The bridge does not know the run: it expired, it is another user's, or it never was."""


class KeyRefused(RunRefused, KeyConflict):
    """The idempotency key stands for something else. Use a new key for each thing to run."""


class RunFailed(FollowError):
    """The run ended without an exit code: by an `error` frame, or by an exit without a number."""


class EventsMissing(FollowError):
    """Output is missing: the bridge said so with a `gap`, or numbers of frames were skipped.

    Args:
        dropped: how many frames; `None` if that is unknown.
    """

    def __init__(self, message: str, *, code: str, dropped: int | None, run: str | None = None) -> None:
        super().__init__(message, code=code, run=run)
        self.dropped = dropped


class RunLost(FollowError):
    """The run could not be followed to its end. The command may still be running, and may have succeeded or failed.

    `code` says why: `gave_up`, `not_resumable`, `start_unknown` or `end_unknown`.
    """
