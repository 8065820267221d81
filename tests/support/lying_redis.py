"""A Redis in memory that loses connections, answers, entries and keys: as much of it as a store of runs asks for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.lowlevel
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import ResponseError

__all__ = ["LyingRedis"]

Id = tuple[int, int]

#: uvloop's word for a connection that was reset a moment ago. redis-py lets it through.
_CLOSED: Final = "unable to perform operation on <TCPTransport closed=True>; the handler is closed"


class LyingRedis:
    """What all clients see.

    Args:
        rng: decides when it lies.
        lies: how often a question or its answer is lost, from 0 to 1.
    """

    def __init__(self, rng: random.Random, lies: float) -> None:
        self.rng = rng
        self.lies = lies
        #: How often it has lied.
        self.told = 0
        self.streams: dict[str, list[tuple[Id, dict[bytes, bytes]]]] = {}
        self._tops: dict[str, Id] = {}
        self._hashes: dict[str, dict[bytes, bytes]] = {}
        self._strings: dict[str, bytes] = {}
        self._news = anyio.Event()
        #: What it says of itself, by section.
        self.info: dict[str, dict[str, Any]] = {}
        #: Counts failovers, each of which breaks all connections.
        self.epoch = 0

    def client(self, timeout: float) -> Any:
        """For `RedisStore(...)`."""
        return _Client(self)

    # -- losses

    def lose_streams(self, name: str) -> None:
        """Forgets all keys that end so, as an eviction does."""
        for key in [key for key in self.streams if key.endswith(name)]:
            del self.streams[key]
            del self._tops[key]

    def lose_all(self) -> None:
        """Is another Redis, without a key, and breaks all connections."""
        self.epoch += 1
        for keys in (self.streams, self._tops, self._hashes, self._strings):
            keys.clear()

    def lose_entries(self, name: str, count: int) -> None:
        """Forgets the last entries of these streams, as a failover does, and breaks all connections."""
        self.epoch += 1
        for key, entries in self.streams.items():
            if key.endswith(name) and entries:
                del entries[-count:]
                self._tops[key] = entries[-1][0] if entries else (0, 0)

    def muddle(self, name: str) -> None:
        """Changes the order of the entries of streams that end so, and forgets some of them."""
        for key, entries in self.streams.items():
            if key.endswith(name):
                told = [fields for _, fields in entries]
                self.rng.shuffle(told)
                pairs = zip([id for id, _ in entries], told, strict=True)
                entries[:] = [pair for pair in pairs if self.rng.random() < 0.8]

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Takes commands that travel together."""
        await anyio.sleep(self.rng.choice((0, 0.0005, 0.003)))
        fate = self.rng.random()
        if fate < self.lies:
            self.told += 1
            raise self._loss()
        if commands[0][0] == "XREAD" and "BLOCK" in commands[0]:
            await self._wait_for_news(commands[0])
        answers = [self._answer(command) for command in commands]
        if fate < 2 * self.lies:
            self.told += 1
            raise self._loss()
        return answers

    def _loss(self) -> Exception:
        return Broken("the connection is lost") if self.rng.random() < 0.5 else RuntimeError(_CLOSED)

    async def _wait_for_news(self, command: tuple[Any, ...]) -> None:
        with anyio.move_on_after(int(command[command.index("BLOCK") + 1]) / 1000):
            while not self._answer(command):
                await self._news.wait()

    # -- commands

    def _answer(self, command: tuple[Any, ...]) -> Any:
        act: Callable[..., Any] = getattr(self, f"_{command[0].lower()}")
        try:
            return act(*command[1:])
        except ResponseError as error:
            return error

    def _xadd(self, key: str, *arguments: Any) -> Any:
        rest = list(arguments)
        may_make, least = True, None
        while rest[0] in ("NOMKSTREAM", "MINID", "MAXLEN"):
            word = rest.pop(0)
            if word == "NOMKSTREAM":
                may_make = False
            else:
                assert rest.pop(0) == "~"
                bound = rest.pop(0)
                least = (int(bound), 0) if word == "MINID" else None
        if key not in self.streams and not may_make:
            return None
        top = self._tops.get(key, (0, 0))
        if rest[0] == "*":
            id = (top[0] + 1, 0)
        else:
            first, _, second = str(rest[0]).partition("-")
            id = (int(first), int(second))
        if top >= (2**64 - 1, 2**64 - 1):
            raise ResponseError("The stream has exhausted the last possible ID")
        if id <= top:
            raise ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
        fields = {_bytes(name): _bytes(value) for name, value in zip(rest[1::2], rest[2::2], strict=True)}
        entries = self.streams.setdefault(key, [])
        entries.append((id, fields))
        self._tops[key] = id
        if least is not None:
            entries[:] = [entry for entry in entries if entry[0] >= least]
        self._news.set()
        self._news = anyio.Event()
        return b"%d-%d" % id

    def _xread(self, *arguments: Any) -> Any:
        at = arguments.index("STREAMS") + 1
        count = int(arguments[arguments.index("COUNT") + 1])
        keys, ids = arguments[at : at + (len(arguments) - at) // 2], arguments[at + (len(arguments) - at) // 2 :]
        found = []
        for key, after in zip(keys, ids, strict=True):
            first, _, second = after.partition("-")
            behind = [entry for entry in self.streams.get(key, []) if entry[0] > (int(first), int(second))]
            if behind:
                found.append([key.encode(), _written(behind[:count])])
        return found or None

    def _xrange(self, key: str, *bounds: Any) -> Any:
        return _written(self.streams.get(key, [])[: int(bounds[-1])])

    def _xrevrange(self, key: str, *bounds: Any) -> Any:
        return _written(self.streams.get(key, [])[::-1][: int(bounds[-1])])

    def _hset(self, key: str, *pairs: Any) -> int:
        fields = self._hashes.setdefault(key, {})
        before = len(fields)
        fields.update({_bytes(name): _bytes(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)})
        return len(fields) - before

    def _hgetall(self, key: str) -> dict[bytes, bytes]:
        return dict(self._hashes.get(key, {}))

    def _hexists(self, key: str, name: str) -> int:
        return int(_bytes(name) in self._hashes.get(key, {}))

    def _hlen(self, key: str) -> int:
        return len(self._hashes.get(key, {}))

    def _hdel(self, key: str, *names: str) -> int:
        return sum(self._hashes.get(key, {}).pop(_bytes(name), None) is not None for name in names)

    def _set(self, key: str, value: Any, *options: Any) -> Any:
        if "NX" in options and key in self._strings:
            return None
        self._strings[key] = _bytes(value)
        return True

    def _get(self, key: str) -> bytes | None:
        return self._strings.get(key)

    def _del(self, key: str) -> int:
        self.streams.pop(key, None)
        self._tops.pop(key, None)
        return int((self._strings.pop(key, None) or self._hashes.pop(key, None)) is not None)

    def _info(self, section: str) -> dict[str, Any]:
        return self.info.get(section, {})

    def _ping(self) -> bool:
        return True

    def _expire(self, key: str, seconds: int) -> int:
        return 1  # no test lasts as long


class _Client:
    def __init__(self, redis: LyingRedis) -> None:
        self._redis = redis
        self._epoch = redis.epoch

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        answers = await self._redis.ask(commands)
        if self._epoch != self._redis.epoch:
            raise Broken("a failover")
        return answers

    async def execute_command(self, *command: Any) -> Any:
        (answer,) = await self.ask([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pipeline(self, transaction: bool) -> _Pipeline:
        assert not transaction
        return _Pipeline(self)

    async def aclose(self, close_connection_pool: bool) -> None:
        assert close_connection_pool


class _Pipeline:
    def __init__(self, client: _Client) -> None:
        self._client = client
        self._commands: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._commands)

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        answers = await self._client.ask(self._commands)
        for answer in answers:
            if raise_on_error and isinstance(answer, Exception):
                raise answer
        return answers


def _written(entries: list[tuple[Id, dict[bytes, bytes]]]) -> list[Any]:
    return [(b"%d-%d" % id, dict(fields)) for id, fields in entries]


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
