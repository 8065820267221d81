"""`granian`: a worker hears of a stop through the bridge, and only once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import granian.server.mp
import pytest
import uvloop

from sse_bridge.asgi.granian import stand_in
from sse_bridge.asgi.signals import Listener, listen

BOTH = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made: asyncio.AbstractEventLoop = request.param()
    yield made
    made.close()


Main = Callable[["Worker"], Awaitable[None]]


class Worker:
    """What granian's own function does around the event loop, in a frame of the same module.

    Its event stands in for granian's `WorkerSignal`, which would keep a test that calls it twice from ever ending.
    """

    _SOURCE = """
def serve(worker, main):
    shutdown_event = worker.shutdown_event
    worker.loop.run_until_complete(main)
"""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.shutdown_event = self
        #: How often it was told to stop.
        self.told = 0
        for number in BOTH:
            loop.add_signal_handler(number, self.set)

    def set(self) -> None:
        self.told += 1

    def run(self, main: Main, module: str = granian.server.mp.__name__) -> None:
        place: dict[str, Any] = {"__name__": module}
        exec(self._SOURCE, place)
        place["serve"](self, main(self))


async def settled() -> None:
    """Returns once the event loop has taken signals that were raised before."""
    for _ in range(20):
        await asyncio.sleep(0.001)


class Ear:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.releases: list[Callable[[], None]] = []
        self.holds = False
        self.listener = Listener(
            lambda function: function(), lambda: self.told.append("stop"), lambda: self.told.append("hurry"), self._hold
        )

    def _hold(self, release: Callable[[], None], patience: object) -> bool:
        if self.holds:
            self.releases.append(release)
        return self.holds


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT], BOTH[::-1], BOTH, [signal.SIGTERM] * 3])
def test_granian_hears_of_several_signals_once(loop: asyncio.AbstractEventLoop, numbers: list[signal.Signals]) -> None:
    """Ctrl-C reaches a worker twice: from the terminal, and as a SIGTERM of its parent."""

    async def main(worker: Worker) -> None:
        ear = Ear()
        listen(ear.listener, stand_in())
        for number in numbers:
            signal.raise_signal(number)
        await settled()
        assert worker.told == 1
        assert len(ear.told) == len(numbers)

    Worker(loop).run(main)


def test_granian_hears_of_it_when_the_work_is_over(loop: asyncio.AbstractEventLoop) -> None:
    """Without the bridge's handler, the event loop would tell it at once."""

    async def main(worker: Worker) -> None:
        ear = Ear()
        ear.holds = True
        listen(ear.listener, stand_in())
        signal.raise_signal(signal.SIGTERM)
        await settled()
        assert (ear.told, worker.told) == (["stop"], 0)
        ear.releases.pop()()
        await settled()
        assert worker.told == 1

    Worker(loop).run(main)


def test_bridges_share_what_was_taken(loop: asyncio.AbstractEventLoop) -> None:
    async def main(worker: Worker) -> None:
        ears = [Ear(), Ear()]
        for ear in ears:
            listen(ear.listener, stand_in())
        assert stand_in() is None
        signal.raise_signal(signal.SIGINT)
        await settled()
        assert [ear.told for ear in ears] == [["stop"], ["stop"]]
        assert worker.told == 1

    Worker(loop).run(main)


def test_a_signal_after_the_end_of_the_event_loop(loop: asyncio.AbstractEventLoop) -> None:
    """The process is about to end, and the signal changes nothing."""
    ear = Ear()

    async def main(worker: Worker) -> None:
        listen(ear.listener, stand_in())

    worker = Worker(loop)
    worker.run(main)
    loop.close()
    signal.raise_signal(signal.SIGTERM)
    assert worker.told == 0


@pytest.mark.parametrize("is_imported", [True, False])
def test_other_servers_keep_their_signals(
    loop: asyncio.AbstractEventLoop, is_imported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even in a process that has imported granian, and on an event loop that takes signals."""
    if not is_imported:
        monkeypatch.delitem(sys.modules, "granian.server.mp")

    async def main(worker: Worker) -> None:
        assert stand_in() is None
        for number in BOTH:
            signal.raise_signal(number)
        await settled()
        assert worker.told == 2

    Worker(loop).run(main, "another.server")
