"""Looks into the tasks of this event loop, where servers keep what ASGI does not hand on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["frames"]


def frames() -> Iterator[FrameType]:
    """The frames of every asyncio task, and of all that each awaits; none on trio.

    A program may await its server anywhere.
    """
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # trio
        return
    for task in tasks:
        awaited: Any = task.get_coro()
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            yield frame
            awaited = awaited.cr_await
