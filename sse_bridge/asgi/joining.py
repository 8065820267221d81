"""Waiting for a run that another request has started, perhaps on another worker."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio

from ..errors import BridgeUnavailable
from ..relay.mirror import KEEP, Followed, Mirror
from ..stores.base import StoreAway
from .finding import Finder
from .hosting import stopping
from .stopping import Open

__all__ = ["answered", "ended"]

#: Seconds after which a mirror is looked at again: it may have been put away, and another one may know more.
_LOOK: Final = KEEP / 2
#: Seconds between attempts to find a run while the store is away.
_PAUSE: Final = 1.0


async def answered(run: Followed, here: Open, finder: Finder) -> Followed:
    """Waits until the upstream has said yes or no. The run is kept meanwhile, as if it had a viewer.

    Returns:
        The run, or another mirror of it.

    Raises:
        BridgeUnavailable: the server stops, or the run is gone.
        StoreAway: the runs of other workers cannot be asked for now.
    """
    while not run.answered.is_set:
        with here.wait(), run.audience.awaited(), anyio.move_on_after(_LOOK):
            await run.answered.wait()
        if not run.answered.is_set:
            if here.stopping:
                raise stopping()
            run = _known(await finder.again(run))
    return run


async def ended(run: Followed, finder: Finder) -> Followed:
    """Waits until a run has ended and left no work running; another worker's, until its last frame is here.

    Returns:
        The run, or another mirror of it.

    Raises:
        BridgeUnavailable: the run is gone.
    """
    while isinstance(run, Mirror) and not (run.done.is_set and not run.is_discarded):
        run.keep()
        with anyio.move_on_after(_LOOK):
            await run.done.wait()
        if run.is_discarded:
            with suppress(StoreAway):
                run = _known(await finder.find(run.token))
                continue
            await anyio.sleep(_PAUSE)
    await run.done.wait()
    return run


def _known(run: Followed | None) -> Followed:
    if run is None:
        raise BridgeUnavailable("The run is known to no worker any more.", code="run_unknown", retry_after=1.0)
    return run
