"""Who is alive: each worker beats once a second, and all judge by their own clocks.

A worker is dead if another one that was connected all the time, and awake, has seen the same beat for a whole lease.
TTLs are no evidence: after a restart of Redis, all of them are over at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import anyio

from ...upstream.base import Cancelled
from .connection import Connection, fields_of, is_outage
from .names import Names
from .publishing import SEAL
from .roll import Roll

__all__ = ["INTERVAL", "Beating", "Judge"]

logger: Final = logging.getLogger("sse_bridge")

#: Seconds between two beats.
INTERVAL: Final = 1.0
#: Seconds that a beat may be late. Beyond that this worker stood still, and has seen nothing of the others.
_LATENESS: Final = 1.0
#: Seconds that a worker has for ending the work of one dead run, before it or another one may try again.
_CLAIM: Final = 15
#: Attempts of one worker to end it: five minutes, in which a platform may restart, or a rate limit pass.
_MOST_ATTEMPTS: Final = 20
#: Seconds that a sealed stream is kept, and that the runs of a worker are remembered.
_SEALED: Final = 600
_REMEMBERED: Final = 24 * 3600
#: Seconds for a word of goodbye.
_GOODBYE: Final = 0.5
#: Runs of a dead worker that are ended at a time: keys may be held to 60 calls a minute.
_AT_A_TIME: Final = 4

#: Ends the work of a ticket; see `upstream.reaping.end_left_behind`.
EndWork = Callable[[str, bool], Awaitable[Cancelled]]


class Judge:
    """Says which workers are dead.

    Args:
        lease: seconds that a beat may stand still.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[str, tuple[bytes, float]] = {}  # the beat of each, and since when it is the same

    def forget(self) -> None:
        """This worker was cut off, or stood still: what it saw before is no evidence."""
        self._seen.clear()

    def look(self, beats: dict[str, bytes], now: float) -> list[str]:
        """Takes all beats; returns the workers that are dead."""
        self._seen = {
            worker: seen if (seen := self._seen.get(worker)) is not None and seen[0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        return [worker for worker, (_, since) in self._seen.items() if now - since >= self._lease]


class Beating:
    """Beats, and buries the dead.

    Args:
        connection: its own.
        names: of the keys.
        worker: this one.
        roll: writes its beat, and answers for all workers.
        lease: see `Judge`.
        end_work: ends what a dead worker has left behind.
        on_beat: is called after each beat, with whether Redis or this worker was away, or Redis has lost what it knew.
        on_silence: is called instead if Redis does not answer.
        renewals: the keys of this worker, with the seconds that they live; asked every half minute.
        orphans: how the work of dead workers was ended; counted here.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        worker: str,
        roll: Roll,
        lease: float,
        end_work: EndWork,
        on_beat: Callable[[bool], None],
        on_silence: Callable[[], None],
        renewals: Callable[[], list[tuple[str, int]]],
        orphans: dict[Cancelled, int],
    ) -> None:
        #: How the work of dead workers was ended.
        self.orphans = orphans
        self._connection = connection
        self._names = names
        self._worker = worker
        self._roll = roll
        self._judge = Judge(lease)
        self._end_work = end_work
        self._on_beat = on_beat
        self._on_silence = on_silence
        self._renewals = renewals
        self._count = 0
        self._burying: set[str] = set()
        self._told: set[str] = set()
        self._attempts: Counter[str] = Counter()  # by run: those that failed

    async def run(self) -> None:
        """Beats until it is cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                await self._beat_on(tasks)
        finally:
            await self._say_goodbye()

    async def _beat_on(self, tasks: Any) -> None:
        due = anyio.current_time()
        while True:
            was_asleep = anyio.current_time() - due > _LATENESS
            if was_asleep:
                self._judge.forget()
            try:
                await self._beat(tasks, was_asleep)
                self._connection.works()
            except Exception as error:
                self._judge.forget()
                self._roll.answer(None)
                self._on_silence()
                if not is_outage(error):
                    logger.exception("a bug in the bridge: a beat failed. Please report this traceback")
                await self._connection.lost(error)
            due = max(due + INTERVAL, anyio.current_time() - INTERVAL)
            await anyio.sleep(max(0.0, due - anyio.current_time()))

    async def _beat(self, tasks: Any, was_asleep: bool) -> None:
        await self._connection.ready()
        pipeline: Any = self._connection.client.pipeline(transaction=False)
        names, self._count = self._names, self._count + 1
        pipeline.execute_command("HSET", names.workers, self._worker, self._roll.beat(self._count))
        if self._count % 30 == 1:
            pipeline.execute_command("EXPIRE", names.runs(self._worker), _REMEMBERED)
            for key, seconds in self._renewals():
                pipeline.execute_command("EXPIRE", key, seconds)
        pipeline.execute_command("EXPIRE", names.inbox(self._worker), 60)
        pipeline.execute_command("HGETALL", names.workers)
        before = anyio.current_time()
        answers = await pipeline.execute()
        now = anyio.current_time()
        if now - before > _LATENESS:
            self._judge.forget()
        beats = _decoded(answers[-1])
        self._roll.answer(beats)
        dead = [worker for worker in self._judge.look(beats, now) if worker != self._worker]
        is_forgotten = self._count > 1 and answers[0] == 1  # Redis has lost all, or this worker was buried
        self._on_beat(was_asleep or is_forgotten or self._connection.is_down)
        for worker in dead:
            if worker not in self._burying:
                self._burying.add(worker)
                tasks.start_soon(self._bury, worker)

    async def _say_goodbye(self) -> None:
        """This worker ends in good order, so there is nothing to bury. Unless it leaves work behind."""
        with anyio.move_on_after(_GOODBYE, shield=True):
            try:
                client: Any = self._connection.client
                if not await client.execute_command("HLEN", self._names.runs(self._worker)):
                    await client.execute_command("HDEL", self._names.workers, self._worker)
            except Exception as error:
                logger.debug("taking leave of Redis: %r", type(error))
        await self._connection.close()

    # -- burying

    async def _bury(self, worker: str) -> None:
        """Ends the runs of a dead worker: their streams, and their work. May be done by several at once."""
        connection = self._connection.another()
        try:
            client: Any = connection.client
            tickets = _decoded(await client.execute_command("HGETALL", self._names.runs(worker)))
            if tickets and worker not in self._told:
                self._told.add(worker)
                logger.warning("a server process of this bridge is gone; its %d runs are ended", len(tickets))
            for run in tickets:  # viewers are told at once
                await self._seal(client, run)
            left = await self._end_orphans(client, worker, tickets)
            if not left:
                await client.execute_command("HDEL", self._names.workers, worker)
                await client.execute_command("DEL", self._names.inbox(worker))
        except Exception as error:
            if not any(is_outage(each) for each in _leaves(error)):
                logger.exception("a bug in the bridge: burying a worker failed. Please report this traceback")
        finally:
            self._burying.discard(worker)
            await connection.close()

    async def _seal(self, client: Any, run: str) -> None:
        """Ends a stream for good: Redis takes no entry behind the last possible id, from any worker."""
        from redis.exceptions import ResponseError

        key = self._names.stream(run)
        tail = await client.execute_command("XREVRANGE", key, "+", "-", "COUNT", 1)
        if tail and b"e" in fields_of(tail[0]):  # the run had ended by itself
            return
        try:
            await client.execute_command("XADD", key, SEAL, "e", "owner_lost")
            await client.execute_command("EXPIRE", key, _SEALED)
            await client.execute_command("EXPIRE", self._names.meta(run), _SEALED)
        except ResponseError:
            pass  # it is sealed

    async def _end_orphans(self, client: Any, worker: str, tickets: dict[str, bytes]) -> bool:
        """Ends the work of all runs, except those that another worker is about to end. Says whether some are left."""
        limiter = anyio.CapacityLimiter(_AT_A_TIME)
        turn = anyio.Lock()  # for the one connection
        is_left = False

        async def end(run: str, ticket: str) -> None:
            nonlocal is_left
            names = self._names
            async with limiter:
                async with turn:
                    claimed = await client.execute_command("SET", names.claim(run), self._worker, "NX", "EX", _CLAIM)
                    entries = await client.execute_command("XRANGE", names.stream(run), "-", "+", "COUNT", 1)
                if not claimed:
                    is_left = True
                    return
                has_output = bool(entries) and entries[0][0].decode() != SEAL
                if ticket and not await self._end_one(run, ticket, has_output):
                    is_left = True  # until the claim is over
                    return
                async with turn:
                    await client.execute_command("HDEL", names.runs(worker), run)
                    await client.execute_command("DEL", names.claim(run))

        async with anyio.create_task_group() as tasks:
            for run, ticket in tickets.items():
                tasks.start_soon(end, run, ticket.decode())
        return is_left

    async def _end_one(self, run: str, ticket: str, has_output: bool) -> bool:
        """Ends the work of one run. Says whether that is settled: otherwise the platform did not do as it was asked."""
        outcome = await self._end_work(ticket, has_output)
        if outcome is Cancelled.REQUESTED:
            self._attempts[run] += 1
            if self._attempts[run] < _MOST_ATTEMPTS:
                logger.info("the work of a server process that is gone could not be ended yet; it is tried again")
                return False
        self._attempts.pop(run, None)
        self.orphans[outcome] += 1
        level = logging.INFO if outcome is Cancelled.CONFIRMED else logging.WARNING
        logger.log(level, "the work of a server process that is gone was ended (%s): %s", outcome.value, ticket)
        return True


def _decoded(answer: Any) -> dict[str, bytes]:
    if isinstance(answer, dict):
        return {key.decode(): cast(bytes, value) for key, value in answer.items()}
    return {key.decode(): value for key, value in zip(answer[::2], answer[1::2], strict=True)}


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
