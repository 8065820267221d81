"""All workers, and the numbers that each says of itself with its beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from ...relay.statistics import WorkerStatistics
from ..base import Census, StoreAway

__all__ = ["Roll"]

#: Seconds that a caller waits for Redis.
_PATIENCE: Final = 3.0
#: Of a beat.
_NUMBERS: Final = 5


class Roll:
    """Writes this worker's numbers, and reads everybody's.

    A beat is `<count> <runs> <viewers> <mirrors> <lag>`. Workers of an older version write the count alone, and compare
    beats without reading them; those of a later one may write more behind it.

    Args:
        worker: this one.
        census: counts this worker.
    """

    def __init__(self, worker: str, census: Callable[[], Census]) -> None:
        self._worker = worker
        self._census = census
        self._asked: list[_Question] = []

    def beat(self, count: int) -> str:
        """What this worker says of itself now."""
        return " ".join(str(number) for number in (count, *self._census()))

    async def call(self) -> tuple[WorkerStatistics, ...]:
        """What all workers say with the next beat. The task that beats asks Redis, so the caller may be cancelled.

        Raises:
            StoreAway: Redis does not answer.
        """
        question = _Question()
        self._asked.append(question)
        with anyio.move_on_after(_PATIENCE):
            await question.event.wait()
        if question.answer is None:
            raise StoreAway("Redis does not answer.")
        return question.answer

    def answer(self, beats: dict[str, bytes] | None) -> None:
        """Answers all that wait; `None`: Redis is away."""
        asked, self._asked = self._asked, []
        for question in asked:
            question.answer = None if beats is None else tuple(self._read(*each) for each in sorted(beats.items()))
            question.event.set()

    def _read(self, worker: str, beat: bytes) -> WorkerStatistics:
        is_here = worker == self._worker
        said = [int(word) if word.isdigit() else None for word in beat.split()]
        count, *numbers = said + [None] * (_NUMBERS - len(said))
        runs, viewers, mirrors, lag = numbers[: _NUMBERS - 1]
        return WorkerStatistics(worker, is_here, count or 0, runs, viewers, mirrors, lag)


class _Question:
    def __init__(self) -> None:
        self.event = anyio.Event()
        self.answer: tuple[WorkerStatistics, ...] | None = None
