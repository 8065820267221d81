"""Tells the bridge that hypercorn stops: its worker processes get no signal.

A worker gets an event of `multiprocessing` instead, and polls it in a task ten times a second. The end of that task is
the first sign of a stop, and asyncio reports it. The application itself would hear of it only when its requests are
cancelled: after the graceful timeout (3 s) before Python 3.12, and never from 3.12 on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

__all__ = ["watch"]


def watch(stop: Callable[[], None]) -> None:
    """Calls `stop` on the event loop when the hypercorn that runs on it begins to stop. Ignores other servers.

    Under hypercorn's trio worker a stop goes unseen until it cancels requests, after the graceful timeout.
    """
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
