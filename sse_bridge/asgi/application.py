"""What the application decides: its functions, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from starlette.requests import Request

from ..flow.pace import TokenBucket
from ..flow.policy import Policy
from ..relay.info import Outcome, RunInfo
from .options import ChoosePolicy, ChooseRate, Resolve

__all__ = [
    "Application",
    "Authorize",
    "ChooseKey",
    "Identify",
    "OnEnd",
    "OnStart",
    "Purpose",
    "Threads",
    "call",
]

#: Threads for each purpose. As many as anyio's default limiter has, from which Starlette serves its sync endpoints.
_THREADS: Final = 40

Identify: TypeAlias = Callable[[Request], str | Awaitable[str | None] | None]
ChooseKey: TypeAlias = Callable[[Request], str | Awaitable[str | None] | None]
Authorize: TypeAlias = Callable[[Request, RunInfo], bool | Awaitable[bool]]
OnStart: TypeAlias = Callable[[RunInfo], object]
OnEnd: TypeAlias = Callable[[RunInfo, Outcome], object]


@dataclass(frozen=True, slots=True)
class Application:
    """What the application was asked to decide. Functions may be sync or async; sync ones run in a thread."""

    resolve: Resolve
    identify: Identify | None
    authorize: Authorize | None
    key: ChooseKey | None
    policy: Policy | ChoosePolicy
    rate: TokenBucket | ChooseRate | None


class Purpose(Enum):
    """What a function of the application's is called for. Each purpose has threads of its own."""

    #: Starting a run. Here functions ask platforms and databases, and may hang.
    STARTING = auto()
    #: Following, resuming or ending a run.
    RETURNING = auto()
    ON_START = auto()
    ON_END = auto()


class Threads:
    """The threads of one bridge for sync functions, in each event loop.

    anyio's default limiter is left to the application, whose own endpoints use it.
    """

    def __init__(self) -> None:
        self._limiters: RunVar[dict[Purpose, CapacityLimiter]] = RunVar("sse_bridge.threads")

    def limiter(self, purpose: Purpose) -> CapacityLimiter:
        """The limiter of the running event loop."""
        limiters = self._limiters.get(None)
        if limiters is None:
            limiters = {each: CapacityLimiter(_THREADS) for each in Purpose}
            self._limiters.set(limiters)
        return limiters[purpose]


async def call(
    function: Callable[..., object], *arguments: object, limiter: CapacityLimiter, may_abandon: bool = False
) -> object:
    """Calls an async function on the event loop, and a sync one in a thread.

    Args:
        limiter: bounds the threads.
        may_abandon: whether a cancelled call leaves its thread to itself. Otherwise the call returns with the thread.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        result = function(*arguments)
    else:  # in a tuple, because trio lets no awaitable out of a thread
        (result,) = await anyio.to_thread.run_sync(
            lambda: (function(*arguments),), abandon_on_cancel=may_abandon, limiter=limiter
        )
    return await result if inspect.isawaitable(result) else result
