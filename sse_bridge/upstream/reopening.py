"""Opening a stream again that broke off: at once, then with growing and jittered waits, and only so long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from math import inf
from random import uniform
from typing import Final

from anyio import current_time, move_on_after, sleep

from ..errors import UpstreamError, UpstreamLost, UpstreamTimeout, UpstreamUnreachable
from .base import Interruption, Stream
from .retrying import Backoff, may_change, retry

__all__ = ["REOPEN_TIMEOUT", "Opened", "Reopening"]

#: Seconds after which a stream that stays broken is given up: as long as a run waits for its viewers (`keep`).
REOPEN_TIMEOUT: Final = 60.0
#: Between attempts. Browsers wait some seconds (WHATWG HTML 9.2.2); MIOSA may hold keys to 60 requests a minute.
REOPEN_BACKOFF: Final = Backoff(first=0.25, most=4.0, jitter=1.0)
#: Seconds after which a stream that breaks off has worked, even without news: proxies cut what is silent for a minute,
#: and a script may be silent for hours. Docker resets the growing waits before restarts after the same time.
_STEADY: Final = 10.0

#: A stream, and the context to leave in the end.
Opened = tuple[AbstractAsyncContextManager[Stream], Stream]


class Reopening:
    """The attempts of one run to follow its work further.

    The first attempt after a stream that brought news and was lost is made at once, unless that stream was itself one
    that had only just been opened again: some upstreams greet each connection with an event. A stream that breaks off
    right away and brings no news counts as an attempt that failed, so an upstream that accepts each time is given up,
    too.

    Args:
        timeout: seconds without a stream that works until the stream is given up.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._opened_at = -inf
        self._give_up_at = inf

    async def open(self, interruption: Interruption, attempt: Callable[[float], Awaitable[Opened]]) -> Opened:
        """Makes attempts until one succeeds.

        Raises:
            UpstreamError: the last attempt's. A `Refusal` may say that the stream is over.
        """
        now = current_time()
        was_steady = now - self._opened_at >= _STEADY
        if interruption.was_fruitful or was_steady:
            self._give_up_at = now + self._timeout
        pause = interruption.retry or 0.0
        if interruption.lost is None or not (interruption.was_fruitful and was_steady):
            pause = max(pause, uniform(REOPEN_BACKOFF.first, REOPEN_BACKOFF.most))
        given_up = interruption.lost or UpstreamLost("The upstream ended its stream again and again.")
        if now + pause >= self._give_up_at:
            raise given_up
        await sleep(pause)
        left = self._give_up_at - current_time()
        with move_on_after(left):  # an answer to a single attempt may take longer
            opened = await retry(attempt, _may_pass, backoff=REOPEN_BACKOFF, timeout=left)
            self._opened_at = current_time()
            return opened
        raise given_up


def _may_pass(error: UpstreamError) -> bool:
    """Whether the stream may be opened in a moment. To follow it starts nothing."""
    return isinstance(error, UpstreamUnreachable | UpstreamTimeout) or may_change(error)
