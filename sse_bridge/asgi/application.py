"""What the application decides: its functions, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import anyio.to_thread
from starlette.requests import Request

from ..flow.pace import TokenBucket
from ..flow.policy import Policy
from ..relay.info import Outcome, RunInfo
from .options import ChoosePolicy, ChooseRate, Resolve

__all__ = ["Application", "Authorize", "ChooseKey", "Identify", "OnEnd", "OnStart", "call"]

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


async def call(function: Callable[..., object], *arguments: object, may_abandon: bool = False) -> object:
    """Calls an async function on the event loop, and a sync one in a thread.

    Args:
        may_abandon: whether a cancelled call leaves its thread to itself. Otherwise the call returns with the thread.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        result = function(*arguments)
    else:  # in a tuple, because trio lets no awaitable out of a thread
        (result,) = await anyio.to_thread.run_sync(lambda: (function(*arguments),), abandon_on_cancel=may_abandon)
    return await result if inspect.isawaitable(result) else result
