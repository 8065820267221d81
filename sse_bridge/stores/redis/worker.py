"""One worker of a bridge, in one event loop: its runs, its mirrors, and the tasks that keep Redis and them in step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel

from ...errors import ConfigurationError
from ...relay.run import Run
from ...relay.statistics import WorkerStatistics
from ...upstream.base import Cancelled, Source, Ticketed, Upstream, Work
from ...upstream.reaping import end_left_behind
from ..base import Census, Claim, Stage, StoreAway
from ..memory import Key
from .beating import Beating
from .config import RedisStore
from .connection import Connect, Connection, fields_of, is_outage
from .counting import Counts
from .fetching import Fetcher
from .fitness import Fitness
from .keys import Keys
from .names import VERSION, Names, fingerprint, new_worker, owner_mark, run_name
from .outlet import Outlet
from .publishing import ENDED, LIVES, Publisher, fenced
from .roll import Roll
from .sleep import Sleep

__all__ = ["Worker"]

logger: Final = logging.getLogger("sse_bridge")

#: Seconds that the inbox waits for an entry in one question.
_BLOCK: Final = 5
#: Entries of one answer.
_HEARD: Final = 100
#: Seconds that ending the work of a dead worker's run may take.
_END_WORK: Final = 10.0


class _Shared:
    """A run of this worker, and what it takes to end it from elsewhere."""

    def __init__(self, outlet: Outlet, work: Work) -> None:
        self.outlet = outlet
        self.work = work

    @property
    def ticket(self) -> str:
        return self.work.ticket if isinstance(self.work, Ticketed) else ""


class Worker:
    """One worker: its four tasks, its runs, and its mirrors."""

    def __init__(
        self,
        connect: Connect,
        names: Names,
        store: RedisStore,
        upstream: Upstream,
        counts: Counts,
    ) -> None:
        self._token = anyio.lowlevel.current_token()
        self._names = names
        self._store = store
        self._upstream = upstream
        self._name = new_worker()
        self._stage: Stage
        self._roll = Roll(self._name, self._census)
        self._runs: dict[str, _Shared] = {}
        #: Also of runs that are over and kept.
        self._outlets: WeakValueDictionary[str, Outlet] = WeakValueDictionary()
        self._heard: dict[tuple[str, str], float] = {}  # when a worker last told of a run's viewers
        fitness = Fitness()
        self._inbox = Connection(connect, counts, fitness, _BLOCK + 2.0)
        self.publisher = Publisher(
            Connection(connect, counts, fitness, once=True), names, store.linger, fenced, self._register_again, counts
        )
        self.fetcher = Fetcher(
            Connection(connect, counts, fitness), names, store.linger, self._name, self._tell, counts
        )
        self._keys = Keys(names, self.fetcher, self._name, self._outlets.get)
        self._beating = Beating(
            Connection(connect, counts, fitness, once=True),
            names,
            self._name,
            self._roll,
            store.lease,
            self._end_work,
            self._on_beat,
            self._on_silence,
            self._renewals,
            counts.orphans,
        )

    def is_in(self, token: Any) -> bool:
        """Whether `token` stands for its event loop."""
        return self._token.native_token is token.native_token

    def start(self, stage: Stage) -> None:
        """Starts the tasks, which live as long as the event loop."""
        if not hasattr(self._token.native_token, "create_task"):
            raise ConfigurationError("store=RedisStore(...) needs asyncio: redis-py does not run on trio.")
        self._stage = stage
        for task in (self._beating.run, self._listen, self.publisher.run, self.fetcher.run):
            stage.start_soon(_until_cancelled, task)

    def _census(self) -> Census:
        return self._stage.census()._replace(mirrors=len(self.fetcher.mirrors), lag=self.lag()[0])

    def lag(self) -> tuple[int, float]:
        """The frames that Redis lacks of all runs, and the seconds for which it has lacked the oldest."""
        lags = [outlet.lag for outlet in self.publisher.outlets.values()]
        return sum(frames for frames, _ in lags), max((seconds for _, seconds in lags), default=0.0)

    async def everywhere(self) -> tuple[WorkerStatistics, ...]:
        """What each worker says of itself."""
        return await self._roll.call()

    def _tell(self, worker: str, kind: str, run: str, *more: Any) -> None:
        self.publisher.tell(worker, kind, run, *([self._name, *more]))

    async def _end_work(self, ticket: str, has_output: bool) -> Cancelled:
        return await end_left_behind(self._upstream, ticket, _END_WORK, has_output=has_output)

    # -- runs of this worker

    def publish(self, run: Run, work: Work, key: Key | None) -> Outlet:
        """Shares a run."""
        name = run_name(run.token)
        outlet = Outlet(run, name, self._stage.clock, self.publisher.notice, self._store.replay, key)
        run.doubt = Sleep(outlet, self._stage.clock)  # holds the outlet for as long as the run is kept
        self._runs[name], self._outlets[name] = _Shared(outlet, work), outlet
        self.publisher.add(outlet)
        self._stage.start_soon(_until_cancelled, lambda: self._follow(name, self._runs[name]))
        return outlet

    async def admit(self) -> None:
        """Returns if a run without a key may start now."""
        if self._store.when_down == "refuse":
            await self.fetcher.ask(lambda: self.fetcher.command("PING"))

    async def register(self, run: Run) -> None:
        """Makes a run known before its work is started."""
        name = run_name(run.token)
        shared = self._runs[name]
        try:
            await self.fetcher.ask(lambda: self._write(name, shared))
        except StoreAway:  # it is registered when Redis is back
            self._send_registration(name, shared)

    async def _write(self, name: str, shared: _Shared) -> None:
        for command in self._registration(name, shared):
            await self.fetcher.command(*command)

    def _send_registration(self, name: str, shared: _Shared) -> None:
        for command in self._registration(name, shared):
            self.publisher.send(*command)

    def _registration(self, name: str, shared: _Shared) -> list[tuple[Any, ...]]:
        commands = self._description(shared.outlet)
        if not shared.outlet.run.done.is_set:
            commands.append(("HSET", self._names.runs(self._name), name, shared.ticket))
        return commands

    def _description(self, outlet: Outlet) -> list[tuple[Any, ...]]:
        """What tells other workers of a run."""
        run, meta = outlet.run, self._names.meta(outlet.name)
        options, info = run.audience.options, run.info
        return [
            ("HSET", meta, "v", VERSION, "o", self._name, "d", options.dialect.name, "i", int(options.ids),
             "w", owner_mark(info.owner, run.token), "t", info.started_at, "a", int(run.answered.is_set)),
            ("EXPIRE", meta, LIVES),
        ]  # fmt: skip

    def _register_again(self, outlet: Outlet) -> None:
        """Redis has lost a run, so perhaps also its key, for which another worker would start a second one."""
        shared, run = self._runs.get(outlet.name), outlet.run
        for command in self._description(outlet) if shared is None else self._registration(outlet.name, shared):
            self.publisher.send(*command)
        if outlet.key is not None:
            said = f"{run.token} {fingerprint(run.facts.source, run.token)}"
            self.publisher.send(
                "SET", self._names.key(outlet.key), said, "NX", "EX", ENDED if shared is None else LIVES
            )

    async def _follow(self, name: str, shared: _Shared) -> None:
        """Keeps what Redis knows of a run true, until the run has left no work running."""
        run, outlet = shared.outlet.run, shared.outlet
        await run.answered.wait()
        self._send_registration(name, shared)
        for worker in outlet.listeners:
            self._tell(worker, "answered", name)
        await run.done.wait()
        self.publisher.send("HDEL", self._names.runs(self._name), name)
        if outlet.key is not None:
            self.publisher.send("EXPIRE", self._names.key(outlet.key), ENDED)
        await outlet.ended.wait()
        self._runs.pop(name, None)

    def withdraw(self, run: Run, *, is_known: bool) -> None:
        """A run has started nothing: its key is free again. Its mirrors end as it did."""
        outlet = self._outlets.get(run_name(run.token))
        if outlet is None:
            return
        outlet.is_known = is_known
        if outlet.key is not None:
            self.release(run.token, outlet.key)
            outlet.key = None

    def _renewals(self) -> list[tuple[str, int]]:
        keys: list[tuple[str, int]] = []
        for name, shared in self._runs.items():
            if not shared.outlet.ended.is_set:
                keys += [(self._names.stream(name), LIVES), (self._names.meta(name), LIVES)]
                if shared.outlet.key is not None:
                    keys.append((self._names.key(shared.outlet.key), LIVES))
        return keys

    # -- keys

    async def claim(self, token: str, key: Key, source: Source, stage: Stage) -> Claim:
        """Claims a key among all workers."""
        try:
            return await self._keys.claim(token, key, source, stage)
        except BaseException:  # the key may be claimed all the same
            self.release(token, key)
            raise

    def release(self, token: str, key: Key) -> None:
        """No run came of a claim: the key is free again, unless it stands for another run by now."""
        self._stage.start_soon(_until_cancelled, lambda: self._keys.free(token, key))

    # -- what other workers say

    async def _listen(self) -> None:
        """Reads the inbox until it is cancelled."""
        try:
            await self._listen_on()
        finally:
            await self._inbox.close()

    async def _listen_on(self) -> None:
        last, heard, is_repeated = "0-0", list[Any](), False
        while True:
            try:
                await self._inbox.ready()
                client: Any = self._inbox.client
                answer = await client.execute_command(
                    "XREAD", "COUNT", _HEARD, "BLOCK", 1000 * _BLOCK, "STREAMS", self._names.inbox(self._name), last
                )
                self._inbox.works()
            except Exception as error:
                if not is_outage(error):
                    logger.exception("a bug in the bridge: the inbox failed. Please report this traceback")
                await self._inbox.lost(error)
                # Redis may have started anew. To hear all again does no harm, as long as it is in one step.
                last, heard, is_repeated = "0-0", [], True
                continue
            entries = answer[0][1] if answer else []
            last = entries[-1][0].decode() if entries else last
            heard += entries
            if is_repeated and len(entries) == _HEARD:
                continue
            for entry in heard:
                self._take(entry)
            heard, is_repeated = [], False

    def _take(self, entry: Any) -> None:
        """Takes one entry of the inbox. A worker of another version may write what this one cannot read."""
        try:
            said = fields_of(entry)
            more = [said.get(each, b"") for each in (b"a", b"b", b"c", b"d", b"e")]
            self._hear(said[b"t"].decode(), said[b"r"].decode(), more)
        except Exception:
            logger.exception("a worker has said what this one cannot read. Run the same version everywhere")

    def _hear(self, kind: str, run: str, more: list[bytes]) -> None:
        if kind == "news":
            for each in run.split():
                self.fetcher.has_news(each)
            return
        if kind == "answered" and (tracked := self.fetcher.mirrors.get(run)) is not None:
            tracked.mirror.answered.set()
        if kind == "stopped":
            self.fetcher.has_stopped(run, more[1].decode())
        shared, worker = self._runs.get(run), more[0].decode()
        if kind == "delete" and (known := self._outlets.get(run)) is not None:
            known.run.cancel()
            self._stage.start_soon(_until_cancelled, lambda: self._tell_stopped(worker, known))
        if shared is None:
            return
        outlet = shared.outlet
        if kind == "attach":
            outlet.listeners.add(worker)
            self.publisher.doubt(outlet)  # the stream may have gone while the run was idle
            self.publisher.tell(worker, "news", run)
            if outlet.run.answered.is_set:
                self.publisher.tell(worker, "answered", run)
        elif kind == "leave":
            outlet.listeners.discard(worker)
            self._heard.pop((run, worker), None)
            outlet.run.audience.leave_from_afar(worker, float(more[1] or 0))
        elif kind == "report":
            outlet.listeners.add(worker)
            viewers, number, mark = int(more[1]), more[2], int(more[3] or b"0")
            if viewers:
                self._heard[run, worker] = self._stage.clock.now()
                outlet.run.audience.follow_from_afar(worker, int(number) if number else None, max(1, mark))
            else:
                self._heard.pop((run, worker), None)
                outlet.run.audience.leave_from_afar(worker, float(more[4] or 0))

    async def _tell_stopped(self, worker: str, outlet: Outlet) -> None:
        """Tells who had a run ended how far that got."""
        await outlet.run.done.wait()
        cancelled = outlet.run.cancelled
        self._tell(worker, "stopped", outlet.name, "" if cancelled is None else cancelled.value)

    def _on_silence(self) -> None:
        """Redis does not answer. Viewers elsewhere have not left, but no run waits for what they cannot get."""
        now = self._stage.clock.now()
        for (run, worker), at in self._heard.items():
            if now - at >= self._store.lease and (shared := self._runs.get(run)) is not None:
                shared.outlet.run.audience.follow_from_afar(worker, None, 1)

    def _on_beat(self, was_away: bool) -> None:
        """Once a second: what was lost is said and looked for again."""
        if was_away:
            self.publisher.doubt_ends()
            for name, shared in self._runs.items():
                self.publisher.doubt(shared.outlet)
                self._send_registration(name, shared)
        now = self._stage.clock.now()
        self.fetcher.beats(was_away)
        self.fetcher.tidy(now)
        self.fetcher.look_at_all()
        for name in list(self.fetcher.mirrors):
            self.fetcher.report(name)
        for (run, worker), at in list(self._heard.items()):
            known = self._runs.get(run)
            if was_away:  # it could not tell
                self._heard[run, worker] = now
            elif known is None or now - at >= self._store.lease:
                del self._heard[run, worker]
                if known is not None:
                    known.outlet.run.audience.leave_from_afar(worker)
        for shared in self._runs.values():  # those that Redis held up, and those whose stream it may have lost
            if not shared.outlet.is_attached and not shared.outlet.ended.is_set:
                self.publisher.notice(shared.outlet)


async def _until_cancelled(task: Callable[[], Any]) -> None:
    """A task of the event loop that lets no exception out."""
    try:
        await task()
    except Exception:
        logger.exception("a bug in the bridge: a task of its store failed. Please report this traceback")
