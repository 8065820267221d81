"""When to ask again, and when to give up. Sans-IO."""

from __future__ import annotations

from math import inf
from random import uniform
from typing import Final

__all__ = ["Waits"]

#: Seconds to wait before a request is made again: at most so long at first, then doubling up to the limit. Each wait is
#: random up to that, so that clients that lost one server do not return as one (AWS calls it full jitter).
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 4.0
#: Seconds after which a connection without news counts as one that worked. The bridge's own streams use the same.
_STEADY: Final = 10.0


class Waits:
    """When to ask again, and when to give up.

    Args:
        give_up_after: seconds without news.
    """

    def __init__(self, give_up_after: float) -> None:
        #: Whether a start was sent, and neither answered nor lost.
        self.is_asked = False
        self._give_up_after = give_up_after
        self._failures = -1  # attempts since the last news; none yet
        self._asked_to = 0.0
        self._last_news: float | None = None
        self._opened_at = inf
        self._asks_at = 0.0
        self._unsure_since: float | None = None
        self._is_at_once = False

    def next(self, now: float, retry: float | None) -> float | None:
        """Seconds until the next attempt; `None` if that would be too late."""
        pause = self._pause(now, retry)
        self._asks_at = now + (pause or 0.0)
        return pause

    def _pause(self, now: float, retry: float | None) -> float | None:
        if self._last_news is None:
            self._last_news = now
        if self._is_at_once or self._failures < 0:
            self._is_at_once = False
            self._failures = max(0, self._failures)
            return 0.0
        growing = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(self._failures, 16))
        pause = max(retry or 0.0, self._asked_to) + uniform(0, growing)
        self._failures += 1
        self._asked_to = 0.0
        return pause if now + pause < self._last_news + self._give_up_after else None

    def at_once(self) -> None:
        """The next attempt is the second half of this one."""
        self._is_at_once = True

    def asked_to(self, seconds: float | None) -> None:
        """The server names a time to wait."""
        self._asked_to = seconds or 0.0

    def opened(self, now: float) -> None:
        """A stream has begun."""
        self._opened_at = now

    def news(self, now: float) -> None:
        """An event came that was not seen before."""
        self._last_news = now
        self._failures = 0

    def closed(self, now: float) -> None:
        """The stream has ended. If it was long, its connection worked."""
        if now - self._opened_at >= _STEADY:
            self.news(now)

    def unsure(self) -> None:
        """The start that was sent after the last wait may have happened. The first such one counts."""
        if self._unsure_since is None:
            self._unsure_since = self._asks_at

    def unsure_for(self, now: float) -> float:
        """Seconds since the first start that may have happened; 0 if there is none."""
        return 0.0 if self._unsure_since is None else now - self._unsure_since
