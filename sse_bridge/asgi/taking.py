"""Takes signals from an event loop of asyncio, which asks no other handler when it hands them to its server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from .signals import Patience, StandIn

__all__ = ["take"]

_Told = Callable[[], Any]


def take(told: Mapping[int, tuple[_Told, Patience]]) -> dict[int, StandIn]:
    """Has the running event loop hand on no such signal any more, and returns what does so in its place.

    Returns nothing if the signals are taken already.

    Args:
        told: what the event loop calls for each signal, and what the server waits for after that.
    """
    loop = asyncio.get_running_loop()
    removed = [loop.remove_signal_handler(number) for number in told]
    if not all(removed):
        return {}
    return {number: StandIn(partial(_tell, loop, call), patience) for number, (call, patience) in told.items()}


def _tell(loop: asyncio.AbstractEventLoop, call: _Told, number: int, frame: FrameType | None) -> None:
    with suppress(RuntimeError):  # the event loop is closed
        loop.call_soon_threadsafe(call)
