"""A gigabyte for a viewer that stops reading for a while and then reads it all."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httptools

from .client import Incorrect, connect
from .figures import Figures
from .servers import Serving
from .upstream import BLOCK

__all__ = ["stalled"]

#: Seconds for which the viewer stops reading.
_STALL: Final = 3.0
_SAID: Final = re.compile(rb'"type": ?"gap", ?"dropped": ?(\d+)|"line": ?"([^"]*)"')
_EXIT: Final = re.compile(rb'"(?:exit_code|code)": ?0\}\s*\Z')


def stalled(blocks: int) -> Callable[[Serving, float], Figures]:
    """`blocks` of lines, some 10 MB each."""

    def measure(server: Serving, share: float) -> Figures:
        count = max(2, int(blocks * share))
        _forget_peak(server)
        before, started = server.memory(), time.monotonic()
        with connect(server.port, f"/?shape=blocks-{count}") as connection:
            time.sleep(_STALL * min(1.0, 5 * share))
            given, missing = _count(_frames(connection))
        if given + missing != count * BLOCK:
            raise Incorrect(f"{given} lines and {missing} that a gap counts, of {count * BLOCK}")
        return {
            "seconds": time.monotonic() - started,
            "peak_mib": max(0, _peak(server) - before) / 2**20,
            "missing_percent": 100 * missing / (given + missing),
        }

    return measure


class _Response:
    """The body of a response, as llhttp reports it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.on_body = self.parts.append
        self.is_complete = False

    def on_message_complete(self) -> None:
        self.is_complete = True


def _frames(connection: socket.socket) -> Iterator[bytes]:
    """The whole frames of a response, many at a time."""
    response = _Response()
    parser = httptools.HttpResponseParser(response)
    rest = b""
    while not response.is_complete:
        piece = connection.recv(1 << 20)
        if not piece:
            raise Incorrect("the response broke off")
        parser.feed_data(piece)
        whole, separator, rest = (rest + b"".join(response.parts)).rpartition(b"\n\n")
        response.parts.clear()
        if whole:
            yield whole + separator
    if rest:
        raise Incorrect("the stream ended within a frame")


def _count(pieces: Iterator[bytes]) -> tuple[int, int]:
    """The numbers of lines received and of lines that gaps count; raises `Incorrect` if one is out of place."""
    given = missing = 0
    last = b""
    for last in pieces:
        for dropped, text in _SAID.findall(last):
            if dropped:
                missing += int(dropped)
                continue
            for line in text.split(b"\\n"):  # merged ones
                if int(line[:7]) != (given + missing) % BLOCK:
                    raise Incorrect(f"line {line!r} is out of place")
                given += 1
    if not _EXIT.search(last):
        raise Incorrect("there is no exit at the end")
    return given, missing


def _forget_peak(server: Serving) -> None:
    for process in server.family():
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def _peak(server: Serving) -> int:
    """Peak resident bytes since `_forget_peak`."""
    found = 0
    for process in server.family():
        match = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        found += int(match[1]) * 1024 if match else 0
    return found
