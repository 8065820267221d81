"""Finding runs: by their tokens and by their keys, in this process and in the store that workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from ..errors import KeyConflict
from ..relay.mirror import Followed, Mirror
from ..relay.run import Run
from ..stores.base import SharedStore, Stage
from ..stores.memory import Key, MemoryStore
from ..upstream.base import Shareable, Source
from ..wire.ids import new_token

__all__ = ["Finder", "key_of"]

_CONFLICT: Final = "This key was used for something else before. Use a new key for each thing to run."


class Finder:
    """Finds runs.

    Args:
        store: the runs of this process, and mirrors of other workers' runs.
        shared: the store that workers share; `None` if there is one process.
        stage: what that works with in the running event loop.
    """

    def __init__(self, store: MemoryStore, shared: SharedStore | None, stage: Callable[[], Stage]) -> None:
        self.store = store
        self._shared = shared
        self._stage = stage

    async def find(self, token: str) -> Followed | None:
        """The run of that name, of this worker's or of another one's; `None` if it is unknown or has expired.

        Raises:
            StoreAway: the runs of other workers cannot be asked for now.
        """
        stage = self._stage()
        run = self.store.get(token, stage.clock.now())
        if run is None and self._shared is not None:
            run = self._adopt(await self._shared.find(token, stage), stage)
        return run

    async def again(self, run: Followed) -> Followed | None:
        """The same run. A mirror may have been put away while the application was asked something.

        Raises:
            StoreAway: the runs of other workers cannot be asked for now.
        """
        is_here = not isinstance(run, Mirror) or not run.is_discarded
        return run if is_here else await self.find(run.token)

    def local(self, key: Key | None, source: Source) -> Followed | None:
        """The run of this process that requests with this key share; `None` if there is none.

        Raises:
            KeyConflict: that run has another source.
        """
        run = None if key is None else self.store.started_with(key, self._stage().clock.now())
        if isinstance(run, Run) and run.facts.source != source:
            raise KeyConflict(_CONFLICT)
        return run

    async def claim(self, key: Key | None, source: Source) -> tuple[str, Followed | None]:
        """Claims a key among all workers. Without a key, asks the store whether a run may start.

        Returns:
            The token for a new run, empty if any will do; and the run that has the key already, or `None`.

        Raises:
            KeyConflict: that run has another source.
            StoreAway: other workers cannot be asked now, or no run is to start meanwhile.
        """
        if self._shared is None:
            return "", None
        if key is None:
            await self._shared.admit(self._stage())
            return "", None
        token, stage = new_token(), self._stage()
        claim = await self._shared.claim(token, key, source, stage)
        if claim.is_conflict:
            raise KeyConflict(_CONFLICT)
        run = self.local(key, source)  # it may have begun meanwhile
        return token, run or self._adopt(claim.mirror, stage)

    @contextmanager
    def freeing(self, token: str, key: Key | None) -> Iterator[None]:
        """Frees a key that was claimed for `token` again if no run comes of it, since an exception does."""
        try:
            yield
        except BaseException:
            if self._shared is not None and token and key is not None:
                self._shared.release(token, key)
            raise

    def _adopt(self, mirror: Mirror | None, stage: Stage) -> Followed | None:
        """Keeps a mirror, so that the next request finds it here. Another request may have been faster."""
        if mirror is None:
            return None
        known = self.store.get(mirror.token, stage.clock.now())
        if known is None:
            self.store.add(mirror, None)
            mirror.over = partial(self._put_away, mirror, stage)
            if mirror.is_over:
                mirror.over()
        return known or mirror

    def _put_away(self, mirror: Mirror, stage: Stage) -> None:
        """Keeps a run that is over for as long as those of this process, and forgets a mirror that was dropped."""
        if mirror.is_discarded:
            self.store.forget(mirror)
        else:
            self.store.settle(mirror, stage.clock.now())


def key_of(source: Source, owner: str | None) -> Key | None:
    """The key under which the source itself is shared; `None` if it is not."""
    word = source.shared_as if isinstance(source, Shareable) else None
    return None if word is None else Key(owner, word, is_idempotency_key=False, is_of_source=True)
