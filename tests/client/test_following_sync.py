"""The synchronous twins, and a server that lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge import ConfigurationError
from sse_bridge.client import (
    Cancelled,
    EventsMissing,
    FollowError,
    Line,
    RunLost,
    RunUnknown,
    follow_sync,
    run_lines_sync,
    synchronous,
)
from tests.client.scripted import RUN, Broken, Reply, Server, event, gone, refusal, run_of, state, stream

URL = "https://example.org/run-sse/"


class Clock:
    """Time that passes while the client sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(scope="module", autouse=True)
def clock() -> Iterator[Clock]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synchronous, "time", clock)
        yield clock


def test_a_run_is_read_to_its_exit_through_a_lost_connection() -> None:
    events = run_of("a", "b", code=3)
    server = Server(Broken(), refusal(503, "busy"), stream(*events[:2], breaks=True), stream(*events[2:]))
    with httpx.Client(transport=server) as client, follow_sync(URL, client=client) as run:
        assert (run.token, run.url, run.exit_code, run.is_over) == (None, None, None, False)
        assert [each.id for each in run] == [f"{RUN}.{number}" for number in range(4)]
        assert (run.token, run.url, run.exit_code, run.is_over) == (RUN, URL + RUN, 3, True)
        assert list(run) == []
    assert server.open == 0
    assert server.asked[-1] == ("GET", f"/run-sse/{RUN}")


def test_lines() -> None:
    server = Server(stream(*run_of("a", "b")))
    with httpx.Client(transport=server) as client, run_lines_sync(URL, client=client) as run:
        assert list(run) == [Line("a", "stdout"), Line("b", "stdout")]


def test_errors_come_behind_the_lines() -> None:
    server = Server(stream(*run_of("a")[:2], gone("run_unknown", status=404)))
    with httpx.Client(transport=server) as client, follow_sync(URL, client=client) as run:
        assert len([next(run), next(run)]) == 2
        for _ in range(2):
            with pytest.raises(RunUnknown):
                next(run)


@pytest.mark.parametrize("ends", [True, False])
def test_leaving(ends: bool) -> None:
    server = Server(stream(*run_of("a")), Reply(202, b'{"cancelled": "requested"}'))
    with httpx.Client(transport=server) as client:
        with follow_sync(URL, client=client, cancel_on_exit=ends) as run:
            assert run.cancel() is None
            next(run)
        assert not client.is_closed
    assert server.open == 0
    assert [method for method, _ in server.asked] == ["POST", "DELETE"][: 1 + ends]


def test_cancel_says_how_far_it_got() -> None:
    server = Server(stream(*run_of("a")), Reply(202, b'{"cancelled": "requested"}'))
    with httpx.Client(transport=server) as client, follow_sync(URL, client=client) as run:
        next(run)
        assert run.cancel() is Cancelled.REQUESTED


def test_a_wrong_argument_fails_at_once() -> None:
    with pytest.raises(ConfigurationError, match="follow"):
        follow_sync(URL, client=httpx.AsyncClient())  # type: ignore[arg-type]


def test_a_run_is_read_within_its_block() -> None:
    with pytest.raises(RuntimeError, match="with follow_sync"):
        next(follow_sync(URL))


# -- a server that lies

LIES = ["cut", "end", "repeat", "lose", "swap", "merge", "refuse", "break", "gone quiet", "another run", "html"]
Lie = tuple[str, int, int]


