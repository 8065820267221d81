"""What is special about granian: where its workers take signals from, and what a second one does to them.

A worker takes SIGTERM and SIGINT from the event loop, which asks no other handler. So nothing could keep a signal from
granian while there is work that it does not wait for.

Each signal calls `WorkerSignal.set`, and a second call that comes while granian acts on the first may never return
(2.8). The event loop stands still then, and the worker's commands run on until it is killed. A worker gets two signals
at each Ctrl-C: one from the terminal, one from its parent. The same happens where a service manager signals all
processes. One of eight stops hung so.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from .signals import Patience, StandIn

__all__ = ["stand_in"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_WORKERS: Final = "granian.server.mp"


def stand_in() -> StandIn | None:
    """Takes the signals from the event loop of a granian worker, and returns what tells granian to stop, once.

    Returns `None` if they are taken already, and for other servers.
    """
    tell = _stop_of_worker()
    if tell is None:
        return None
    loop = asyncio.get_running_loop()
    removed = [loop.remove_signal_handler(number) for number in _SIGNALS]
    if not all(removed):
        return None
    once = functools.cache(tell)

    def stop(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(once)

    return StandIn(_SIGNALS, stop, Patience.CONNECTIONS)


def _stop_of_worker() -> Callable[[], object] | None:
    """What tells the granian worker to stop whose event loop calls this."""
    if _WORKERS not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == _WORKERS:
            event: Any = frame.f_locals.get("shutdown_event")
            if event is not None:
                return event.set  # type: ignore[no-any-return]
        frame = frame.f_back
    return None
