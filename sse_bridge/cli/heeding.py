"""Signals that end a command: the first one gracefully, the second one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

__all__ = ["heed"]

#: Ctrl-C, a stop from outside, a closed terminal, and Ctrl-backslash. By name, since Windows lacks the last two.
#: There, asyncio takes no signal handlers at all, so `run` and `follow` need a POSIX system.
_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


async def heed(
    first: Callable[[signal.Signals], Coroutine[Any, Any, None]],
    again: Callable[[signal.Signals], Coroutine[Any, Any, None]],
    *,
    task_status: TaskStatus[None],
) -> None:
    """Calls `first` on the first signal, and `again` on each later one, even while `first` still works.

    Start it in a task group by `start`, before the work begins that a signal is to end.
    """
    with anyio.open_signal_receiver(*_heeded()) as signals:
        async with anyio.create_task_group() as tasks:
            task_status.started()
            heeded = first
            async for number in signals:
                tasks.start_soon(heeded, number)
                heeded = again


def _heeded() -> list[signal.Signals]:
    """Not those that this process was started to ignore, as by `nohup`."""
    known = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
