"""A run's output on this process's stdout and stderr: each stream apart, as it comes, byte for byte."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import BinaryIO, Final

import anyio
import anyio.to_thread

from ..client.reading import Item

__all__ = ["Printer"]

_STREAMS: Final = ("stdout", "stderr")


class Printer:
    """Writes a run's events.

    Pieces of an unfinished line are written at once, so that a progress bar moves. Colours and carriage returns pass
    through: what they mean is up to the terminal.

    Args:
        as_json: whether each event becomes a line of JSON on stdout instead.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out: BinaryIO = sys.stdout.buffer
        self._err: BinaryIO = sys.stderr.buffer

    async def show(self, items: Iterable[Item]) -> None:
        """Writes what the events say, in their order.

        In a thread: a reader that pauses the pipe must not keep Ctrl-C from being heard.

        Raises:
            BrokenPipeError: the reader has left.
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
            await anyio.to_thread.run_sync(_write, parts, abandon_on_cancel=True)

    def _written(self, item: Item) -> tuple[BinaryIO, bytes]:
        if self._as_json:
            body = {"type": item.kind, **item.body} if item.kind is not None else {"data": item.event.data}
            return self._out, json.dumps(body).encode() + b"\n"
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


def _write(parts: list[tuple[BinaryIO, bytearray]]) -> None:
    for target, text in parts:
        target.write(text)
        target.flush()
