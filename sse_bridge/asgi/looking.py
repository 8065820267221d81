"""Taking a bridge's statistics from any thread: of a scrape, or of an exporter.

Counting changes what it counts: a viewer's cursor gives up what its policy allows. And several numbers have to belong
together, or a counter would seem to go back, which Prometheus takes for a restart. So the event loop counts, between
two of its steps, and the path of a line needs no lock.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from threading import Lock, get_ident
from typing import Final

from anyio.lowlevel import EventLoopToken

from ..relay.statistics import BridgeStatistics
from .stopping import call_soon

__all__ = ["Look"]

#: Seconds for which another thread waits for the event loop. Prometheus gives a scrape ten. An event loop that waits
#: for that very thread never answers: one that shuts an exporter down, for instance.
PATIENCE: Final = 1.0


class Look:
    """Takes snapshots of a bridge, for any thread.

    Args:
        count: takes one, in the event loop's thread.
    """

    def __init__(self, count: Callable[[], BridgeStatistics]) -> None:
        self._count = count
        self._last = count()
        self._home: tuple[int, EventLoopToken] | None = None  # the event loop, and its thread
        self._moving = Lock()

    def settle_in(self, token: EventLoopToken) -> None:
        """The running event loop changes what is counted, from now on: not while another thread counts."""
        with self._moving:
            self._home = get_ident(), token

    def take(self) -> BridgeStatistics:
        """A snapshot; the last one if the event loop is too busy to take one."""
        home = self._home
        if home is None:
            return self._take_at_rest(home)
        thread, token = home
        if thread == get_ident():
            return self._take()
        asked: Future[BridgeStatistics] = Future()
        try:
            call_soon(token, lambda: self._answer(asked))
        except RuntimeError:  # the event loop is over, and changes nothing any more
            return self._take_at_rest(home)
        try:
            return asked.result(PATIENCE)
        except TooLate:
            asked.cancel()
            return self._last

    def _take_at_rest(self, home: tuple[int, EventLoopToken] | None) -> BridgeStatistics:
        """Takes one in any thread, while no event loop changes what is counted. None can begin to in the meantime."""
        with self._moving:
            if self._home is home:
                return self._take()
        return self.take()

    def _take(self) -> BridgeStatistics:
        self._last = self._count()
        return self._last

    def _answer(self, asked: Future[BridgeStatistics]) -> None:
        if not asked.set_running_or_notify_cancel():  # given up; from here on it cannot be
            return
        try:
            asked.set_result(self._take())
        except Exception as error:  # a callback that raises would end trio's event loop
            asked.set_exception(error)
