"""What is special about gunicorn's own worker: it takes signals from the event loop.

After a SIGTERM it waits for connections. After a SIGQUIT or a Ctrl-C it cancels its requests, and ends a second later.
It would leave a sandbox that is far away no time to end its command.
"""

from __future__ import annotations

import signal
from typing import Any, Final

from .coroutines import callers
from .signals import Patience, Reaction

__all__ = ["in_loop"]

_WORKER: Final = "gunicorn.workers.gasgi"


def in_loop() -> dict[int, Reaction]:
    """What the event loop of gunicorn's own worker calls for signals. Empty for other servers."""
    worker: Any = next((frame.f_locals.get("self") for frame in callers(_WORKER)), None)
    exits = getattr(worker, "handle_exit_signal", None)
    quits = getattr(worker, "handle_quit_signal", None)
    if exits is None or quits is None:
        return {}
    graceful = Reaction(lambda number, frame: exits(), Patience.CONNECTIONS)
    at_once = Reaction(lambda number, frame: quits(), Patience.NOTHING)
    return {signal.SIGTERM: graceful, signal.SIGINT: at_once, signal.SIGQUIT: at_once}
