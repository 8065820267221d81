"""The runs of this process, by token and by the idempotency key that started them.

The store runs on the calls it gets: each one forgets the runs that have expired, and a bound on bytes holds in between.
Time comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple

from ..relay.run import Run

__all__ = ["MemoryStore"]

#: Seconds for which a finished run can be resumed. Its end may be lost with a connection, and a browser comes back
#: `retry` ms after it, or once it has a network again.
KEEP_FINISHED: Final = 60.0
#: Bytes that all finished runs together may hold.
MAX_FINISHED_BYTES: Final = 64 * 1024 * 1024
#: Bytes that a run holds besides its log. They bound the number of finished runs that printed little.
RUN_SIZE: Final = 16 * 1024


class _Finished(NamedTuple):
    expires: float
    run: Run
    size: int  # bytes it holds, counted when it finished


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
        """The runs that go on, and the finished ones that can still be resumed."""
        return self._runs.values()

    def add(self, run: Run, key: str | None) -> None:
        """Adds a run that begins. `key` is the idempotency key of the request that started it."""
        self._runs[run.token] = run
        if key is not None:
            self._tokens[key], self._keys[run.token] = run.token, key

    def get(self, token: str, now: float) -> Run | None:
        """The run with this token; `None` if it is unknown or has expired."""
        self._expire(now)
        return self._runs.get(token)

    def started_with(self, key: str, now: float) -> Run | None:
        """The run that a request with this idempotency key started; `None` if it is unknown or has expired."""
        self._expire(now)
        token = self._tokens.get(key)
        return None if token is None else self._runs.get(token)

    def finish(self, run: Run, now: float) -> None:
        """Marks a run as finished. It stays for `KEEP_FINISHED`, for viewers that missed its end."""
        finished = _Finished(now + KEEP_FINISHED, run, run.audience.log.kept + RUN_SIZE)
        self._finished.append(finished)
        self._finished_bytes += finished.size
        self._expire(now)

    def forget(self, run: Run) -> None:
        """Removes a run. A request may use its key again."""
        del self._runs[run.token]
        self._tokens.pop(self._keys.pop(run.token, ""), None)

    def _expire(self, now: float) -> None:
        while self._finished and (self._finished[0].expires <= now or self._finished_bytes > MAX_FINISHED_BYTES):
            finished = self._finished.popleft()
            self._finished_bytes -= finished.size
            self.forget(finished.run)
