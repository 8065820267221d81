"""Hearing that hypercorn stops: its worker processes get no signal.

What they get is an event of `multiprocessing`, which a task of theirs asks for ten times a second. That this task has
ended is news that asyncio gives away, and the first there is: the application itself hears of nothing until its
requests are cancelled, after the graceful timeout (3 s) up to Python 3.11 and never from 3.12 on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

__all__ = ["watch"]


def watch(stop: Callable[[], None]) -> None:
    """Calls `stop` on the event loop when the hypercorn that runs on it begins to stop. Elsewhere it does nothing.

    hypercorn's trio worker has no such news: there, requests are cancelled after the graceful timeout.
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
