"""One connection to Redis, used by one task. Requests' tasks never touch it, so no cancellation hits a command.

A connection that breaks is made anew, with growing waits. No command is sent twice: the task that uses it first
looks at what has become of the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from .counting import Counts
from .fitness import Fitness

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["TIMEOUT", "Connect", "Connection", "connector", "fields_of", "is_full", "is_outage", "is_replaced"]

#: Makes a client with one connection. The argument is the seconds for an answer.
Connect: TypeAlias = Callable[[float], Any]

logger: Final = logging.getLogger("sse_bridge")

#: Seconds for an answer. Beyond that Redis counts as away.
TIMEOUT: Final = 2.0
_CONNECT_TIMEOUT: Final = 1.0
#: Seconds between attempts to reach it.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
#: Seconds after which Redis knows all runs again, if it has lost them: their workers come back within a second or two,
#: and register them.
_SETTLING: Final = 4.0
_REPLACED: Final = "the connection broke while it was idle"


def connector(url: str) -> Connect:
    """Makes clients for a URL.

    All settings stand here, because redis-py's defaults moved with version 8. It must not repeat commands by itself.
    """
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    def connect(timeout: float) -> Redis:
        pool = ConnectionPool.from_url(
            url,
            max_connections=1,
            protocol=2,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            socket_connect_timeout=_CONNECT_TIMEOUT,
            socket_keepalive=True,
            health_check_interval=0,
        )
        return Redis(connection_pool=pool)

    connect(TIMEOUT)  # a URL that is malformed shows at once
    return connect


def is_outage(error: BaseException) -> bool:
    """Whether Redis is away, or full, rather than that it refuses a command for what it says."""
    from redis import exceptions

    if isinstance(error, exceptions.ReadOnlyError | exceptions.BusyLoadingError | exceptions.ClusterDownError):
        return True  # a failover, or a start
    if is_full(error):
        return True  # until keys have expired
    if isinstance(error, RuntimeError) and "handler is closed" in str(error):
        return True  # uvloop's, for a write to a connection that has just been reset; redis-py lets it through
    return isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError)


def is_full(error: BaseException) -> bool:
    """Whether Redis takes nothing more, by `noeviction`."""
    from redis import exceptions

    return isinstance(error, exceptions.OutOfMemoryError)


def fields_of(entry: Any) -> dict[bytes, bytes]:
    """The fields of a stream's entry, in either shape that redis-py has for it."""
    fields: Any = entry[1]
    return fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))


def is_replaced(error: BaseException) -> bool:
    """Whether a connection that may be made only once broke while it was idle."""
    return str(error) == _REPLACED


def _connect_once(client: Any) -> None:
    """Has a client fail instead of connecting again.

    redis-py replaces an idle connection that is broken without a word. After a failover, the next entry would then
    follow a tail that lacks entries, and they could not be put in front of it any more.
    """
    from redis.exceptions import ConnectionError

    is_connected = False

    async def connect(connection: Any) -> None:
        nonlocal is_connected
        if is_connected:
            raise ConnectionError(_REPLACED)
        is_connected = True
        await connection.on_connect()

    pool = getattr(client, "connection_pool", None)  # a test's client may have none
    if pool is not None:
        pool.connection_kwargs["redis_connect_func"] = connect


class Connection:
    """A client of one task.

    Args:
        connect: makes it; see `connector`.
        counts: where its returns are counted.
        fitness: looks at the Redis before the first command.
        timeout: seconds for an answer.
        once: whether a command fails when its connection was replaced, rather than goes to a Redis that may lack what
            the last one had.
    """

    def __init__(
        self, connect: Connect, counts: Counts, fitness: Fitness, timeout: float = TIMEOUT, *, once: bool = False
    ) -> None:
        self._connect = connect
        self._counts = counts
        self._fitness = fitness
        self._is_checked = False
        self._timeout = timeout
        self._once = once
        self._client: Redis | None = None
        self._pause = _FIRST_PAUSE
        #: Whether it was lost, and has not answered since.
        self.is_down = False
        self._back_at = -inf

    def another(self) -> Connection:
        """One more connection to the same Redis."""
        return Connection(self._connect, self._counts, self._fitness, self._timeout)

    @property
    def client(self) -> Redis:
        """The client, which connects with its first command."""
        if self._client is None:
            self._client = self._connect(self._timeout)
            if self._once:
                _connect_once(self._client)
        return self._client

    async def ready(self) -> None:
        """Looks at the Redis of a new connection.

        Raises:
            Unfit: it cannot hold runs.
        """
        if not self._is_checked:
            await self._fitness.check(self.client)
            self._is_checked = True

    @property
    def is_settling(self) -> bool:
        """Whether Redis was away a moment ago, so that it may lack what it knew."""
        return self.is_down or anyio.current_time() < self._back_at + _SETTLING

    def unsettle(self) -> None:
        """Redis is back in this moment."""
        self._back_at = anyio.current_time()

    async def lost(self, error: BaseException) -> None:
        """Drops a connection that broke, and waits a little."""
        _stay_cancelled()
        self.is_down = True
        await self.close()
        await anyio.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def works(self) -> None:
        """An answer has come: the next loss is a first one."""
        _stay_cancelled()
        if self.is_down:
            self.is_down = False
            self._counts.reconnects += 1
            self.unsettle()
        self._pause = _FIRST_PAUSE

    async def close(self) -> None:
        """Closes the connection, even if asyncio cancels the task meanwhile.

        redis-py closes it in a task of its own. At its end, asyncio cancels that task as well, and if the task has not
        begun by then, it closes nothing.
        """
        try:
            await self._close()
        finally:
            await self._close()  # does nothing unless asyncio cancelled the first call

    async def _close(self) -> None:
        client: Any = self._client
        self._is_checked = False
        if client is not None:
            with anyio.move_on_after(_CONNECT_TIMEOUT, shield=True):
                try:
                    await client.aclose(close_connection_pool=True)
                except Exception as error:  # it is broken
                    logger.debug("closing a connection to Redis: %r", type(error))
        self._client = None


def _stay_cancelled() -> None:
    """Ends the running task if asyncio has cancelled it and redis-py has swallowed the cancellation.

    redis-py writes with `asyncio.wait_for`. On Python 3.11 that function swallows a cancellation that arrives in the
    step of the event loop in which the write finishes. The task would go on, and the server could not stop: asyncio
    waits for every task that it has cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
