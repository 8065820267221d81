"""Asking again: one loop for everything that a platform may refuse for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from anyio import current_time, sleep
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential, wait_random

from ..errors import UpstreamError
from .refusals import Refusal

__all__ = ["READY_BACKOFF", "READY_TIMEOUT", "Backoff", "is_temporary", "may_change", "retry"]

T = TypeVar("T")


class Backoff(NamedTuple):
    """Seconds before the second try, and the limit up to which they double."""

    first: float
    most: float
    #: Seconds by which each wait may be longer, at random, so that those who lost one upstream do not return as one.
    jitter: float = 0.0


#: Seconds for an upstream that gets ready, or is busy, to open a stream. The SDK waits as long (`docs/miosa.md` §5).
READY_TIMEOUT: Final = 30.0
#: Between the requests meanwhile. MIOSA may hold keys to 60 requests a minute (`docs/miosa.md` §6).
READY_BACKOFF: Final = Backoff(first=0.25, most=4.0)


def is_temporary(error: UpstreamError) -> bool:
    """Whether the upstream says that it did nothing, and may do it in a moment."""
    return isinstance(error, Refusal) and error.is_temporary


def may_change(error: UpstreamError) -> bool:
    """Whether the answer may change in a moment. Only for requests that may be made again whatever became of them."""
    return isinstance(error, Refusal) and (
        error.is_temporary or error.upstream_status == 408 or (error.upstream_status or 0) >= 500
    )


async def retry(
    attempt: Callable[[float], Awaitable[T]],
    may_pass: Callable[[UpstreamError], bool],
    *,
    backoff: Backoff,
    timeout: float,
) -> T:
    """Makes attempts until one succeeds.

    Args:
        attempt: gets the seconds that are left.
        may_pass: says whether the same request may succeed after this error.
        backoff: how long to wait in between. The upstream may ask for longer.
        timeout: seconds for all attempts and waits together. `retry` gives up at once if the next wait would exceed it.

    Raises:
        UpstreamError: the last one, if another attempt would be useless or too late.
    """
    give_up = current_time() + timeout
    growing = wait_exponential(multiplier=backoff.first, max=backoff.most) + wait_random(0, backoff.jitter)

    def wait(state: RetryCallState) -> float:
        assert state.outcome is not None
        error = state.outcome.exception()
        return max(growing(state), (isinstance(error, Refusal) and error.wait) or 0.0)

    async def one() -> T:
        return await attempt(give_up - current_time())

    asking = AsyncRetrying(
        sleep=sleep,
        wait=wait,
        stop=lambda state: current_time() + state.upcoming_sleep >= give_up,
        retry=retry_if_exception(lambda error: isinstance(error, UpstreamError) and may_pass(error)),
        reraise=True,
    )
    return await asking(one)
