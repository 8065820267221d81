"""Tells the bridge that the server was asked to stop, by a signal handler in front of the server's own.

uvicorn, hypercorn and granian wait for open responses before they tell the application to shut down. So a handler for
SIGTERM and SIGINT runs before theirs: it schedules each listener's function on that listener's event loop, then calls
the handler it found. What a listener does about it is decided elsewhere.

granian and gunicorn's own worker have the event loop take signals. There the event loop calls the same handler, in
place of the server's function.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from types import FrameType
from typing import Any, Final, NamedTuple, cast
from weakref import WeakSet

__all__ = ["Listener", "Patience", "Reaction", "listen"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: `asyncio.run` and `trio.run` turn Ctrl-C into a cancellation, which we see anyway, and only restore the old handler
#: if theirs is still in place. Leave them alone.
_CANCELLERS: Final = ("asyncio.runners", "trio._core._ki")
#: daphne's reactor cancels the requests on a signal, and ends while the runs' own tasks still go on.
_IMPATIENT: Final = "twisted."
#: Where the handlers are defined with which event loops take signals.
_LOOPS: Final = ("asyncio.unix_events", "uvloop.loop")

_Found = Callable[[int, FrameType | None], Any]


class Patience(Enum):
    """What a server that was told to stop waits for by itself."""

    NOTHING = auto()
    #: Open connections. A request whose client has left goes on, but is not waited for.
    CONNECTIONS = auto()
    REQUESTS = auto()


class Reaction(NamedTuple):
    """What a server does about a signal."""

    call: _Found
    patience: Patience


class Listener:
    """What to call on a signal. The handlers hold it weakly: it stops listening with the last reference to it.

    Args:
        call_soon: schedules a function on an event loop, from any thread; raises `RuntimeError` once the loop is
            closed.
        stop: scheduled on each signal.
        hurry: scheduled instead when Ctrl-C follows a first signal. A second SIGTERM only schedules `stop` again:
            supervisors forward signals that a terminal or a service manager has already sent to every process.
        hold: returns whether the server has to hear of the signal later. Then it calls its first argument, once, when
            the server may hear of it.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        stop: Callable[[], None],
        hurry: Callable[[], None],
        hold: Callable[[Callable[[], None], Patience], bool],
    ) -> None:
        self._call_soon = call_soon
        self._stop = stop
        self._hurry = hurry
        self.hold: Final = hold
        self._has_heard = False

    def hear(self, number: int) -> None:
        """Takes a signal, between two bytecodes of any code in the main thread."""
        is_hurried = self._has_heard and number == signal.SIGINT
        self._has_heard = True
        with suppress(RuntimeError):
            self._call_soon(self._hurry if is_hurried else self._stop)


class _Turns:
    """Lets handlers run one after another, in the order of their signals.

    Python runs the handler of a second signal in the midst of the first one's. gunicorn sends its workers a SIGQUIT
    right behind each Ctrl-C. A listener that heard the SIGQUIT first would take the Ctrl-C for a second one.
    """

    def __init__(self) -> None:
        self._arrived: deque[Callable[[], Callable[[], object]]] = deque()
        self._is_running = False

    def run(self, handle: Callable[[], Callable[[], object]]) -> None:
        """Runs a handler now, or behind the one that is running, and then what it returns.

        What it returns calls the server's own handler. That may take long: a signal that comes meanwhile interrupts it,
        as it would without the bridge. It may also raise: the handlers that wait still run.
        """
        self._arrived.append(handle)
        self._run_next()

    def _run_next(self) -> None:  # another signal may come between any two bytecodes of this
        if self._is_running or not self._arrived:
            return
        self._is_running = True
        try:
            try:
                pass_on = self._arrived.popleft()() if self._arrived else _nothing
            finally:
                self._is_running = False
            pass_on()
        finally:
            self._run_next()


def _nothing() -> None:
    pass


#: Of the process: its main thread runs all handlers.
_turns: Final = _Turns()


