"""What metrics and traces are told about a bridge's runs, at the moment at which it happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from .info import Outcome, RunInfo

__all__ = ["Watcher", "Watchers"]

logger: Final = logging.getLogger("sse_bridge")


class Watcher:
    """Is told of every run of a bridge. Override the methods you need; see `SSEBridge.watch`.

    The bridge calls each method on the event loop that reads the run, and waits for it, so a method must be quick and
    must not block. Code that has to wait belongs into `on_start` or `on_end`. What a method raises is logged.

    All calls about one run come from one task, from `began` to `ended`. Its context variables are those of the request
    that started the run, or of the caller of `start`, and what `began` sets stays set until `ended`.
    """

    def began(self, run: RunInfo) -> None:
        """The upstream is about to be asked. `ended` follows in every case."""

    def started(self, run: RunInfo) -> None:
        """The upstream has said yes."""

    def resumed(self, run: RunInfo, *, exactly: bool) -> None:
        """The upstream's stream had broken off, and was opened again.

        Args:
            exactly: whether no output is missing.
        """

    def discarded(self, run: RunInfo, size: int) -> None:
        """An upstream frame of `size` bytes was larger than `max_frame_size`."""

    def ending(self, run: RunInfo) -> None:
        """The bridge is about to end the run's work, which may still go on."""

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        """The run has left no work running, or has stopped waiting for its work to end."""


class Watchers(Watcher):
    """The watchers of one bridge: tells each of them. What one raises is logged, and the run goes on."""

    def __init__(self) -> None:
        self._all: list[Watcher] = []

    def add(self, watcher: Watcher) -> None:
        """Adds a watcher. It is told of what happens from now on."""
        self._all.append(watcher)

    def began(self, run: RunInfo) -> None:
        self._tell(lambda watcher: watcher.began(run))

    def started(self, run: RunInfo) -> None:
        self._tell(lambda watcher: watcher.started(run))

    def resumed(self, run: RunInfo, *, exactly: bool) -> None:
        self._tell(lambda watcher: watcher.resumed(run, exactly=exactly))

    def discarded(self, run: RunInfo, size: int) -> None:
        self._tell(lambda watcher: watcher.discarded(run, size))

    def ending(self, run: RunInfo) -> None:
        self._tell(lambda watcher: watcher.ending(run))

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        self._tell(lambda watcher: watcher.ended(run, outcome))

    def _tell(self, say: Callable[[Watcher], None]) -> None:
        for watcher in self._all:
            try:
                say(watcher)
            except Exception:
                logger.exception("the watcher %s failed; the run is unaffected", type(watcher).__qualname__)
