"""`signals`: those that granian and gunicorn's own worker take from the event loop reach them through the bridge."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any, Final

import pytest
import uvloop

from sse_bridge.asgi import granian as of_granian
from sse_bridge.asgi import gunicorn as of_gunicorn
from sse_bridge.asgi.signals import Patience, Reaction
from tests.support.ears import Ear

GRANIAN = "granian.server.mp"
GUNICORN = "gunicorn.workers.gasgi"
for module in (GRANIAN, GUNICORN):
    import_module(module)
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
BOTH = SIGNALS[:2]


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process with a parent of gunicorn's, a bridge also listens to SIGQUIT."""
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made: asyncio.AbstractEventLoop = request.param()
    yield made
    made.close()


_SOURCES: Final = {
    GRANIAN: "def serve(shutdown_event, main): shutdown_event.loop.run_until_complete(main)",
    GUNICORN: "def serve(self, main): self.loop.run_until_complete(main)",
}


class Worker:
    """What either server does around the event loop, in a frame of its module.

    Its event stands in for granian's `WorkerSignal`, which would keep a test that calls it twice from ever ending.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, module: str = GRANIAN) -> None:
        self.loop = loop
        #: What it was told.
        self.told: list[str] = []
        self._module = module
        tell = dict.fromkeys(SIGNALS, self.set)
        if module == GUNICORN:
            tell = dict.fromkeys(SIGNALS, self.handle_quit_signal) | {signal.SIGTERM: self.handle_exit_signal}
        for number, function in tell.items():
            loop.add_signal_handler(number, function)

    def set(self) -> None:
        self.told.append("set")

    def handle_exit_signal(self) -> None:
        self.told.append("graceful")

    def handle_quit_signal(self) -> None:
        self.told.append("quick")

    def run(self, main: Callable[[Worker], Awaitable[None]], module: str | None = None) -> None:
        place: dict[str, Any] = {"__name__": module or self._module}
        exec(_SOURCES[self._module], place)
        place["serve"](self, main(self))


async def settled() -> None:
    """Returns once the event loop has taken signals that were raised before."""
    for _ in range(20):
        await asyncio.sleep(0.001)


def in_loop() -> dict[int, Reaction]:
    return of_granian.in_loop() or of_gunicorn.in_loop()


def listening() -> Ear:
    return Ear(in_loop=in_loop())


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT], BOTH[::-1], BOTH, [signal.SIGTERM] * 3])
def test_granian_hears_of_several_signals_once(loop: asyncio.AbstractEventLoop, numbers: list[signal.Signals]) -> None:
    """Ctrl-C reaches a worker twice: from the terminal, and as a SIGTERM of its parent."""

    async def main(worker: Worker) -> None:
        ear = listening()
        for number in numbers:
            signal.raise_signal(number)
        await settled()
        assert worker.told == ["set"]
        assert len(ear.told) == len(numbers)
        assert set(ear.patience) == {Patience.CONNECTIONS}

    Worker(loop).run(main)


@pytest.mark.parametrize(
    ("number", "told", "patience"),
    [
        (signal.SIGTERM, "graceful", Patience.CONNECTIONS),
        (signal.SIGINT, "quick", Patience.NOTHING),
        (signal.SIGQUIT, "quick", Patience.NOTHING),
    ],
)
def test_gunicorn_hears_of_each_signal(
    loop: asyncio.AbstractEventLoop,
    number: signal.Signals,
    told: str,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its parent sends SIGQUIT behind each Ctrl-C. What the worker waits for depends on the signal."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", sys)

    async def main(worker: Worker) -> None:
        ear = listening()
        for count in (1, 2):
            signal.raise_signal(number)
            await settled()
            assert worker.told == [told] * count
        assert ear.patience == [patience] * 2

    Worker(loop, GUNICORN).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
def test_the_server_hears_of_it_when_the_work_is_over(loop: asyncio.AbstractEventLoop, module: str) -> None:
    """Without the bridge's handler, the event loop would tell it at once."""

    async def main(worker: Worker) -> None:
        ear = listening()
        ear.holds = True
        signal.raise_signal(signal.SIGTERM)
        await settled()
        assert (ear.told, worker.told) == (["stop"], [])
        ear.releases.pop()()
        await settled()
        assert len(worker.told) == 1

    Worker(loop, module).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
def test_a_signal_that_is_on_its_way_is_heard(loop: asyncio.AbstractEventLoop, module: str) -> None:
    """The worker's first request holds the event loop up, and the signal comes meanwhile."""

    async def main(worker: Worker) -> None:
        signal.raise_signal(signal.SIGTERM)
        ear = listening()
        await settled()
        assert (ear.told, len(worker.told)) == (["stop"], 1)

    Worker(loop, module).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
def test_a_sigterm_with_a_ctrl_c_hurries_nothing(loop: asyncio.AbstractEventLoop, module: str) -> None:
    """The parent sends it behind the terminal's Ctrl-C. A worker that was busy meanwhile sees it first."""

    async def main(worker: Worker) -> None:
        ear = listening()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await settled()
        assert ear.told == ["stop", "stop"]
        signal.raise_signal(signal.SIGINT)
        await settled()
        assert ear.told == ["stop", "stop", "hurry"]

    Worker(loop, module).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
def test_a_signal_wakes_an_event_loop_that_is_idle(loop: asyncio.AbstractEventLoop, module: str) -> None:
    """It comes from another process, while the loop waits for its sockets."""

    async def main(worker: Worker) -> None:
        ear, pid = listening(), os.getpid()
        sender = await asyncio.create_subprocess_exec("sh", "-c", f"sleep 0.1; kill -TERM {pid}")
        await sender.wait()
        await settled()
        assert (ear.told, len(worker.told)) == (["stop"], 1)

    Worker(loop, module).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
def test_what_the_application_has_taken_is_left_to_it(loop: asyncio.AbstractEventLoop, module: str) -> None:
    """In its lifespan, it has its workers ignore Ctrl-C, and looks at each SIGTERM before the server does."""
    heard: list[int] = []

    async def main(worker: Worker) -> None:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        ear = listening()
        signal.raise_signal(signal.SIGINT)
        await settled()
        assert (ear.told, worker.told) == ([], [])
        signal.raise_signal(signal.SIGTERM)
        await settled()
        assert (ear.told, len(worker.told), heard) == (["stop"], 1, [signal.SIGTERM])

    Worker(loop, module).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
def test_bridges_share_what_was_taken(loop: asyncio.AbstractEventLoop, module: str) -> None:
    """However many listen."""

    async def main(worker: Worker) -> None:
        ears = [listening(), listening()]
        signal.raise_signal(signal.SIGINT)
        await settled()
        assert [ear.told for ear in ears] == [["stop"], ["stop"]]
        assert len(worker.told) == 1

    Worker(loop, module).run(main)


@pytest.mark.parametrize("module", [GRANIAN, GUNICORN])
@pytest.mark.parametrize("is_imported", [True, False])
def test_other_servers_keep_their_signals(
    loop: asyncio.AbstractEventLoop, module: str, is_imported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even in a process that has imported granian or gunicorn, and on an event loop that takes signals."""
    if not is_imported:
        monkeypatch.delitem(sys.modules, module)

    async def main(worker: Worker) -> None:
        assert in_loop() == {}
        for number in BOTH:
            signal.raise_signal(number)
        await settled()
        assert len(worker.told) == 2

    Worker(loop, module).run(main, "another.server")
