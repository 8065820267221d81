"""What hears signals in the place of a bridge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sse_bridge.asgi.signals import Listener, Patience, Reaction, listen

__all__ = ["Ear"]


class Ear:
    """A listener on an event loop that runs scheduled functions at once.

    Args:
        call_soon: see `Listener`.
        at_default: see `listen`, as `in_loop`.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object] = lambda function: function(),
        at_default: Mapping[int, Reaction] | None = None,
        in_loop: Mapping[int, Reaction] | None = None,
    ) -> None:
        self.told: list[str] = []
        #: Whether it holds signals back, and what lets them through.
        self.holds = False
        self.releases: list[Callable[[], None]] = []
        #: What the server waits for, as it was told at each signal.
        self.patience: list[Patience] = []
        stop, hurry = partial(self.told.append, "stop"), partial(self.told.append, "hurry")
        self.listener = Listener(call_soon, stop, hurry, self.hold)
        listen(self.listener, at_default, in_loop)

    def hold(self, release: Callable[[], None], patience: Patience) -> bool:
        self.patience.append(patience)
        if self.holds:
            self.releases.append(release)
        return self.holds
