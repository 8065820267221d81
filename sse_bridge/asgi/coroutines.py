"""Looks into the tasks and the callers of this event loop, where servers keep what ASGI does not hand on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["callers", "coroutines", "frames"]


def callers(module: str) -> Iterator[FrameType]:
    """The frames of a module on the stack, the innermost first.

    Frames of other modules are left alone: before Python 3.13, reading a frame's `f_locals` keeps its values alive.
    """
    if module not in sys.modules:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == module:
            yield frame
        frame = frame.f_back


def coroutines() -> Iterator[Any]:
    """What each task of this event loop began with, the running task first."""
    try:
        running = asyncio.current_task()
    except RuntimeError:
        yield from _coroutines_of_trio()
        return
    if running is not None:
        yield running.get_coro()
    yield from (task.get_coro() for task in asyncio.all_tasks() if task is not running)


def frames() -> Iterator[FrameType]:
    """The frames of every task, and of all that each awaits. A program may await its server anywhere."""
    for awaited in coroutines():
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            yield frame
            awaited = awaited.cr_await


def _coroutines_of_trio() -> Iterator[Any]:
    import trio

    running = trio.lowlevel.current_task()
    yield running.coro
    waiting: list[Any] = [trio.lowlevel.current_root_task()]
    while waiting:
        one = waiting.pop()
        if one is not running:
            yield one.coro
        waiting += [child for nursery in one.child_nurseries for child in nursery.child_tasks]
