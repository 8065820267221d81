"""`signals`: listeners hear each signal before the server's own handler, which still runs."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import pytest

from sse_bridge.asgi.signals import Patience, Reaction, listen
from tests.support.ears import Ear

BOTH = [signal.SIGTERM, signal.SIGINT]


class Server:
    """A server that handles signals as uvicorn does."""

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


@pytest.mark.parametrize("number", BOTH)
def test_the_servers_handler_is_called_as_well(number: signal.Signals) -> None:
    """It gets the arguments of the signal."""
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
    """A SIGTERM may be an echo: Ctrl-C reaches every process of a terminal, and granian then sends its workers one."""
    Server()
    ear = Ear()

    for number in numbers:
        signal.raise_signal(number)

    assert ear.told == told


@pytest.mark.parametrize("where", ["scheduling", "holding"])
def test_a_signal_within_a_signal_is_heard_behind_it(where: str) -> None:
    """gunicorn's parent sends one as soon as it has heard a Ctrl-C, which is no second Ctrl-C then."""
    server = Server()
    echoes = [signal.SIGTERM]

    def echo() -> None:
        while echoes:
            signal.raise_signal(echoes.pop())

    def call_soon(function: Callable[[], None]) -> None:
        if where == "scheduling":
            echo()
        function()

    ear = Ear(call_soon)
    if where == "holding":
        ear.listener.hold = lambda release, patience: bool(echo())  # type: ignore[misc, func-returns-value]

    signal.raise_signal(signal.SIGINT)

    assert ear.told == ["stop", "stop"]
    assert server.heard == [signal.SIGINT, signal.SIGTERM]


def test_a_signal_is_heard_although_the_handler_of_the_one_before_raises() -> None:
    """The exception goes on its way, as from a handler of the server's alone."""
    heard: list[int] = []

    def handle(number: int, frame: Any) -> None:
        heard.append(number)
        if number == signal.SIGINT:
            signal.raise_signal(signal.SIGTERM)
            raise SystemExit(1)

    for number in BOTH:
        signal.signal(number, handle)
    ear = Ear()

    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGINT)

    assert heard == [signal.SIGINT, signal.SIGTERM]
    assert ear.told == ["stop", "stop"]


def test_a_second_ctrl_c_reaches_a_server_whose_handler_takes_long() -> None:
    """Such a handler cleans up at the first signal, and a second one ends that at once."""
    heard: list[str] = []

    def handle(number: int, frame: Any) -> None:
        if heard:
            heard.append("forced")
            raise SystemExit(1)
        heard.append("cleaning")
        signal.raise_signal(signal.SIGINT)
        heard.append("cleaned")

    signal.signal(signal.SIGINT, handle)
    ear = Ear()
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGINT)

    assert heard == ["cleaning", "forced"]
    assert ear.told == ["stop", "hurry"]


def test_bridges_share_one_handler() -> None:
    """The server's handler is called once a signal, however many bridges listen and however often they ask to."""
    server = Server()
    ears = [Ear() for _ in range(5)]
    listen(ears[0].listener)

    signal.raise_signal(signal.SIGTERM)

    assert [ear.told for ear in ears] == [["stop"]] * 5
    assert server.heard == [signal.SIGTERM]


