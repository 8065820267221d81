"""The runs of this process, by token and by the key that started them.

The store runs on the calls it gets: each one forgets the runs that have expired, and a bound on bytes holds in between.
Time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import Final, NamedTuple

from ..relay.mirror import Followed

__all__ = ["DEFAULT_KEEP", "DEFAULT_KEEP_BYTES", "Key", "MemoryStore"]

#: Seconds. The end of a run may be lost with a connection, and a browser comes back `retry_ms` after it, or once it has
#: a network again.
DEFAULT_KEEP: Final = 60.0
#: Bytes: eight runs that filled the default `replay`, or thousands that printed little.
DEFAULT_KEEP_BYTES: Final = 64 * 1024 * 1024
#: Bytes that a run holds besides its log. They bound the number of finished runs that printed little.
RUN_SIZE: Final = 16 * 1024


class Key(NamedTuple):
    """What makes requests share a run."""

    #: The identity that sent the key: the same word of another identity is another key.
    owner: str | None
    word: str
    #: Whether it stands for one exec, however often it comes. Otherwise a run that is over is started anew.
    is_idempotency_key: bool
    #: Whether the source names it. No request can: a client might otherwise start a run of its own under it.
    is_of_source: bool = False

    @property
    def name(self) -> tuple[str | None, str, bool]:
        """What tells it from other keys. The header of a request and the application's `key` may name the same."""
        return self.owner, self.word, self.is_of_source


class _Resting(NamedTuple):
    """A run that is done and has no viewer."""

    expires: float
    size: int
    #: Whether the store keeps it longer than others, for a viewer that comes back.
    is_awaited: bool


class MemoryStore:
    """The runs of one process.

    Args:
        keep: seconds that a run can be read after its end, and after its last viewer has left; `None` for no limit.
        keep_bytes: bytes that all runs together may hold which are over and have no viewer; `None` for no limit. The
            newest of them is always kept.
    """

    def __init__(self, keep: float | None = DEFAULT_KEEP, keep_bytes: int | None = DEFAULT_KEEP_BYTES) -> None:
        self._keep = inf if keep is None else keep
        self._keep_bytes = inf if keep_bytes is None else keep_bytes
        self._runs: dict[str, Followed] = {}
        self._tokens: dict[tuple[str | None, str, bool], str] = {}  # by the key's name
        self._keys: dict[str, Key] = {}  # by token
        self._resting: dict[Followed, _Resting] = {}  # in the order in which they were left
        self._resting_bytes = 0

    @property
    def runs(self) -> Collection[Followed]:
        """The runs that go on, and the finished ones that can still be resumed."""
        return self._runs.values()

    def add(self, run: Followed, key: Key | None) -> None:
        """Adds a run that begins. Requests with the same `key` find it from now on."""
        self._runs[run.token] = run
        if key is not None:
            self._tokens[key.name], self._keys[run.token] = run.token, key

    def get(self, token: str, now: float) -> Followed | None:
        """The run with this token; `None` if it is unknown or has expired."""
        self._expire(now)
        return self._runs.get(token)

    def started_with(self, key: Key, now: float) -> Followed | None:
        """The run to share by this key; `None` if there is none, or a new one is to be started."""
        self._expire(now)
        run = self._runs.get(self._tokens.get(key.name, ""))
        if run is None or (run.is_over and not self._keys[run.token].is_idempotency_key):
            return None
        return run

    def settle(self, run: Followed, now: float) -> None:
        """Begins a run's time if it is done and has no viewer, and ends it if it has one again. May be called again.

        A run whose work is still being ended is not done: it can be found, and counts against limits. A viewer that
        was sent away still finds its run when it comes back, however short `keep` is.
        """
        if run.token not in self._runs:
            return
        self._wake(run)
        if run.done.is_set and not run.audience.viewers:
            returns_within = run.audience.returns_within
            expires = now + max(self._keep, returns_within)
            resting = _Resting(expires, run.audience.log.kept + RUN_SIZE, is_awaited=returns_within > self._keep)
            self._resting[run] = resting
            self._resting_bytes += resting.size
        self._expire(now)

    def forget(self, run: Followed) -> None:
        """Removes a run. A request may use its key again."""
        self._wake(run)
        self._runs.pop(run.token, None)
        self.free(run)

    def free(self, run: Followed) -> None:
        """Lets a request use the run's key again. The run can still be found by its token."""
        key = self._keys.pop(run.token, None)
        if key is not None and self._tokens.get(key.name) == run.token:  # unless a newer run has it
            del self._tokens[key.name]

    def _wake(self, run: Followed) -> None:
        resting = self._resting.pop(run, None)
        if resting is not None:
            self._resting_bytes -= resting.size

    def _expire(self, now: float) -> None:
        expired = []
        for run, resting in self._resting.items():  # all that are not awaited expire in this order
            if now >= resting.expires:
                expired.append(run)
            elif not resting.is_awaited:
                break
        for run in expired:
            self.forget(run)
        while self._resting_bytes > self._keep_bytes and len(self._resting) > 1:
            self.forget(next(iter(self._resting)))
