"""Names what an idle stream, or a further viewer of a run, takes in memory.

    python -m benchmarks.objects [--shared] [--streams N] [--rows N]

The serving process traces its allocations (`tracemalloc`), which finds what Python, httptools and uvloop's handles
take, but not what libuv and the C library keep. The first table is by the line of code that allocated. The second, by
type, shows what the garbage collector knows, which leaves out bytes, strings and numbers.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Final

from .client import connect
from .idle import WARM_UP, Opener
from .servers import serving, upstream

#: Seconds for what opening connections has left to be done.
_SETTLE: Final = 1.0

Rows = list[tuple[str, float, float]]


def measure(streams: int, *, shared: bool) -> dict[str, Rows]:
    """What has grown: number and bytes for each stream, by line and by type, the largest first."""
    with (
        upstream(1) as url,
        serving("traced", url, PYTHONTRACEMALLOC="1", PYTHONHASHSEED="0") as server,
        ExitStack() as stack,
    ):
        opener = Opener(server.port, stack, shared=shared)
        opener.open_until(WARM_UP)
        time.sleep(_SETTLE)
        _asked(server.port, "/marked")
        opener.open_until(WARM_UP + streams)
        time.sleep(_SETTLE)
        grown = _asked(server.port, "/grown")
    return {
        name: sorted(
            ((str(what), count / streams, size / streams) for what, count, size in rows), key=lambda row: -row[2]
        )
        for name, rows in grown.items()
    }


def _asked(port: int, path: str) -> Any:
    with connect(port, path) as connection:
        read = b""
        while (head := read.partition(b"\r\n\r\n"))[1] == b"" or len(head[2]) < _length(head[0]):
            read += connection.recv(1 << 20)
    return json.loads(head[2])


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)content-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _show(title: str, rows: Rows, most: int) -> None:
    print(f"\n{title}: {sum(size for _, _, size in rows):,.0f} bytes each\n\n   bytes  objects  what")
    for what, count, size in rows[:most]:
        print(f"{size:8,.0f}  {count:7.2f}  {what}")
    rooms: dict[str, float] = {}
    if "by line" in title:
        for what, _, size in rows:
            room = what.partition(":")[0].partition("/")[0]
            rooms[room] = rooms.get(room, 0.0) + size
        print("\nby package: " + _listed(sorted(rooms.items(), key=lambda item: -item[1])))


def _listed(rooms: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{room} {size:,.0f}" for room, size in rooms if size >= 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", action="store_true", help="viewers of one run, rather than runs")
    parser.add_argument("--streams", type=int, default=500, help="how many (default %(default)s)")
    parser.add_argument("--rows", type=int, default=20, help="rows of each table (default %(default)s)")
    arguments = parser.parse_args()
    grown = measure(arguments.streams, shared=arguments.shared)
    _show("by line", grown["lines"], arguments.rows)
    _show("by type", grown["types"], arguments.rows)


if __name__ == "__main__":
    main()
