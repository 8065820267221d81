"""Hearing that the server is told to stop, beside the server's own handler and without touching the server.

uvicorn, hypercorn and granian let an application know nothing: they wait until its responses are over. So a handler of
our own stands before theirs, for SIGTERM and SIGINT: it schedules what there is to do on the event loop, and calls
theirs. What is to be done then is not known here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final, cast
from weakref import WeakSet

__all__ = ["Listener", "listen"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: `asyncio.run` and `trio.run` make a cancellation of Ctrl-C, which reaches us as one, and take their handlers back
#: only if they find them untouched.
_CANCELLERS: Final = ("asyncio.runners", "trio._core._ki")


class Listener:
    """One who wants to hear. It is forgotten with the last reference to it.

    Args:
        call_soon: schedules a function on an event loop, from anywhere; fails when the loop is gone (`RuntimeError`).
        stop: scheduled on each signal.
        hurry: scheduled instead when somebody presses Ctrl-C after a first signal. A second SIGTERM means nothing:
            supervisors pass on what a terminal or a service manager has sent to every process itself.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        stop: Callable[[], None],
        hurry: Callable[[], None],
    ) -> None:
        self._call_soon = call_soon
        self._stop = stop
        self._hurry = hurry
        self._has_heard = False

    def hear(self, number: int) -> None:
        """Takes a signal, between two bytecodes of whatever runs."""
        is_hurried = self._has_heard and number == signal.SIGINT
        self._has_heard = True
        with suppress(RuntimeError):
            self._call_soon(self._hurry if is_hurried else self._stop)


class _Handler:
    """Stands before the handler that was found, for as many listeners as there are."""

    def __init__(self, found: Callable[[int, FrameType | None], Any]) -> None:
        self.listeners: WeakSet[Listener] = WeakSet()
        self._found = found

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for listener in self.listeners:
            listener.hear(number)
        self._found(number, frame)


def listen(listener: Listener) -> None:
    """Tells the listener of signals from now on, where there is a handler that stops gracefully.

    Where signals end the process at once, or are ignored, nothing changes; nor outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        found = signal.getsignal(number)
        if isinstance(found, _Handler):  # of another bridge
            found.listeners.add(listener)
        elif _is_graceful(found):
            handler = _Handler(cast(Callable[[int, FrameType | None], Any], found))
            handler.listeners.add(listener)
            signal.signal(number, handler)


def _is_graceful(handler: object) -> bool:
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    function = handler.func if isinstance(handler, partial) else handler
    return getattr(function, "__module__", None) not in _CANCELLERS
