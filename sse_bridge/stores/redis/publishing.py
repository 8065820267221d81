"""Runs of this worker on their way to Redis: one pipeline in flight, for all runs that have new frames.

An entry's id is the number of its last frame. So Redis itself refuses an entry that it has already, a retry is
harmless, and a browser's `Last-Event-ID` is a place in the stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary

import anyio

from ...relay.ending import Cause
from ...relay.signal import Signal
from .connection import Connection, fields_of, is_full, is_outage, is_replaced
from .counting import Counts
from .endings import written_outcome, written_refusal
from .names import Names
from .outlet import Outlet

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["ENDED", "LIVES", "SEAL", "Publisher", "fenced"]

logger: Final = logging.getLogger("sse_bridge")

#: Entries of a run in one pipeline.
_ENTRIES: Final = 16
#: The last possible id. Redis refuses every entry behind it, from any worker.
SEAL: Final = "18446744073709551615-18446744073709551615"
#: Seconds that a run's keys live without its worker, which renews them; and after the run's end.
LIVES: Final = 90
ENDED: Final = 60
#: The same of a run whose name no viewer was told: for those that found it by its key meanwhile.
_UNKNOWN: Final = 5
#: Seconds after a run's end for which it is looked at again when Redis was away. Redis may have lost an end that it had
#: acknowledged, and mirrors wait for it. Well above the time of a failover (our choice).
_LOOKED_AT: Final = 300
#: Commands that wait for Redis to be back.
_WAITING: Final = 10_000
#: Entries of an inbox that are kept for a worker that stands still.
_INBOX: Final = 10_000


class Publisher:
    """Sends what the outlets have, and what other workers are to hear.

    Args:
        connection: its own.
        names: of the keys.
        linger: the least seconds between two pipelines.
        fenced: is called with an outlet whose run another worker has ended.
        lost: is called with an outlet whose stream Redis has lost, and perhaps all else that it knew of the run.
        counts: where published frames are counted.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        linger: float,
        fenced: Callable[[Outlet], None],
        lost: Callable[[Outlet], None],
        counts: Counts,
    ) -> None:
        self.outlets: dict[str, Outlet] = {}
        self._connection = connection
        self._names = names
        self._linger = linger
        self._fenced = fenced
        self._lost = lost
        self._counts = counts
        self._dirty: dict[Outlet, None] = {}
        self._commands: list[tuple[Any, ...]] = []
        self._ended_at: WeakKeyDictionary[Outlet, float] = WeakKeyDictionary()  # a run that is forgotten leaves it
        self._news = Signal()
        self.is_away = False
        self._is_full = False

    def add(self, outlet: Outlet) -> None:
        """Begins to publish a run."""
        self.outlets[outlet.name] = outlet
        self.notice(outlet)

    def notice(self, outlet: Outlet) -> None:
        """There is something to send of that run."""
        self._dirty[outlet] = None
        self._news.notify()

    def doubt(self, outlet: Outlet) -> None:
        """Redis may have lost the stream of that run, or another worker may have ended it."""
        outlet.is_doubtful = True
        self.notice(outlet)

    def doubt_ends(self) -> None:
        """Redis may have lost the ends of runs that are over."""
        now = anyio.current_time()
        for outlet, at in list(self._ended_at.items()):
            if outlet.ended.is_set and now - at < _LOOKED_AT:
                outlet.reopen()
                self.outlets[outlet.name] = outlet
                self.notice(outlet)

    def send(self, *command: Any) -> None:
        """Sends a command with the next pipeline. While Redis is away, the last ones wait."""
        self._commands.append(command)
        del self._commands[:-_WAITING]
        self._news.notify()

    def tell(self, worker: str, kind: str, run: str, *more: Any) -> None:
        """Tells another worker something about a run."""
        said: list[Any] = ["t", kind, "r", run]
        for name, value in zip("abcde", more, strict=False):
            said += [name, value]
        self.send("XADD", self._names.inbox(worker), "MAXLEN", "~", _INBOX, "*", *said)

    async def run(self) -> None:
        """Publishes until it is cancelled."""
        try:
            await self._publish_on()
        finally:
            await self._connection.close()

    async def _publish_on(self) -> None:
        last = -inf
        while True:
            while not self._dirty and not self._commands:
                await self._news.wait()
            if (left := last + self._linger - anyio.current_time()) > 0:
                await anyio.sleep(left)
            last = anyio.current_time()
            outlets, self._dirty = list(self._dirty), {}
            commands, self._commands = self._commands, []
            try:
                await self._publish(outlets, commands)
                self._connection.works()
                self.is_away = self._is_full = False
            except Exception as error:
                if not is_outage(error):
                    logger.exception("a bug in the bridge: publishing to Redis failed. Please report this traceback")
                else:
                    self._commands = commands + self._commands
                self._is_full = is_full(error)
                if not is_replaced(error):
                    self._warn_once(error)
                for outlet in self.outlets.values():
                    outlet.is_doubtful = True
                    self._dirty[outlet] = None
                await self._connection.lost(error)

    def _warn_once(self, error: Exception) -> None:
        if not self.is_away:
            self.is_away = True
            logger.warning(
                "Redis does not answer (%s); runs go on here, and are shared again later", type(error).__name__
            )

    async def _publish(self, outlets: list[Outlet], commands: list[tuple[Any, ...]]) -> None:
        await self._connection.ready()
        client = self._connection.client
        for outlet in outlets:
            if outlet.is_doubtful and not outlet.ended.is_set:
                await self._look_at_tail(client, outlet)
                if self._is_full and outlet.has_more:
                    await self._make_room(client, outlet)
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        taken: list[tuple[Outlet, int, bool]] = []  # with how many entries, and whether the last one is among them
        news: dict[str, list[str]] = {}
        for outlet in outlets:
            entries, is_last = self._add_entries(pipeline, outlet)
            if entries:
                taken.append((outlet, entries, is_last))
                for worker in outlet.listeners:
                    news.setdefault(worker, []).append(outlet.name)
        for worker, runs in news.items():
            inbox = self._names.inbox(worker)
            pipeline.execute_command("XADD", inbox, "MAXLEN", "~", _INBOX, "*", "t", "news", "r", " ".join(runs))
        if not len(pipeline):
            return
        answers = await pipeline.execute(raise_on_error=False)
        start = len(commands)
        for outlet, entries, is_last in taken:
            self._settle(outlet, is_last, answers[start : start + entries])
            start += entries
        for answer in answers:
            if isinstance(answer, Exception) and is_outage(answer):
                raise answer

    def _add_entries(self, pipeline: Any, outlet: Outlet) -> tuple[int, bool]:
        """Puts the next frames of a run into the pipeline; says how many entries that takes, and whether the last one
        is among them.
        """
        count, is_last = 0, False
        while count < _ENTRIES and not is_last and (said := self._add_entry(pipeline, outlet)) is not None:
            count, is_last = count + 1, said
        if outlet.has_more:
            self._dirty[outlet] = None
        return count, is_last

    def _add_entry(self, pipeline: Any, outlet: Outlet) -> bool | None:
        """Puts one entry into the pipeline; says whether it is the last one. `None`: there is nothing to send."""
        if outlet.ended.is_set or not outlet.is_attached:
            return None
        log = outlet.run.audience.log
        first, frames = outlet.take()
        is_last = log.closed and not outlet.has_more
        if not frames and not is_last:
            return None
        last = outlet.next - 1
        key = self._names.stream(outlet.name)
        command: list[Any] = ["XADD", key]
        if outlet.exists:  # so that a run that was asleep for longer than its keys live brings none back
            command.append("NOMKSTREAM")
        command += ["MINID", "~", outlet.first]
        if frames:
            command += [f"{last}-0", "f", first, "b", frames]
        else:  # the run ended without another frame, as an event stream does
            command += [f"{last}-1", "f", outlet.next, "b", b""]
        if is_last:
            command += ["e", written_outcome(outlet.run)]
            if outlet.run.refused is not None:
                command += ["x", written_refusal(outlet.run.refused)]
        pipeline.execute_command(*command)
        return is_last

    def _settle(self, outlet: Outlet, is_last: bool, answers: list[Any]) -> None:
        """Takes the answers to the entries of a run."""
        for answer in answers:
            if isinstance(answer, Exception) or answer is None:
                # It may be there already, or the stream is sealed, or gone, or Redis is full. The tail tells.
                outlet.is_doubtful = True
                self._dirty[outlet] = None
                if isinstance(answer, Exception) and not _is_known(answer):
                    raise answer
                return
        if not outlet.exists:
            self.send("EXPIRE", self._names.stream(outlet.name), LIVES)
        self._counts.published += outlet.settle()
        if is_last:
            self._end(outlet)

    def _end(self, outlet: Outlet) -> None:
        """Its last entry is in Redis."""
        seconds = ENDED if outlet.is_known else _UNKNOWN
        self.send("EXPIRE", self._names.stream(outlet.name), seconds)
        self.send("EXPIRE", self._names.meta(outlet.name), seconds)
        self._ended_at.setdefault(outlet, anyio.current_time())
        self.close(outlet)

    def close(self, outlet: Outlet) -> None:
        """Publishes no more of a run."""
        outlet.close()
        outlet.checked.notify()
        self.outlets.pop(outlet.name, None)
        self._dirty.pop(outlet, None)

    async def _look_at_tail(self, client: Redis, outlet: Outlet) -> None:
        """Finds out what Redis has of a run, and goes on behind it."""
        key = self._names.stream(outlet.name)
        entries: Any = await cast(Any, client).execute_command("XREVRANGE", key, "+", "-", "COUNT", 1)
        last = 0
        if entries:
            id, fields = entries[0][0], fields_of(entries[0])
            if id.decode() == SEAL:
                self._counts.refused += 1
                self._fenced(outlet)
                self.close(outlet)
                return
            last = int(id.split(b"-")[0])
            if b"e" in fields:
                self._end(outlet)
                return
        elif outlet.exists:
            # Redis lost it. (Had another worker buried this run, there would be a seal for ten minutes.)
            outlet.exists = False
            self._lost(outlet)
        found = outlet.rewind(last + 1)
        self._counts.published += max(0, found)
        self._counts.refilled += max(0, -found)
        outlet.is_doubtful = False
        outlet.checked.notify()

    async def _make_room(self, client: Redis, outlet: Outlet) -> None:
        """Gives up what Redis has of a run but for the newest quarter, so that those who follow it need not wait.

        Redis answers this command when it is full, too. The newest entry stays: it tells where to go on.
        """
        key = self._names.stream(outlet.name)
        entries = await cast(Any, client).execute_command("XLEN", key)
        if entries > 1:
            await cast(Any, client).execute_command("XTRIM", key, "MAXLEN", max(1, entries // 4))


def _is_known(error: Exception) -> bool:
    """Whether Redis has an entry already, or takes no more of that stream."""
    return "equal or smaller" in str(error) or "exhausted" in str(error)


def fenced(outlet: Outlet) -> None:
    """Ends a run that another worker has ended in the meantime."""
    outlet.run.cancel(Cause.OWNER_LOST)
