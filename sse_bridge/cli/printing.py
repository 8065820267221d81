"""A run's output on this process's stdout and stderr: each stream apart, as it comes, byte for byte."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from math import inf
from typing import BinaryIO, Final, TextIO

import anyio
import anyio.to_thread

from ..client.reading import Item
from .saying import BROKEN_PIPE, FAILED, End, say

__all__ = ["Printer", "unwritable"]

_STREAMS: Final = ("stdout", "stderr")
#: Seconds that the last line gets where the user has sent a signal, and the reader has paused the pipe.
_LAST_LINE: Final = 0.5


class Printer:
    """Writes a run's events.

    Pieces of an unfinished line are written at once, so that a progress bar moves. Colours and carriage returns pass
    through: what they mean is up to the terminal.

    Args:
        as_json: whether each event becomes a line of JSON on stdout instead. The last line says how it ended.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = _bytes_of(sys.stdout)
        self._err = _bytes_of(sys.stderr)
        self._has_exit = False  # whether the exit was shown
        self._writes = 0  # in threads that have not returned

    async def show(self, items: Iterable[Item]) -> None:
        """Writes what the events say, in their order.

        In a thread: a reader that pauses the pipe must not keep Ctrl-C from being heard.

        Raises:
            BrokenPipeError: the reader of stdout has left.
            OSError: the output cannot be written: the disk is full, or the terminal is gone. See `unwritable`.
        """
        parts: list[tuple[BinaryIO, bytearray]] = []
        for item in items:
            target, text = self._written(item)
            if not text:
                continue
            if not parts or parts[-1][0] is not target:
                parts.append((target, bytearray()))
            parts[-1][1].extend(text)
        if parts:
            await anyio.to_thread.run_sync(self._write, parts, abandon_on_cancel=True)

    async def end(self, end: End) -> int:
        """Says how it ended, on stderr and as the last line of JSON. Returns the exit code.

        A thread that still writes would keep Python from ending until the reader goes on, so it is left behind.
        """
        if end.words:
            say(end.words)
        status = end.status
        with anyio.move_on_after(_LAST_LINE if self._writes else inf):
            status = await self._show_end(end)
        if self._writes:
            os._exit(status)
        return status

    async def _show_end(self, end: End) -> int:
        """Writes the last line; returns the exit code, which another line may have changed that cannot be written."""
        if not self._as_json or end.body is None or (self._has_exit and end.body["type"] == "exit"):
            return end.status
        parts = [(self._out, bytearray(_json(end.body)))]
        try:
            await anyio.to_thread.run_sync(self._write, parts, abandon_on_cancel=True)
        except OSError as error:
            failed = unwritable(error)
            if failed.words:
                say(failed.words)
                return failed.status
        return end.status

    async def leave(self, end: End) -> None:
        """Says how it ended, and ends the process, whatever it still does."""
        with anyio.move_on_after(_LAST_LINE):
            await self.end(end)
        os._exit(end.status)

    def _write(self, parts: list[tuple[BinaryIO, bytearray]]) -> None:
        self._writes += 1
        try:
            for target, text in parts:
                try:
                    target.write(text)
                    target.flush()
                except BrokenPipeError:
                    if target is not self._err or _is_one_file():
                        raise
                    _discard(sys.stderr)  # its reader has left, and stdout has one of its own
        finally:
            self._writes -= 1

    def _written(self, item: Item) -> tuple[BinaryIO, bytes]:
        if self._as_json:
            return self._out, self._line(item)
        if item.kind in _STREAMS:
            end = "" if item.body.get("partial") is True else "\n"
            text = (str(item.body.get("line", "")) + end).encode("utf-8", "replace")
            return self._err if item.kind == "stderr" else self._out, text
        if item.kind is None:  # an upstream's own event
            return self._out, item.event.data.encode("utf-8", "replace") + b"\n"
        if item.kind == "gap":
            dropped = item.body.get("dropped")
            return self._err, f"sse-bridge: {dropped or 'some'} lines are missing here\n".encode()
        return self._out, b""

    def _line(self, item: Item) -> bytes:
        """An event as JSON. An error says less than `end`, which follows."""
        if item.kind == "error":
            return b""
        self._has_exit = self._has_exit or item.kind == "exit"
        return _json({"type": item.kind, **item.body} if item.kind is not None else {"data": item.event.data})


def _json(body: object) -> bytes:
    return json.dumps(body).encode() + b"\n"


def unwritable(error: OSError) -> End:
    """How it ends if stdout or stderr cannot be written. Python flushes stdout at its end, and would complain again."""
    _discard(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return End(BROKEN_PIPE, None)
    return End(FAILED, None, f"the output cannot be written: {error.strerror or error}")


def _bytes_of(stream: TextIO | None) -> BinaryIO:
    """A process may be started without the stream (`>&-`)."""
    return open(os.devnull, "wb") if stream is None else stream.buffer


def _is_one_file() -> bool:
    """Whether stdout and stderr are the same pipe (`2>&1`)."""
    return sys.stdout is not None and os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())


def _discard(stream: TextIO | None) -> None:
    """Lets everything that is still written to a stream go nowhere."""
    if stream is not None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
