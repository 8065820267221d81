"""`signals`: our handler stands before the server's, hears what it hears, and is in nobody's way."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from sse_bridge.asgi import signals
from sse_bridge.asgi.signals import Listener, listen

BOTH = [signal.SIGTERM, signal.SIGINT]


class Server:
    """Stands for one that handles signals as uvicorn does."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        for number in BOTH:
            signal.signal(number, self.handle_exit)

    def handle_exit(self, number: int, frame: Any) -> None:
        self.heard.append(number)


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Ear:
    """A listener on an event loop that runs everything at once."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object] = lambda function: function()) -> None:
        self.told: list[str] = []
        self.listener = Listener(call_soon, partial(self.told.append, "stop"), partial(self.told.append, "hurry"))
        listen(self.listener)


@pytest.mark.parametrize("number", BOTH)
def test_the_servers_handler_is_called_as_well(number: signal.Signals) -> None:
    """After ours, with what it would have got."""
    server, ear = Server(), Ear()

    signal.raise_signal(number)

    assert ear.told == ["stop"]
    assert server.heard == [number]


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([signal.SIGINT, signal.SIGINT], ["stop", "hurry"]),
        ([signal.SIGTERM, signal.SIGINT], ["stop", "hurry"]),
        ([signal.SIGTERM, signal.SIGTERM], ["stop", "stop"]),
        ([signal.SIGINT, signal.SIGTERM], ["stop", "stop"]),
    ],
)
def test_only_ctrl_c_hurries(numbers: list[signal.Signals], told: list[str]) -> None:
    """Ctrl-C reaches every process of a terminal, and granian then tells its workers again, by SIGTERM."""
    Server()
    ear = Ear()

    for number in numbers:
        signal.raise_signal(number)

    assert ear.told == told


def test_bridges_share_one_handler() -> None:
    """However many there are, and however often they come: the server's is called once."""
    server = Server()
    ears = [Ear() for _ in range(5)]
    listen(ears[0].listener)

    signal.raise_signal(signal.SIGTERM)

    assert [ear.told for ear in ears] == [["stop"]] * 5
    assert server.heard == [signal.SIGTERM]


def test_a_loop_that_is_gone_does_not_break_the_chain() -> None:
    """asyncio and trio raise `RuntimeError` then."""

    def gone(function: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    server = Server()
    dead, alive = Ear(gone), Ear()

    signal.raise_signal(signal.SIGTERM)

    assert (dead.told, alive.told) == ([], ["stop"])
    assert server.heard == [signal.SIGTERM]


def test_who_is_gone_is_forgotten() -> None:
    """The handler keeps nobody alive."""
    server, ear = Server(), Ear()
    told = ear.told
    del ear
    gc.collect()

    signal.raise_signal(signal.SIGTERM)

    assert told == []
    assert server.heard == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_where_there_is_no_graceful_stop_nothing_changes(handler: Any) -> None:
    """The process ends at once, or never."""
    for number in BOTH:
        signal.signal(number, handler)

    Ear()

    assert [signal.getsignal(number) for number in BOTH] == [handler] * 2


def test_other_threads_hear_nothing() -> None:
    """Python lets the main thread set handlers only: `shutdown` is for such hosts."""
    server = Server()
    thread = threading.Thread(target=Ear)
    thread.start()
    thread.join()

    assert [signal.getsignal(number) for number in BOTH] == [server.handle_exit] * 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loops_own_handler_stays(backend: str) -> None:
    """It makes a cancellation of Ctrl-C, and must find itself to be taken back at the end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main() -> None:
        before = signal.getsignal(signal.SIGINT)
        assert before is not signal.default_int_handler
        Ear()
        assert signal.getsignal(signal.SIGINT) is before

    anyio.run(main, backend=backend)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not isinstance(signal.getsignal(signal.SIGTERM), signals._Handler)