def test_a_loop_that_is_gone_does_not_break_the_chain() -> None:
    """Scheduling on a closed loop raises `RuntimeError`; the other listeners and the server still hear the signal."""

    def gone(function: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    server = Server()
    dead, alive = Ear(gone), Ear()

    signal.raise_signal(signal.SIGTERM)

    assert (dead.told, alive.told) == ([], ["stop"])
    assert server.heard == [signal.SIGTERM]


def test_a_dropped_listener_is_forgotten() -> None:
    """The handler holds listeners weakly."""
    server, ear = Server(), Ear()
    told = ear.told
    del ear
    gc.collect()

    signal.raise_signal(signal.SIGTERM)

    assert told == []
    assert server.heard == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_handlers_without_a_graceful_stop_stay_in_place(handler: Any) -> None:
    """With these the process ends at once or ignores the signal, so a listener could do nothing."""
    for number in BOTH:
        signal.signal(number, handler)

    Ear()

    assert [signal.getsignal(number) for number in BOTH] == [handler] * 2


def test_a_bridge_in_another_thread_leaves_the_handlers_alone() -> None:
    """Only the main thread may set handlers. Hosts that run the server in a thread call `shutdown` themselves."""
    server = Server()
    thread = threading.Thread(target=Ear)
    thread.start()
    thread.join()

    assert [signal.getsignal(number) for number in BOTH] == [server.handle_exit] * 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loops_own_handler_stays(backend: str) -> None:
    """It turns Ctrl-C into a cancellation, and restores the old handler only if it is still in place."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sigterm = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        before = signal.getsignal(signal.SIGINT)
        assert before is not signal.default_int_handler
        Ear()
        assert signal.getsignal(signal.SIGINT) is before

    anyio.run(main, backend=backend)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is sigterm


@pytest.mark.parametrize("number", BOTH)
def test_a_listener_may_keep_a_signal_from_the_server_for_a_while(number: signal.Signals) -> None:
    """The server would end the process while work goes on that no request waits for."""
    server, first, second, idle = Server(), Ear(), Ear(), Ear()
    first.holds = second.holds = True

    signal.raise_signal(number)
    assert first.told == second.told == idle.told == ["stop"]
    assert server.heard == []
    first.releases[0]()
    assert server.heard == []
    second.releases[0]()
    assert server.heard == [number]


def test_a_second_ctrl_c_reaches_the_server_at_once() -> None:
    """It comes once: the listener that held the first one back changes nothing when it is done."""
    server, ear = Server(), Ear()
    ear.holds = True

    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert server.heard == [signal.SIGINT]
    assert ear.told == ["stop", "hurry"]
    ear.releases[0]()
    assert server.heard == [signal.SIGINT]


def test_a_second_sigterm_waits_with_the_first() -> None:
    """Supervisors send a SIGTERM to workers that had one already."""
    server, ear = Server(), Ear()
    ear.holds = True

    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert server.heard == []
    ear.releases[0]()
    assert server.heard == [signal.SIGTERM]


@pytest.mark.parametrize("others", [[], ["idle"], ["holding"], ["idle", "holding", "immediate"]])
def test_a_listener_may_let_a_signal_through_while_it_is_asked(others: list[str]) -> None:
    """A call back that comes during the count must not upset it: each signal passes once, after the last listener.

    Its work may have ended in between.
    """
    server, ears = Server(), [Ear() for _ in ["immediate", *others]]
    for ear, kind in zip(ears, ["immediate", *others], strict=True):
        ear.holds = kind != "idle"
        if kind == "immediate":
            ear.releases = Immediately()

    for times in (1, 2):
        signal.raise_signal(signal.SIGTERM)
        for ear, kind in zip(ears, ["immediate", *others], strict=True):
            if kind == "holding":
                assert server.heard == [signal.SIGTERM] * (times - 1)
                ear.releases.pop()()
        assert server.heard == [signal.SIGTERM] * times


def reactor_stop(number: int, frame: Any) -> None: ...


reactor_stop.__module__ = "twisted.internet.base"


class Reactor:
    __module__ = "twisted.internet.asyncioreactor"

    def stop(self, number: int, frame: Any) -> None: ...

    stop.__module__ = __module__


@pytest.mark.parametrize(
    ("handler", "patience"),
    [
        (lambda number, frame: None, Patience.REQUESTS),
        (reactor_stop, Patience.NOTHING),
        (partial(reactor_stop), Patience.NOTHING),
        (Reactor().stop, Patience.NOTHING),
    ],
)
def test_a_listener_learns_what_the_server_waits_for(handler: Any, patience: Patience) -> None:
    """Twisted's reactor, on which daphne runs, cancels them."""
    for number in BOTH:
        signal.signal(number, handler)
    ears = [Ear(), Ear()]
    for ear in ears:
        ear.holds = True

    for number in BOTH:
        signal.raise_signal(number)
        for ear in ears:
            ear.releases.pop()()

    assert [ear.patience for ear in ears] == [[patience] * 2] * 2


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("patience", Patience)
def test_what_replaces_the_default_action_waits_for_the_listeners(patience: Patience, holds: bool) -> None:
    """Where SIGTERM would end the process at once, a listener may put that off. Ctrl-C stays as it is."""
    for number in BOTH:
        signal.signal(number, signal.SIG_DFL)
    heard: list[int] = []
    ear = Ear(at_default={signal.SIGTERM: Reaction(lambda number, frame: heard.append(number), patience)})
    ear.holds = holds
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL

    signal.raise_signal(signal.SIGTERM)
    if holds:
        assert heard == []
        ear.releases[0]()

    assert (ear.told, ear.patience) == (["stop"], [patience])
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_a_handler_that_is_not_the_default_action_stays(handler: Any) -> None:
    """An application has its process ignore the signal, for example."""
    signal.signal(signal.SIGTERM, handler)
    Ear(at_default={signal.SIGTERM: Reaction(lambda number, frame: None, Patience.NOTHING)})
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_server_keeps_its_own_handler() -> None:
    """It is not the default action."""
    server, heard = Server(), list[int]()
    ear = Ear(at_default={signal.SIGTERM: Reaction(lambda number, frame: heard.append(number), Patience.NOTHING)})
    signal.raise_signal(signal.SIGTERM)
    assert (server.heard, heard, ear.patience) == ([signal.SIGTERM], [], [Patience.REQUESTS])


@pytest.mark.parametrize("is_gunicorn", [False, True])
def test_gunicorns_workers_are_told_by_sigquit_as_well(is_gunicorn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the signal means other things: a program may dump its stacks."""
    if is_gunicorn:
        monkeypatch.setitem(sys.modules, "gunicorn.arbiter", ModuleType("gunicorn.arbiter"))
    else:
        monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)
    server = Server()
    before = signal.signal(signal.SIGQUIT, server.handle_exit)
    try:
        ear = Ear()
        signal.raise_signal(signal.SIGQUIT)
    finally:
        signal.signal(signal.SIGQUIT, before)

    assert ear.told == ["stop"] * is_gunicorn
    assert server.heard == [signal.SIGQUIT]


class Immediately(list[Callable[[], None]]):
    def append(self, release: Callable[[], None]) -> None:
        release()
