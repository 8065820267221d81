"""Runs of this process, by their tokens and by the keys that started them.

There is no timer: what has expired goes when somebody looks, and a bound on bytes holds meanwhile. Time comes in as an
argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple

from ..relay.run import Run

__all__ = ["MemoryStore"]

#: Seconds for which a run that is over can still be resumed: its end may have been lost with a connection, and browsers
#: come back after `retry` ms, once there is a network again.
KEEP_FINISHED: Final = 60.0
#: Bytes that all runs that are over may hold together.
MAX_FINISHED_BYTES: Final = 64 * 1024 * 1024
#: Bytes that a run holds beside its log; so that their number is bounded, too, if they printed nothing.
_RUN_SIZE: Final = 16 * 1024


class _Finished(NamedTuple):
    expires: float
    run: Run
    size: int  # bytes it held when it ended


class MemoryStore:
    """The runs of one process."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._tokens: dict[str, str] = {}  # by idempotency key
        self._keys: dict[str, str] = {}  # by token
        self._finished: deque[_Finished] = deque()
        self._finished_bytes = 0

    @property
    def runs(self) -> Collection[Run]:
        """Those that go on, and those that are over and still known."""
        return self._runs.values()

    def add(self, run: Run, key: str | None) -> None:
        """A run that begins; `key` is the idempotency key of the request that started it."""
        self._runs[run.token] = run
        if key is not None:
            self._tokens[key], self._keys[run.token] = run.token, key

    def get(self, token: str, now: float) -> Run | None:
        """The run of that name, unless it is unknown or has expired."""
        self._expire(now)
        return self._runs.get(token)

    def started_with(self, key: str, now: float) -> Run | None:
        """The run that a request with this idempotency key started."""
        self._expire(now)
        token = self._tokens.get(key)
        return None if token is None else self._runs.get(token)

    def finish(self, run: Run, now: float) -> None:
        """The run is over. It stays for a while, for those who have not seen its end."""
        finished = _Finished(now + KEEP_FINISHED, run, run.audience.log.kept + _RUN_SIZE)
        self._finished.append(finished)
        self._finished_bytes += finished.size
        self._expire(now)

    def forget(self, run: Run) -> None:
        """There is nothing to come back to, and the key may be used again."""
        del self._runs[run.token]
        self._tokens.pop(self._keys.pop(run.token, ""), None)

    def _expire(self, now: float) -> None:
        while self._finished and (self._finished[0].expires <= now or self._finished_bytes > MAX_FINISHED_BYTES):
            finished = self._finished.popleft()
            self._finished_bytes -= finished.size
            self.forget(finished.run)