class Liar:
    """Serves a run, and for some answers does what proxies and bad servers do.

    Args:
        lies: what to do to each answer, and to which of its events. When they are used up, it goes on with the truth,
            or with the last of them.
    """

    def __init__(self, lines: Sequence[str], code: int, lies: Sequence[Lie], *, reforms: bool) -> None:
        self.starts = 0
        self._events = run_of(*lines, code=code)
        self._lines = lines
        self._state = state(len(lines) + 1, code)
        self._keys: set[str] = set()
        self._lies = list(lies)
        self._reforms = reforms

    def answer(self, request: httpx.Request) -> Reply | Broken:
        lie, first, second = self._next()
        if request.method == "POST":
            self._keys.add(request.headers["idempotency-key"])
            self.starts += request.url.path != "/run-sse/"
        if request.headers["accept"] == "application/json":
            return Reply(502) if lie == "refuse" else self._state
        place = request.headers.get("last-event-id", f"{RUN}.-1")
        number = int(place.rpartition(".")[2]) + 1
        return self._told(self._events[number:], number, lie, first, second)

    @property
    def keys(self) -> int:
        return len(self._keys)

    def _next(self) -> Lie:
        if not self._lies:
            return ("truth", 0, 0)
        return self._lies[0] if len(self._lies) == 1 and not self._reforms else self._lies.pop(0)

    def _told(self, events: list[bytes], number: int, lie: str, first: int, second: int) -> Reply | Broken:
        at, to = sorted((first % (len(events) + 1), second % (len(events) + 1)))
        if lie == "cut":
            return stream(b"".join(events)[: first * 7], breaks=True)
        if lie == "end":
            return stream(*events[:at])
        if lie == "repeat":
            return stream(*events[:to], *events[at:])
        if lie == "lose":
            return stream(*events[:at], *events[to:])
        if lie == "swap":
            return stream(*events[:at], *reversed(events[at:to]), *events[to:])
        if lie == "merge":
            return stream(*events[:at], *self._merged(number + at, number + to), *events[to:])
        if lie == "refuse":
            return [refusal(503, "busy"), Reply(502, b"<html>"), Reply(429)][first % 3]
        if lie == "break":
            return Broken([httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError][first % 3])
        if lie == "gone quiet":
            return Reply(204)
        if lie == "another run":
            return stream(*(each.replace(RUN.encode(), b"x" * 16) for each in events))
        return Reply(200, b"<html>", {"Content-Type": "text/html"}) if lie == "html" else stream(*events)

    def _merged(self, first: int, end: int) -> list[bytes]:
        """The lines from one number to before another as one event, if they are lines."""
        if not 1 <= first < end <= len(self._lines) + 1:
            return self._events[first:end]
        return [event(end - 1, "stdout", line="\n".join(self._lines[first - 1 : end - 1]))]


@given(
    lines=st.lists(st.text('abä \\"', max_size=3), max_size=12),
    code=st.sampled_from([0, 3]),
    lies=st.lists(st.tuples(st.sampled_from(LIES), st.integers(0, 60), st.integers(0, 60)), max_size=6),
    reforms=st.booleans(),
)
def test_a_lie_is_never_told_on(lines: list[str], code: int, lies: list[Lie], reforms: bool) -> None:
    """The lines are the script's, from the first on, each once; and an end without an error is the script's own."""
    liar = Liar(lines, code, lies, reforms=reforms)
    read: list[str] = []
    error: FollowError | None = None
    with httpx.Client(transport=Server(liar.answer)) as client, follow_sync(URL, client=client) as run:
        try:
            for each in run:
                said: dict[str, Any] = json.loads(each.data)
                read += said["line"].split("\n") if "line" in said else []
        except FollowError as raised:
            error = raised
    assert read == lines[: len(read)]
    assert liar.starts == 0
    assert liar.keys == 1
    if error is None:
        assert (read, run.exit_code, run.is_over) == (lines, code, True)
    else:
        assert lies
        assert run.exit_code is None


@pytest.mark.parametrize("lie", ["lose", "gone quiet", "end"])
def test_a_lie_that_goes_on_is_an_error(lie: str) -> None:
    liar = Liar(["a", "b"], 0, [(lie, 1, 2)], reforms=False)
    with (
        httpx.Client(transport=Server(liar.answer)) as client,
        follow_sync(URL, client=client, give_up_after=30) as run,
        pytest.raises((EventsMissing, RunLost, FollowError)),
    ):
        list(run)
    assert run.exit_code is None
