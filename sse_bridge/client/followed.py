"""What is known of a run that is being followed, with and without an event loop."""

from __future__ import annotations

from typing import Generic, TypeVar

from .course import Course
from .options import Settings

__all__ = ["Followed"]

T = TypeVar("T")


class Followed(Generic[T]):
    """What both kinds of followed runs know. See `FollowedRun`."""

    def __init__(self, settings: Settings, course: Course[T]) -> None:
        self._settings = settings
        self._course = course

    @property
    def exit_code(self) -> int | None:
        """The command's exit code. `None` while it runs, and for a stream without a command."""
        return self._course.exit.code

    @property
    def timed_out(self) -> bool:
        """Whether the platform ended the command because its time was up. MIOSA gives it the exit code -1."""
        return self._course.exit.timed_out

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, and all of it was read."""
        return self._course.is_over

    @property
    def token(self) -> str | None:
        """The run's name; `None` before it is known."""
        return self._course.reader.token or None

    @property
    def url(self) -> str | None:
        """The run's own address, which other clients can follow; `None` before it is known."""
        url = self._course.run_url
        return None if url is None else str(url)
