"""`RedisStore`: where a bridge shares its runs. This module imports no `redis`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ...arguments import described, is_a, number, shown
from ...errors import ConfigurationError

__all__ = ["RedisStore"]


@dataclass(frozen=True, eq=False)
class RedisStore:
    """Shares the runs of a bridge among all workers that have the same Redis.

    A request for a run is then served by whichever worker it reaches: a viewer that comes back, a `DELETE`, a repeated
    key. If the worker that reads a run dies, its viewers are told `owner_lost`, and its command is ended. While Redis
    is away, viewers that are served go on being served.

    It needs Redis 6.2 or newer, or Valkey, and asyncio. The extra `redis` brings its client.

    Args:
        url: of Redis, such as `redis://localhost:6379/0`; or a function that takes the seconds for an answer and
            returns a `redis.asyncio.Redis` with one connection, for Sentinel and the like. `repr` leaves it out.
        lease: seconds after which a worker that has stopped beating counts as dead.
        linger: seconds that frames wait for others, so that all travel together.
        prefix: what the names of all keys begin with. Bridges with different users need different ones.
        replay: bytes of each run that Redis keeps for viewers that come late to another worker; a `gap` tells them how
            much they missed. `None` keeps as much there as in the worker that reads the run, which is the bridge's
            `replay`. That is the most.
        when_down: what happens to a request without a key that would start a run while Redis is away. `local` starts it
            on this worker, and shares it when Redis is back; `refuse` answers 503 with `Retry-After`. A request with a
            key is always refused then: another worker may have its run.

    Raises:
        ConfigurationError: an argument is of the wrong kind or out of range.
    """

    url: str | Callable[[float], object] = field(repr=False)
    lease: float = field(default=5.0, kw_only=True)
    linger: float = field(default=0.005, kw_only=True)
    prefix: str = field(default="sse_bridge:", kw_only=True)
    replay: int | None = field(default=None, kw_only=True)
    when_down: Literal["local", "refuse"] = field(default="local", kw_only=True)
    _bridges: list[object] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not is_a(self.url, str) and (is_a(self.url, type) or not callable(self.url)):
            raise ConfigurationError(
                f"RedisStore needs the URL of Redis, such as 'redis://localhost:6379/0', not {described(self.url)}."
            )
        for name, seconds, least in (("lease", self.lease, 1.0), ("linger", self.linger, 0.0)):
            value = number(seconds)
            if value is None or not least <= value < 3600:
                raise ConfigurationError(
                    f"RedisStore({name}=...) takes seconds, {least:g} or more, not {shown(seconds)}."
                )
        if not is_a(self.prefix, str):
            raise ConfigurationError(f"RedisStore(prefix=...) takes a string, not {described(self.prefix)}.")
        if self.replay is not None and not (
            is_a(self.replay, int) and not is_a(self.replay, bool) and self.replay >= 0
        ):
            raise ConfigurationError(
                f"RedisStore(replay=...) takes a whole number of bytes, 0 or more, or None for as much as the bridge "
                f"keeps, not {shown(self.replay)}."
            )
        if not is_a(self.when_down, str) or self.when_down not in ("local", "refuse"):
            raise ConfigurationError(
                f"RedisStore(when_down=...) takes 'local', to start runs on this worker while Redis is away, or "
                f"'refuse', to answer 503, not {_written(self.when_down)}."
            )

    def take(self, bridge: object) -> None:
        """Makes it the store of one bridge.

        Raises:
            ConfigurationError: it is another bridge's already.
        """
        if self._bridges:
            raise ConfigurationError(
                "This RedisStore belongs to another bridge. Make one for each, with a prefix of its own: their users "
                "may differ."
            )
        self._bridges.append(bridge)


def _written(choice: object) -> str:
    return repr(choice) if is_a(choice, str) else described(choice)
