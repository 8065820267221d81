"""What is special about granian: where its workers take signals from, and what a second one does to them.

A worker takes SIGTERM and SIGINT from the event loop. So nothing could keep a signal from granian while there is work
that it does not wait for.

Each signal calls `WorkerSignal.set`, and a second call that comes while granian acts on the first may never return
(2.8). The event loop stands still then, and the worker's commands run on until it is killed. A worker gets two signals
at each Ctrl-C: one from the terminal, one from its parent. The same happens where a service manager signals all
processes. One stop in eight hung this way.
"""

from __future__ import annotations

import functools
import signal
from typing import Any, Final

from .coroutines import callers
from .signals import Patience, Reaction

__all__ = ["in_loop"]

_WORKERS: Final = "granian.server.mp"


def in_loop() -> dict[int, Reaction]:
    """What the event loop of a granian worker calls for signals, made to tell granian once. Empty for other servers."""
    locals_of_workers = (frame.f_locals for frame in callers(_WORKERS))
    event: Any = next((found["shutdown_event"] for found in locals_of_workers if "shutdown_event" in found), None)
    if event is None:
        return {}
    once = functools.cache(event.set)
    stop = Reaction(lambda number, frame: once(), Patience.CONNECTIONS)
    return {signal.SIGTERM: stop, signal.SIGINT: stop}
