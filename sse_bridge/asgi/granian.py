"""What is special about granian: where its workers take signals from, and what a second one does to them.

A worker takes SIGTERM and SIGINT from the event loop. So nothing could keep a signal from granian while there is work
that it does not wait for.

Each signal calls `WorkerSignal.set`, and a second call that comes while granian acts on the first may never return
(2.8). The event loop stands still then, and the worker's commands run on until it is killed. A worker gets two signals
at each Ctrl-C: one from the terminal, one from its parent. The same happens where a service manager signals all
processes. One of eight stops hung so.
"""

from __future__ import annotations

import functools
import signal
from typing import Any, Final

from .coroutines import callers
from .signals import Patience, StandIn
from .taking import take

__all__ = ["stand_ins"]

_WORKERS: Final = "granian.server.mp"


def stand_ins() -> dict[int, StandIn]:
    """Takes the signals from the event loop of a granian worker, and returns what tells granian to stop, once."""
    for frame in callers(_WORKERS):
        event: Any = frame.f_locals.get("shutdown_event")
        if event is not None:
            once = functools.cache(event.set)
            return take(dict.fromkeys((signal.SIGTERM, signal.SIGINT), (once, Patience.CONNECTIONS)))
    return {}
