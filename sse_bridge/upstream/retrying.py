"""Asking again: one loop for everything that a platform may refuse for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from anyio import current_time, sleep

from .refusals import Refusal

__all__ = ["READY_BACKOFF", "READY_TIMEOUT", "Backoff", "may_change", "retry"]

T = TypeVar("T")


class Backoff(NamedTuple):
    """Seconds before the second try, and the limit up to which they double."""

    first: float
    most: float


#: Seconds for an upstream that gets ready, or is busy, to open a stream. The SDK waits as long (`docs/miosa.md` §5).
READY_TIMEOUT: Final = 30.0
#: Between the requests meanwhile. MIOSA may hold keys to 60 requests a minute (`docs/miosa.md` §6).
READY_BACKOFF: Final = Backoff(first=0.25, most=4.0)


def may_change(refused: Refusal) -> bool:
    """Whether the answer may change in a moment. Only for requests that may be made again whatever became of them."""
    return refused.is_temporary or refused.upstream_status == 408 or (refused.upstream_status or 0) >= 500


async def retry(
    attempt: Callable[[float], Awaitable[T]],
    may_pass: Callable[[Refusal], bool],
    *,
    backoff: Backoff,
    timeout: float,
) -> T:
    """Makes attempts until one succeeds.

    Args:
        attempt: gets the seconds that are left.
        may_pass: says whether the same request may succeed after this refusal.
        backoff: how long to wait in between. The upstream may ask for longer.
        timeout: seconds for all attempts and waits together. `retry` gives up at once if the next wait would exceed it.

    Raises:
        Refusal: the last one, if another attempt would be useless or too late.
        UpstreamError: any other failure of an attempt.
    """
    give_up = current_time() + timeout
    delay = backoff.first
    while True:
        try:
            return await attempt(give_up - current_time())
        except Refusal as refused:
            wait = max(delay, refused.wait or 0)
            if not may_pass(refused) or current_time() + wait >= give_up:
                raise
        await sleep(wait)
        delay = min(2 * delay, backoff.most)
