"""What is special about hypercorn's worker processes: how they hear of a stop, and what SIGTERM does to them.

A worker gets no signal at a stop, but an event of `multiprocessing`, which it polls in a task ten times a second. The
end of that task is the first sign of a stop, and asyncio reports it. The application itself would hear of it only when
its requests are cancelled: after the graceful timeout (3 s) before Python 3.12, and never from 3.12 on. On trio, see
`accepting`.

As soon as one worker has ended, hypercorn sends SIGTERM to the others, which ends them at once: they leave it at its
default. An idle worker ends within a tenth of a second, so those with streams would leave their commands running.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sys
from collections.abc import Callable

__all__ = ["end_process", "is_worker", "watch"]


def watch(stop: Callable[[], None]) -> None:
    """Calls `stop` on the event loop when the hypercorn that runs on it begins to stop. Ignores other servers."""
    trigger = getattr(sys.modules.get("hypercorn.utils"), "raise_shutdown", None)
    if trigger is None:
        return
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # trio
        return
    for task in tasks:
        if getattr(task.get_coro(), "cr_code", None) is trigger.__code__:
            task.add_done_callback(lambda _: stop())


def is_worker() -> bool:
    """Whether this process is one of hypercorn's workers."""
    return "hypercorn.utils" in sys.modules and multiprocessing.parent_process() is not None


def end_process(number: int, frame: object) -> None:
    """Does what the signal does by default."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
