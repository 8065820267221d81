"""Whether a Redis can hold runs: asked on each new connection, before its first command."""

from __future__ import annotations

import logging
from typing import Any, Final

__all__ = ["Fitness", "Unfit"]

logger: Final = logging.getLogger("sse_bridge")

#: `XADD` has `MINID` and `NOMKSTREAM` since.
_OLDEST: Final = (6, 2)
_SAFE_POLICY: Final = "noeviction"


class Unfit(ConnectionError):
    """This Redis cannot hold runs. For all else it counts as away."""


class Fitness:
    """Looks at a Redis, and says in the log what is wrong with it: each fault once."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._is_forbidden = False

    async def check(self, client: Any) -> None:
        """Looks at the Redis of a client.

        Raises:
            Unfit: it is too old.
        """
        from redis.exceptions import ResponseError

        if self._is_forbidden:
            return
        try:
            version = _said(await client.execute_command("INFO", "server")).get("redis_version", "")
            memory = _said(await client.execute_command("INFO", "memory"))
        except ResponseError:  # by its access list, or since a provider has taken the command out
            self._is_forbidden = True
            self._say(logging.DEBUG, "Redis refuses INFO; version and maxmemory are not checked")
            return
        if _is_older(version):
            self._say(
                logging.ERROR,
                "Redis %s is too old for RedisStore, which counts it as away: each worker serves its own runs alone. "
                "Use Redis 6.2 or newer, or Valkey",
                version,
            )
            raise Unfit("Redis is too old")
        policy = memory.get("maxmemory_policy", _SAFE_POLICY)
        if int(memory.get("maxmemory", 0)) > 0 and policy != _SAFE_POLICY:
            self._say(
                logging.WARNING,
                "Redis has maxmemory-policy %s, so it may evict the frames of quiet runs: set it to noeviction, and "
                "keep no cache in the same Redis",
                policy,
            )

    def _say(self, level: int, message: str, *more: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.log(level, message, *more)


def _said(answer: Any) -> dict[str, str]:
    """A section of `INFO`: redis-py reads it, unless a client of the application's leaves it as bytes."""
    if isinstance(answer, dict):
        return {_text(name): _text(value) for name, value in answer.items()}
    lines = _text(answer).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_older(version: str) -> bool:
    numbers = [int(word) for word in version.split(".")[:2] if word.isdigit()]
    return len(numbers) == len(_OLDEST) and tuple(numbers) < _OLDEST
