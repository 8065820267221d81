"""A bridge's runs in Redis: finds the worker of the running event loop, and makes one for each."""

from __future__ import annotations

import anyio.lowlevel

from ...errors import ConfigurationError
from ...relay.mirror import Mirror
from ...relay.run import Run
from ...relay.statistics import StoreStatistics, WorkerStatistics
from ...upstream.base import Source, Upstream, Work
from ..base import Claim, Stage
from ..memory import Key
from .config import RedisStore
from .connection import Connect, connector
from .counting import Counts
from .names import Names, run_name
from .outlet import Outlet
from .worker import Worker

__all__ = ["SharedRuns"]


class SharedRuns:
    """See `SharedStore`.

    Args:
        store: where they are shared.
        upstream: the bridge's, which ends the work of workers that are gone.

    Raises:
        ConfigurationError: the store is another bridge's, its URL is malformed, or redis-py is missing.
    """

    def __init__(self, store: RedisStore, upstream: Upstream) -> None:
        store.take(self)
        self._store = store
        self._upstream = upstream
        self._connect = _connect(store)
        self._counts = Counts()
        self._worker: Worker | None = None

    def enter(self, stage: Stage) -> None:
        """See `SharedStore.enter`."""
        self._here(stage)

    def publish(self, run: Run, work: Work, key: Key | None, stage: Stage) -> Outlet:
        """See `SharedStore.publish`."""
        return self._here(stage).publish(run, work, key)

    async def admit(self, stage: Stage) -> None:
        """See `SharedStore.admit`."""
        await self._here(stage).admit()

    async def register(self, run: Run) -> None:
        """See `SharedStore.register`."""
        if self._worker is not None:
            await self._worker.register(run)

    def statistics(self) -> StoreStatistics:
        """See `SharedStore.statistics`."""
        worker, counts = self._worker, self._counts
        frames, seconds = (0, 0.0) if worker is None else worker.lag()
        return StoreStatistics(
            mirrors=0 if worker is None else len(worker.fetcher.mirrors),
            frames_mirrored=counts.frames_mirrored,
            published=counts.published,
            publish_lag_frames=frames,
            publish_lag_seconds=seconds,
            reconnects=counts.reconnects,
            refused=counts.refused,
            refilled=counts.refilled,
            orphans_ended={outcome.value: count for outcome, count in counts.orphans.items()},
        )

    async def everywhere(self, stage: Stage) -> tuple[WorkerStatistics, ...]:
        """See `SharedStore.everywhere`."""
        return await self._here(stage).everywhere()

    def withdraw(self, run: Run, *, is_known: bool) -> None:
        """See `SharedStore.withdraw`."""
        if self._worker is not None:
            self._worker.withdraw(run, is_known=is_known)

    async def claim(self, token: str, key: Key, source: Source, stage: Stage) -> Claim:
        """See `SharedStore.claim`."""
        return await self._here(stage).claim(token, key, source, stage)

    def release(self, token: str, key: Key) -> None:
        """See `SharedStore.release`."""
        if self._worker is not None:
            self._worker.release(token, key)

    async def find(self, token: str, stage: Stage) -> Mirror | None:
        """See `SharedStore.find`."""
        worker = self._here(stage)
        return None if run_name(token) in worker.publisher.outlets else await worker.fetcher.find(token, stage)

    def _here(self, stage: Stage) -> Worker:
        if self._worker is None or not self._worker.is_in(anyio.lowlevel.current_token()):
            store = self._store
            self._worker = Worker(self._connect, Names(store.prefix), store, self._upstream, self._counts)
            self._worker.start(stage)
        return self._worker


def _connect(store: RedisStore) -> Connect:
    if not isinstance(store.url, str):
        return store.url
    try:
        return connector(store.url)
    except ModuleNotFoundError as error:
        raise ConfigurationError('RedisStore needs redis-py: pip install "sse_bridge[redis]".') from error
    except ValueError as error:
        raise ConfigurationError("RedisStore: the URL of Redis is malformed.") from error
