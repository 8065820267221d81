"""The bridge, in a process that traces its memory. `GET /marked` marks the present state, and `GET /grown` answers with
what has grown since: as JSON, by the line of code that allocated it, and by the type of objects.

Start it with `PYTHONTRACEMALLOC=1`.
"""

from __future__ import annotations

import gc
import linecache
import os
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, Final

from sse_bridge.asgi.messages import Receive, Scope, Send, send_json

from .bridge import app as bridge

#: Directories that a path is shown without.
_ROOTS: Final = sorted((os.path.realpath(path) for path in (*sys.path, os.getcwd()) if path), key=len, reverse=True)

Growth = dict[str, list[list[Any]]]


class _Traced:
    """The bridge, and the two paths."""

    def __init__(self) -> None:
        self._lines: tracemalloc.Snapshot | None = None
        self._types: dict[str, tuple[int, int]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if path == "/marked":
            gc.collect()
            self._lines = _lines()
            self._types = _types()
            await send_json(send, 200, {})
        elif path == "/grown":
            gc.collect()
            types, lines = _types(), _lines()
            await send_json(send, 200, self._grown(lines, types))
        else:
            await bridge(scope, receive, send)

    def _grown(self, lines: tracemalloc.Snapshot, types: dict[str, tuple[int, int]]) -> Growth:
        assert self._lines is not None, "the state was marked"
        by_line = [
            [_where(stat.traceback[0]), stat.count_diff, stat.size_diff]
            for stat in lines.compare_to(self._lines, "lineno")
        ]
        by_type = [
            [name, count - self._types.get(name, (0, 0))[0], size - self._types.get(name, (0, 0))[1]]
            for name, (count, size) in types.items()
        ]
        return {"lines": by_line, "types": by_type}


def _lines() -> tracemalloc.Snapshot:
    return tracemalloc.take_snapshot().filter_traces((tracemalloc.Filter(False, tracemalloc.__file__),))


def _types() -> dict[str, tuple[int, int]]:
    """Number and bytes of the objects that the garbage collector knows, by type."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for one in gc.get_objects():
        name = f"{type(one).__module__}.{type(one).__qualname__}"
        counts[name] += 1
        sizes[name] += sys.getsizeof(one)
    return {name: (counts[name], sizes[name]) for name in counts}


def _where(frame: tracemalloc.Frame) -> str:
    path = os.path.realpath(frame.filename)
    root = next((root for root in _ROOTS if path.startswith(root + os.sep)), "")
    shown = path[len(root) + 1 :] if root else Path(path).name
    return f"{shown}:{frame.lineno}  {linecache.getline(frame.filename, frame.lineno).strip()}"


app = _Traced()
