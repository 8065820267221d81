"""Other workers' runs: found, mirrored, and followed as Redis gets their frames."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from typing import Any, Final, TypeVar, cast
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel

from ...relay.mirror import Halting, Mirror, MirrorFacts
from ...relay.signal import Signal
from ...upstream.base import Cancelled
from ...wire.dialects import DIALECTS
from ..base import Stage, StoreAway
from .connection import Connection, fields_of, is_outage
from .counting import Counts
from .endings import read_outcome, read_refusal
from .names import VERSION, Names, owner_mark, run_name
from .publishing import SEAL

__all__ = ["Fetcher", "Tracked"]

logger: Final = logging.getLogger("sse_bridge")

T = TypeVar("T")

#: Entries of one answer, and runs of one question.
_COUNT: Final = 32
_MOST_RUNS: Final = 32
#: Seconds that a request waits for Redis.
_PATIENCE: Final = 3.0
#: The same while Redis is known to be away.
_SHORT_PATIENCE: Final = 0.3


class Tracked:
    """A mirror, and where its frames come from."""

    def __init__(self, mirror: Mirror, owner: str) -> None:
        self.mirror = mirror
        #: The worker that reads the run.
        self.owner = owner
        #: The id of the last entry.
        self.last_id = "0-0"
        #: What the owner was told last.
        self.told: object = None


class Fetcher:
    """Reads the streams of mirrored runs.

    Args:
        connection: its own.
        names: of the keys.
        linger: the least seconds between two questions.
        worker: this one.
        tell: tells another worker something about a run.
        counts: where mirrored frames are counted.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        linger: float,
        worker: str,
        tell: Callable[..., None],
        counts: Counts,
    ) -> None:
        self.mirrors: dict[str, Tracked] = {}
        self._connection = connection
        self._names = names
        self._linger = linger
        self._tell = tell
        self._worker = worker
        self._counts = counts
        self._halting: WeakValueDictionary[str, Halting] = WeakValueDictionary()
        self._is_known = False
        self._due: dict[str, None] = {}
        self._asked: list[tuple[Callable[[], Awaitable[Any]], _Answer]] = []
        self._news = Signal()

    # -- what others ask of it

    def has_news(self, run: str) -> None:
        """Redis has frames of that run."""
        if run in self.mirrors:
            self._due[run] = None
            self._news.notify()

    def has_stopped(self, run: str, cancelled: str) -> None:
        """The owner has ended a run, as this worker asked it to. `cancelled` is how far that got, if there was work."""
        if (halting := self._halting.pop(run, None)) is not None:
            halting.halt(Cancelled(cancelled) if cancelled else None)

    def look_at_all(self) -> None:
        """Looks at all runs, in case a notice was lost."""
        self._due.update(dict.fromkeys(self.mirrors))
        self._news.notify()

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Has the fetcher's own task await something. The task that asks may be cancelled.

        Raises:
            StoreAway: Redis does not answer in time.
        """
        answer = _Answer()
        self._asked.append((question, answer))
        self._news.notify()
        try:
            with anyio.move_on_after(_SHORT_PATIENCE if self._connection.is_down else _PATIENCE):
                await answer.event.wait()
        finally:
            answer.is_given_up = not answer.event.is_set()
        if answer.is_given_up or answer.is_away:
            raise StoreAway("Redis does not answer.")
        return cast(T, answer.value)

    async def find(self, token: str, stage: Stage) -> Mirror | None:
        """Another worker's run, with its frames so far; `None` if it is unknown."""
        name = run_name(token)
        if (known := self.mirrors.get(name)) is not None:
            return known.mirror
        return await self.ask(lambda: self.open(token, stage))

    def beats(self, was_away: bool) -> None:
        """This worker has beaten. Redis knows it from now on, unless it loses what it knew."""
        self._is_known = True
        if was_away:
            self._connection.unsettle()

    async def may_have_lost(self) -> bool:
        """Whether Redis may lack runs and keys that it will know again in a moment. Only inside a question of `ask`.

        A client finds Redis again by itself, so that a restart may go unnoticed: until the next beat, Redis does not
        know this worker.
        """
        if self._connection.is_settling:
            return True
        return self._is_known and not await self.command("HEXISTS", self._names.workers, self._worker)

    # -- its task

    async def run(self) -> None:
        """Fetches until it is cancelled."""
        try:
            await self._fetch_on()
        finally:
            await self._connection.close()

    async def _fetch_on(self) -> None:
        last = -1.0
        while True:
            while not self._due and not self._asked:
                await self._news.wait()
            if self._asked:
                await self._answer(*self._asked.pop(0))
                continue
            if (left := last + self._linger - anyio.current_time()) > 0:
                await anyio.sleep(left)
            last = anyio.current_time()
            try:
                await self._connection.ready()
                await self._fetch()
                self._connection.works()
            except Exception as error:
                if not is_outage(error):
                    logger.exception("a bug in the bridge: reading from Redis failed. Please report this traceback")
                await self._connection.lost(error)

    async def _answer(self, question: Callable[[], Awaitable[Any]], answer: _Answer) -> None:
        if answer.is_given_up:
            return
        try:
            await self._connection.ready()
            answer.value = await question()
            self._connection.works()
        except StoreAway:  # Redis has answered, and that does not help
            answer.is_away = True
            self._connection.works()
        except Exception as error:
            answer.is_away = True
            if not is_outage(error):
                logger.exception("a bug in the bridge: asking Redis failed. Please report this traceback")
            answer.event.set()
            await self._connection.lost(error)
        answer.event.set()

    async def command(self, *command: Any) -> Any:
        """Sends one command. Only inside a question of `ask`."""
        return await cast(Any, self._connection.client).execute_command(*command)

    async def open(self, token: str, stage: Stage) -> Mirror | None:
        """Makes a mirror of a run. Only inside a question of `ask`."""
        name = run_name(token)
        if name in self.mirrors:
            return self.mirrors[name].mirror
        meta = _pairs(await self.command("HGETALL", self._names.meta(name)))
        if not meta:
            if await self.may_have_lost():
                raise StoreAway("Redis was away, and may not know all runs again.")
            return None
        if meta.get("v", "").encode() != VERSION:
            raise StoreAway("The run is of another version of the format.")
        owner = meta["o"]
        facts = MirrorFacts(token, lambda who: _is(meta["w"], who, token), bool(meta["w"]), float(meta["t"]))
        dialect = DIALECTS[meta["d"]]
        options = replace(stage.options, dialect=dialect, ids=meta["i"] == "1", grace=None)

        def begin(first: int) -> Mirror:
            return Mirror(
                facts,
                options,
                stage.totals,
                stage.clock,
                first,
                Halting(lambda halting: self._end(name, owner, halting)),
                lambda: self.report(name),
            )

        tracked = self.mirrors[name] = Tracked(begin(1), owner)
        try:
            await self._load(name, tracked, begin)
        except Exception:
            self.mirrors.pop(name, None)
            tracked.mirror.discard()
            raise
        if meta.get("a") == "1":
            tracked.mirror.answered.set()
        stage.start_soon(self._watch, name, tracked)
        self._tell(owner, "attach", name)
        return tracked.mirror

    def _end(self, name: str, owner: str, halting: Halting) -> None:
        self._halting[name] = halting
        self._tell(owner, "delete", name)

    async def _load(self, name: str, tracked: Tracked, begin: Callable[[int], Mirror]) -> None:
        """Reads all that Redis has behind its last hole."""
        while True:
            answer = await self.command("XREAD", "COUNT", _COUNT, "STREAMS", self._names.stream(name), tracked.last_id)
            entries = answer[0][1] if answer else []
            for entry in entries:
                if (first := _first_of(entry)) > tracked.mirror.audience.log.next:
                    tracked.mirror.discard()
                    tracked.mirror = begin(first)
                self._feed(name, tracked, entry)
            if len(entries) < _COUNT or name not in self.mirrors:
                return
            await anyio.lowlevel.checkpoint()

    async def _fetch(self) -> None:
        due = list(self._due)[:_MOST_RUNS]
        for run in due:
            del self._due[run]
        # What a slow viewer has yet to take stays in Redis.
        ready = [run for run in due if run in self.mirrors and self.mirrors[run].mirror.audience.has_room()]
        if not ready:
            return
        keys = [self._names.stream(run) for run in ready]
        ids = [self.mirrors[run].last_id for run in ready]
        answer = await self.command("XREAD", "COUNT", _COUNT, "STREAMS", *keys, *ids) or []
        by_key = dict(zip(keys, ready, strict=True))
        for key, entries in answer:
            run = by_key[key.decode()]
            for entry in entries:
                if run in self.mirrors:
                    self._feed(run, self.mirrors[run], entry)
            if len(entries) == _COUNT:
                self.has_news(run)

    def _feed(self, name: str, tracked: Tracked, entry: Any) -> None:
        """Takes one entry."""
        id, fields = entry[0].decode(), fields_of(entry)
        mirror = tracked.mirror
        if id == SEAL:
            self.drop(name)
            mirror.lose()
            return
        tracked.last_id = id
        log, first, frames = mirror.audience.log, int(fields[b"f"]), fields[b"b"]
        next_number = int(id.partition("-")[0]) + 1
        if first > log.next:
            # A hole: Redis lost what the worker no longer has. Its viewers come back, and are told exactly how much.
            mirror.restart()
            self.drop(name)
            return
        if frames and next_number > log.next:
            self._counts.frames_mirrored += next_number - log.next
            for _ in range(log.next - first):  # the beginning is here already
                frames = frames[frames.index(b"\n\n") + 2 :]
            mirror.feed(frames, next_number)
        if refusal := fields.get(b"x"):
            self.drop(name)
            mirror.refuse(read_refusal(refusal))
        elif b"e" in fields:
            self.drop(name)
            mirror.end(*read_outcome(fields[b"e"]))

    def drop(self, name: str) -> None:
        """Follows a run no further."""
        tracked = self.mirrors.pop(name, None)
        if tracked is not None:
            self._tell(tracked.owner, "leave", name, tracked.mirror.audience.returns_within)

    # -- what the owner has to know

    def report(self, name: str) -> None:
        """Tells the owner how far the viewers of this worker are, if that has changed."""
        tracked = self.mirrors.get(name)
        if tracked is None:
            return
        place = tracked.mirror.place()
        if place == tracked.told and not place.viewers:
            return
        tracked.told = place
        number = "" if place.number is None else place.number
        self._tell(tracked.owner, "report", name, place.viewers, number, place.mark, place.returns_within)

    async def _watch(self, name: str, tracked: Tracked) -> None:
        """Reports when the slowest viewer has moved by a quarter of its mark, and fetches on when there is room."""
        audience = tracked.mirror.audience
        told_at, viewers, look_at = 0, 0, 0.0
        while self.mirrors.get(name) is tracked:
            await audience.taken.wait()
            if audience.is_held:
                self.has_news(name)
            if audience.viewers == viewers and audience.log.size < look_at:
                continue  # not even the fastest has moved that far; to look at all is dear
            viewers, look_at = audience.viewers, inf
            number, mark = audience.slowest()
            if number is None:
                continue
            place = audience.log.size - audience.behind()
            if abs(place - told_at) >= mark // 4:
                told_at = place
                self.report(name)
            look_at = told_at + mark // 4

    def tidy(self, now: float) -> None:
        """Drops mirrors that have had no viewer for a while."""
        for name, tracked in list(self.mirrors.items()):
            mirror = tracked.mirror
            if now >= mirror.drop_at and not mirror.audience.viewers:
                self.drop(name)
                mirror.discard()


class _Answer:
    """What came of a question."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.value: object = None
        self.is_away = False
        self.is_given_up = False


def _first_of(entry: Any) -> int:
    """The number of an entry's first frame; 0 for a seal, which has none."""
    return int(fields_of(entry).get(b"f", 0))


def _pairs(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return {key.decode(): value.decode() for key, value in answer.items()}
    return {key.decode(): value.decode() for key, value in zip(answer[::2], answer[1::2], strict=True)}


def _is(mark: str, who: str | None, token: str) -> bool:
    return who is not None and hmac.compare_digest(mark, owner_mark(who, token))
