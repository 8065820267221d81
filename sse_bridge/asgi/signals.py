"""Tells the bridge that the server was asked to stop, by a signal handler in front of the server's own.

uvicorn, hypercorn and granian wait for open responses before they tell the application to shut down. So a handler for
SIGTERM and SIGINT runs before theirs: it schedules each listener's function on that listener's event loop, then calls
the handler it found. What a listener does about it is decided elsewhere.
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
#: `asyncio.run` and `trio.run` turn Ctrl-C into a cancellation, which we see anyway, and only restore the old handler
#: if theirs is still in place. Leave them alone.
_CANCELLERS: Final = ("asyncio.runners", "trio._core._ki")


class Listener:
    """What to call on a signal. The handlers hold it weakly: it stops listening with the last reference to it.

    Args:
        call_soon: schedules a function on an event loop, from any thread; raises `RuntimeError` once the loop is
            closed.
        stop: scheduled on each signal.
        hurry: scheduled instead when Ctrl-C follows a first signal. A second SIGTERM only schedules `stop` again:
            supervisors forward signals that a terminal or a service manager has already sent to every process.
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
        """Takes a signal, between two bytecodes of any code in the main thread."""
        is_hurried = self._has_heard and number == signal.SIGINT
        self._has_heard = True
        with suppress(RuntimeError):
            self._call_soon(self._hurry if is_hurried else self._stop)


class _Handler:
    """Tells all listeners, then calls the handler that it replaced."""

    def __init__(self, found: Callable[[int, FrameType | None], Any]) -> None:
        self.listeners: WeakSet[Listener] = WeakSet()
        self._found = found

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for listener in self.listeners:
            listener.hear(number)
        self._found(number, frame)


def listen(listener: Listener) -> None:
    """Tells the listener of signals from now on, if the process has a handler that stops gracefully.

    Leaves the handlers alone where a signal ends the process at once or is ignored, and outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        found = signal.getsignal(number)
        if isinstance(found, _Handler):  # installed for another bridge
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
