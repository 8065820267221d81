"""What is special about gunicorn's own worker: it takes signals from the event loop.

After a SIGTERM it waits for connections. After a SIGQUIT or a Ctrl-C it cancels its requests, and ends a second later.
It would leave a sandbox that is far away no time to end its command.
"""

from __future__ import annotations

import signal
from typing import Any, Final

from .coroutines import callers
from .signals import Patience, StandIn
from .taking import take

__all__ = ["stand_ins"]

_WORKER: Final = "gunicorn.workers.gasgi"


def stand_ins() -> dict[int, StandIn]:
    """Takes the signals from the event loop of gunicorn's own worker, and returns what hands them on to it."""
    for frame in callers(_WORKER):
        worker: Any = frame.f_locals.get("self")
        graceful = getattr(worker, "handle_exit_signal", None)
        quick = getattr(worker, "handle_quit_signal", None)
        if graceful is not None and quick is not None:
            at_once = (quick, Patience.NOTHING)
            return take(
                {
                    signal.SIGTERM: (graceful, Patience.CONNECTIONS),
                    signal.SIGINT: at_once,
                    signal.SIGQUIT: at_once,
                }
            )
    return {}
