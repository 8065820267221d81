"""Which worker starts the run of a key: one of them all, once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio

from ...relay.mirror import Followed
from ...upstream.base import Source
from ..base import Claim, Stage, StoreAway
from ..memory import Key
from .fetching import Fetcher
from .names import Names, fingerprint, run_name
from .outlet import Outlet

__all__ = ["Keys"]

#: Seconds that a key stands for a run that is being started.
_CLAIMED: Final = 90
#: Seconds that a worker has for giving a key to another run, or to none.
_TAKEN: Final = 15
#: Looks at a key whose run is unknown yet, and seconds between them.
_LOOKS: Final = 3
_LOOK_AGAIN: Final = 0.05
#: Seconds between attempts to free a key while Redis is away.
_FREE_AGAIN: Final = 1.0


class Keys:
    """Claims keys in Redis, and frees them.

    Args:
        names: of what is in Redis.
        fetcher: asks Redis.
        worker: this one.
        here: this worker's run of that name, also one that is over and kept.
    """

    def __init__(self, names: Names, fetcher: Fetcher, worker: str, here: Callable[[str], Outlet | None]) -> None:
        self._names = names
        self._fetcher = fetcher
        self._worker = worker
        self._here = here

    async def claim(self, token: str, key: Key, source: Source, stage: Stage) -> Claim:
        """Claims a key among all workers. Raises as `SharedStore.claim`, and may have claimed it then."""
        return await self._fetcher.ask(lambda: self._claim(token, key, source, stage))

    async def _claim(self, token: str, key: Key, source: Source, stage: Stage) -> Claim:
        name, said = self._names.key(key), f"{token} {fingerprint(source, token)}"
        if await self._fetcher.may_have_lost() and await self._fetcher.command("GET", name) is None:
            raise StoreAway("Redis was away, and may not know all keys again.")
        for _ in range(_LOOKS):
            if await self._fetcher.command("SET", name, said, "NX", "EX", _CLAIMED):
                return Claim(token, None)
            found = await self._fetcher.command("GET", name)
            if found is None:
                continue
            other, _, mark = found.decode().partition(" ")
            if mark != fingerprint(source, other):
                return Claim(other, None, is_conflict=True)
            here = self._here(run_name(other))
            mirror = await self._fetcher.open(other, stage) if here is None else None
            run: Followed | None = mirror if here is None else here.run
            if run is not None and (key.is_idempotency_key or not run.is_over):
                return Claim(other, mirror)
            if run is not None and await self._may_take(key, other, found):
                await self._fetcher.command("SET", name, said, "EX", _CLAIMED)
                return Claim(token, None)
            await anyio.sleep(_LOOK_AGAIN)
        # Another worker is about to start a run: between its claim and what tells of the run lies one question. A run
        # of this one's would be a second command.
        raise StoreAway("The key stands for a run that is not known yet.")

    async def free(self, token: str, key: Key) -> None:
        """No run came of that claim, or its run has started nothing. A key that stands for another run stays."""
        until = anyio.current_time() + _CLAIMED
        while anyio.current_time() < until:
            with suppress(StoreAway):
                await self._fetcher.ask(lambda: self._free(token, key))
                return
            await anyio.sleep(_FREE_AGAIN)

    async def _free(self, token: str, key: Key) -> None:
        name = self._names.key(key)
        found = await self._fetcher.command("GET", name)
        if found is not None and found.decode().partition(" ")[0] == token and await self._may_take(key, token, found):
            await self._fetcher.command("DEL", name)

    async def _may_take(self, key: Key, other: str, found: bytes) -> bool:
        """Whether this worker, and no other one, may take a key from a run that it stands for."""
        heir = self._names.heir(key, run_name(other))
        is_mine = await self._fetcher.command("SET", heir, self._worker, "NX", "EX", _TAKEN)
        if not is_mine and await self._fetcher.command("GET", heir) != self._worker.encode():
            return False
        still: object = await self._fetcher.command("GET", self._names.key(key))
        return still == found
