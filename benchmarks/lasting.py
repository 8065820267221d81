"""Shared runs at rest, and after the death of their owner."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from .client import Incorrect, connect, run_of
from .crews import Crew
from .figures import Figures
from .leaving import end_of, first_line

__all__ = ["owner_dies", "shared_idle"]

#: Seconds in which the runs have come to rest: Redis has all that was to be written of them.
_SETTLED: Final = 2.0
#: Seconds in which a dead owner is noticed, and its command is ended.
_TIMEOUT: Final = 20.0


def shared_idle(runs: int, seconds: float) -> Callable[[Crew, float], Figures]:
    """Runs that say nothing after their first line: what each holds in Redis, and how many commands it needs.

    Commands of the same workers without runs are subtracted. A worker's connections are counted beside them.
    """

    def measure(crew: Crew, share: float) -> Figures:
        count, lasting = max(1, int(runs * share)), seconds * share
        with crew.client() as redis, ExitStack() as stack:
            _follow_idle(crew, stack)  # so that both workers have begun
            time.sleep(_SETTLED)
            without = _commands(redis, lasting)
            held = _held(redis)
            for _ in range(count):
                _follow_idle(crew, stack)
            time.sleep(_SETTLED)
            with_runs = _commands(redis, lasting)
            workers = 1 if crew.mirror is None else 2
            return {
                "redis_kib": (_held(redis) - held) / count / 1024,
                "commands": max(0.0, (with_runs - without) / count * 60 / lasting),
                "connections": (redis.info("clients")["connected_clients"] - 1) / workers,
            }

    return measure


def _follow_idle(crew: Crew, stack: ExitStack) -> None:
    first = stack.enter_context(connect(crew.owner.port, "/?shape=idle"))
    if crew.mirror is not None:
        first_line(stack.enter_context(connect(crew.mirror.port, f"/{run_of(first)}?shape=idle")))


def _commands(redis: Any, seconds: float) -> int:
    """The number of commands that Redis gets in so many seconds."""
    before = redis.info("stats")["total_commands_processed"]
    time.sleep(seconds)
    return int(redis.info("stats")["total_commands_processed"]) - int(before) - 1


def _held(redis: Any) -> int:
    """Bytes of all runs' keys."""
    return sum(redis.memory_usage(key) for key in redis.scan_iter(match="*{*}:*", count=1000))


def owner_dies(crew: Crew, _: float) -> Figures:
    """`kill -9`: until a viewer of another worker is told, and until the command's process is gone."""
    if crew.mirror is None:
        raise Incorrect("no other worker is there to notice")
    with ExitStack() as stack:
        first = stack.enter_context(connect(crew.owner.port, "/?shape=process"))
        viewer = stack.enter_context(connect(crew.mirror.port, f"/{run_of(first)}?shape=process"))
        process = int(first_line(viewer))
        time.sleep(_SETTLED)
        crew.owner.process.kill()
        died_at = time.monotonic()
        read = b""
        while b"owner_lost" not in read:
            piece = viewer.recv(65536)
            if not piece:
                raise Incorrect("the viewer was not told")
            read = read[-100:] + piece
        told_at = time.monotonic()
        gone_at = end_of(process, _TIMEOUT)
    return {"told_s": told_at - died_at, "ended_s": gone_at - died_at}
