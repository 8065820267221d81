"""Telling the application of its runs: `on_start` and `on_end`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import anyio
from anyio import CapacityLimiter

from ..causes import is_our_end
from ..relay.run import Run
from .application import OnEnd, OnStart, Purpose, Threads, call
from .stopping import PATIENCE, Open

__all__ = ["report"]

logger: Final = logging.getLogger("sse_bridge")


async def report(here: Open, threads: Threads, run: Run, on_start: OnStart | None, on_end: OnEnd | None) -> None:
    """Tells the application of the run's start, and then of its end. The run waits for neither.

    A stop waits for `on_end`, so that the outcome reaches the application's database. If the event loop ends first, it
    cancels this task and waits for it; `on_end` is called in that time.
    """
    try:
        await run.answered.wait()
        if on_start is not None and run.refused is None:
            await _tell(here, threads.limiter(Purpose.ON_START), on_start, run.info)
        await run.done.wait()
    except anyio.get_cancelled_exc_class():
        here.stop()  # bounds the rest
        with anyio.CancelScope(shield=True):
            await run.done.wait()
            await _tell_end(here, threads, run, on_end)
        raise
    await _tell_end(here, threads, run, on_end)


async def _tell_end(here: Open, threads: Threads, run: Run, on_end: OnEnd | None) -> None:
    if on_end is not None and run.began:
        await _tell(here, threads.limiter(Purpose.ON_END), on_end, run.info, run.outcome())


async def _tell(here: Open, limiter: CapacityLimiter, hook: Callable[..., object], *arguments: object) -> None:
    """Calls a hook of the application's. What it raises is logged: the run goes on."""
    try:
        with here.wait(PATIENCE):
            await call(hook, *arguments, limiter=limiter, may_abandon=True)
    except (Exception, asyncio.CancelledError) as error:
        if is_our_end(error):
            raise
        logger.exception("the application's hook %s failed; its run is unaffected", getattr(hook, "__name__", hook))