class _Handler:
    """Tells all listeners, then calls the handler that it replaced.

    A server ends its process once its requests are over. Listeners with work that no request waits for hold the signal
    back from it. A second Ctrl-C goes through at once; a second SIGTERM waits with the first.

    Args:
        found: what the server did about the signal.
    """

    def __init__(self, found: Reaction) -> None:
        self.listeners: WeakSet[Listener] = WeakSet()
        self._found, self._patience = found
        self._holding = 0
        self._has_passed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _turns.run(partial(self._take, number, frame))

    def _take(self, number: int, frame: FrameType | None) -> Callable[[], object]:
        """Tells all listeners. Returns what tells the server."""
        for listener in list(self.listeners):
            listener.hear(number)
        if not self._holding:
            self._holding = 1  # for this call, so that the server hears nothing before all listeners are asked
            for listener in list(self.listeners):
                self._holding += 1  # counted before it is asked, since it may call back at once
                if not listener.hold(partial(self._release, number), self._patience):
                    self._holding -= 1
            return partial(self._release, number)
        if number == signal.SIGINT:
            self._has_passed = True
            return partial(self._found, number, frame)
        return _nothing

    def _release(self, number: int) -> None:
        self._holding -= 1
        if not self._holding and not self._has_passed:
            self._found(number, None)
        if not self._holding:
            self._has_passed = False


class _InLoop:
    """The handlers that an event loop of asyncio calls, in place of a server's.

    Signals that come together are handled in the order of their numbers, as Python does outside of event loops. The
    kernel runs the handler of the last one first, so that a SIGTERM behind a Ctrl-C seems to come before it.
    """

    def __init__(self) -> None:
        self.handlers: dict[int, _Handler] = {}
        self._loop = asyncio.get_running_loop()
        self._arrived: list[int] = []

    def take(self, number: int, reaction: Reaction) -> None:
        """Replaces what the event loop calls where it stands: a signal that is on its way reaches the new handler."""
        self.handlers[number] = _Handler(reaction)
        self._loop.add_signal_handler(number, self._arrive, number)

    def _arrive(self, number: int) -> None:
        self._arrived.append(number)
        if len(self._arrived) == 1:
            self._loop.call_soon(self._handle)

    def _handle(self) -> None:
        arrived, self._arrived = sorted(self._arrived), []
        for number in arrived:
            self.handlers[number](number, None)


#: Each is there until the process ends, as such an event loop is.
_in_loops: Final[dict[asyncio.AbstractEventLoop, _InLoop]] = {}


def listen(
    listener: Listener,
    at_default: Mapping[int, Reaction] | None = None,
    in_loop: Mapping[int, Reaction] | None = None,
) -> None:
    """Tells the listener of signals from now on, if the process has a handler that stops gracefully.

    Leaves the handlers alone where a signal ends the process at once or is ignored, and outside the main thread.

    Args:
        at_default: what replaces the default actions of signals; `None` if all are to stay.
        in_loop: what the running event loop calls for signals that the server has it take; `None` for other servers.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    taken = _taken(in_loop) if in_loop else {}
    for number in _signals():
        handler = taken.get(number) or _handler_of(number, at_default or {})
        if handler is not None:
            handler.listeners.add(listener)


def _handler_of(number: int, at_default: Mapping[int, Reaction]) -> _Handler | None:
    """The process's handler that tells listeners, installed if it is not there yet. `None` if the present one stays."""
    found = signal.getsignal(number)
    if isinstance(found, _Handler):  # installed for another bridge
        return found
    if _is_graceful(found):
        is_impatient = _module_of(found).startswith(_IMPATIENT)
        reaction = Reaction(cast(_Found, found), Patience.NOTHING if is_impatient else Patience.REQUESTS)
    elif found is signal.SIG_DFL and number in at_default:
        reaction = at_default[number]
    else:
        return None
    handler = _Handler(reaction)
    signal.signal(number, handler)
    return handler


def _taken(in_loop: Mapping[int, Reaction]) -> dict[int, _Handler]:
    """The handlers in place of what the event loop calls. What the application has taken since is left to it."""
    loop = asyncio.get_running_loop()
    taken = _in_loops.get(loop)
    if taken is None:
        taken = _in_loops[loop] = _InLoop()
        for number, reaction in in_loop.items():
            if _module_of(signal.getsignal(number)) in _LOOPS:
                taken.take(number, reaction)
    return taken.handlers


def _signals() -> list[signal.Signals]:
    """The signals that stop a server. gunicorn also sends its workers SIGQUIT, which means other things elsewhere."""
    return [*_SIGNALS, *([signal.SIGQUIT] if "gunicorn.arbiter" in sys.modules else [])]


def _is_graceful(handler: object) -> bool:
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    return _module_of(handler) not in _CANCELLERS


def _module_of(handler: object) -> str:
    """The module that a handler was defined in."""
    function = handler.func if isinstance(handler, partial) else handler
    return getattr(function, "__module__", None) or ""
