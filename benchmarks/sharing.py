"""Runs that workers share through Redis: what a line costs each process, and how late it is.

Figures of Redis, and of a mirroring worker without its viewers, are for each line of a run. Those of the process that
serves the viewers are for each line delivered, as in all other shapes.
"""

from __future__ import annotations

import re
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from .client import Followers, Incorrect, connect, read_burst, run_of
from .crews import Crew
from .figures import Figures
from .upstream import lines_of

__all__ = ["shared_burst", "shared_paced", "shared_past"]

#: Seconds of CPU that the owner has to use before a figure counts.
_LEAST_CPU: Final = 0.5
#: The most seconds for which a mirror without viewers is measured: it is dropped after 10.
_MOST_ALONE: Final = 5.0
#: Seconds in which the owner has brought the end of a burst to Redis.
_PUBLISHED: Final = 0.5
_ID: Final = re.compile(rb"\nid: (\S+)\n")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


def shared_paced(runs: int, viewers: int, seconds: float) -> Callable[[Crew, float], Figures]:
    """`viewers` of each of `runs` paced runs: at the mirroring worker, or at the owner where there is none.

    A mirroring worker is measured twice. First its mirrors have no viewers: they had one each, have just lost it, and
    are kept and fed for 10 s more. That is what mirroring costs; viewers at the owner count the lines meanwhile. Then
    all viewers are at the mirroring worker, and none at the owner.
    """

    def measure(crew: Crew, share: float) -> Figures:
        with ExitStack() as stack:
            count = max(1, int(runs * share)) if runs > 1 else 1
            each = max(1, int(viewers * share)) if viewers > 1 else 1
            lasting = max(0.5, seconds * share)
            firsts = [stack.enter_context(connect(crew.owner.port, "/?shape=paced")) for _ in range(count)]
            figures: Figures = {}
            followed = firsts
            if crew.mirror is not None or each > 1:
                targets = [f"/{run_of(first)}?shape=paced" for first in firsts]
                if crew.mirror is not None:
                    figures = _alone(crew, targets, firsts, lasting)
                    followed = []
                for _ in range(each - len(followed) // count):
                    followed = [*followed, *(stack.enter_context(connect(crew.server.port, to)) for to in targets)]
            followers = Followers(followed)
            followers.settle()
            if crew.mirror is not None:
                for first in firsts:
                    first.close()
                followers.settle()
            before = crew.server.cpu(), crew.redis_cpu()
            paced = followers.follow(lasting)
            figures["cpu_us"] = 1e6 * (crew.server.cpu() - before[0]) / max(1, paced.frames)
            figures["redis_us"] = 1e6 * (crew.redis_cpu() - before[1]) * each / max(1, paced.frames)
        return {**figures, "p50_ms": paced.percentile(0.5), "p99_ms": paced.percentile(0.99)}

    return measure


def _alone(crew: Crew, targets: list[str], firsts: list[socket.socket], seconds: float) -> Figures:
    """What mirrors cost that have no viewers."""
    with ExitStack() as stack:
        Followers([stack.enter_context(connect(crew.server.port, target)) for target in targets]).settle(0.5)
    followers = Followers(firsts)
    followers.settle(0.5)
    before = crew.server.cpu()
    lines = followers.follow(min(seconds, _MOST_ALONE)).frames
    return {"mirror_us": 1e6 * (crew.server.cpu() - before) / max(1, lines)}


def shared_burst(lines: int) -> Callable[[Crew, float], Figures]:
    """A burst in 64 KiB chunks, to a viewer of its owner."""

    def measure(crew: Crew, share: float) -> Figures:
        texts, target = lines_of("chunks", lines), "/?shape=chunks"
        read_burst(crew.owner.port, target, texts)  # warms up
        before, frames = (crew.owner.cpu(), crew.redis_cpu()), 0
        while not frames or crew.owner.cpu() - before[0] < _LEAST_CPU * share:
            read_burst(crew.owner.port, target, texts)
            frames += lines
        time.sleep(_PUBLISHED)
        used = crew.owner.cpu() - before[0], crew.redis_cpu() - before[1]
        return {"cpu_us": 1e6 * used[0] / frames, "redis_us": 1e6 * used[1] / frames}

    return measure


def shared_past(rounds: int) -> Callable[[Crew, float], Figures]:
    """A run that is over, with 8 MiB kept: until a mirroring worker that is asked for it sends the first frame.

    What mirroring costs is measured with another run, whose viewer asks for the last frames only.
    """

    def measure(crew: Crew, share: float) -> Figures:
        took, used, lines = [], 0.0, 0
        for _ in range(max(2, int(rounds * share))):
            run, _, _ = _read(connect(crew.owner.port, "/?shape=chunks"))
            time.sleep(_PUBLISHED)
            asked_at = time.monotonic()
            with connect(crew.server.port, f"/{run}?shape=chunks") as connection:
                while b"data: " not in connection.recv(65536):
                    pass
                took.append(1000 * (time.monotonic() - asked_at))
                kept = _rest_of(connection).count(b'"line"')

            run, place, _ = _read(connect(crew.owner.port, "/?shape=chunks"))
            time.sleep(_PUBLISHED)
            before = crew.server.cpu()
            _read(connect(crew.server.port, f"/{run}?shape=chunks", f"Last-Event-ID: {place}\r\n"))
            used += crew.server.cpu() - before
            lines += kept
        return {"mirror_us": 1e6 * used / max(1, lines), "first_ms": statistics.median(took)}

    return measure


def _read(connection: socket.socket) -> tuple[str, str, bytes]:
    """Reads a stream to its end: the run, the id of the last frame but one, and the body."""
    with connection:
        run = run_of(connection)
        body = _rest_of(connection)
    ids = _ID.findall(body)
    return run, ids[-2].decode() if len(ids) > 1 else "", body


def _rest_of(connection: socket.socket) -> bytes:
    read = bytearray()
    while not read.endswith(_LAST_CHUNK):
        piece = connection.recv(1 << 20)
        if not piece:
            raise Incorrect("the response broke off")
        read += piece
    return bytes(read)
