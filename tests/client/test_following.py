"""`follow` against a server that answers as each test says, in virtual time."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any, Literal

import anyio
import httpx
import pytest

from sse_bridge import BridgeError, ConfigurationError, KeyConflict
from sse_bridge.client import (
    Cancelled,
    EventsMissing,
    FollowedRun,
    FollowError,
    Gap,
    KeyRefused,
    Line,
    RunFailed,
    RunLost,
    RunRefused,
    RunUnknown,
    follow,
    run_lines,
)
from tests.client.scripted import RUN, Broken, Reply, Server, Step, event, gone, refusal, run_of, state, stream

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

URL = "https://example.org/run-sse/?script=a"
RUN_PATH = f"/run-sse/{RUN}?script=a"
RUN_URL = f"https://example.org/run-sse/{RUN}"


class Followed:
    """What a reader got of a run."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.error: FollowError | None = None
        self.exit_code: int | None = None
        self.is_over = False
        self.url: str | None = None

    @property
    def lines(self) -> list[str]:
        said = [each.json() for each in self.events]
        return [each["line"] for each in said if "line" in each]

    def raised(self, kind: type[FollowError]) -> FollowError:
        assert type(self.error) is kind, repr(self.error)
        assert isinstance(self.error, BridgeError)
        assert not self.is_over
        return self.error


async def read(server: Server, url: str = URL, how: Any = follow, **options: Any) -> Followed:
    """Follows a run to its end, whatever that is."""
    followed = Followed()
    async with httpx.AsyncClient(transport=server) as client:
        async with how(url, client=client, **options) as run:
            try:
                async for each in run:
                    followed.events.append(each)
            except FollowError as error:
                followed.error = error
            followed.exit_code, followed.is_over, followed.url = run.exit_code, run.is_over, run.url
        assert server.open == 0
    return followed


# -- a run that goes well


@pytest.mark.parametrize("dialect", ["typed", "named"])
@pytest.mark.parametrize("code", [0, 3, 137])
async def test_a_run_is_read_to_its_exit(dialect: str, code: int) -> None:
    server = Server(stream(*run_of("a", "b", code=code, dialect=dialect)))
    followed = await read(server)
    assert followed.lines == ["a", "b"]
    assert [each.id for each in followed.events] == [f"{RUN}.{number}" for number in range(4)]
    assert (followed.exit_code, followed.is_over, followed.error) == (code, True, None)
    assert server.asked == [("POST", "/run-sse/?script=a")]
    assert server.requests[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("timed_out", [True, False, "true"])
async def test_an_exit_says_whether_the_commands_time_was_up(timed_out: Any) -> None:
    server = Server(stream(event(0, "start", run=RUN), event(1, "exit", code=-1, timed_out=timed_out)))
    async with httpx.AsyncClient(transport=server) as client, follow(URL, client=client) as run:
        assert not run.timed_out
        async for _ in run:
            pass
    assert (run.exit_code, run.timed_out) == (-1, timed_out is True)


async def test_bytes_may_be_cut_anywhere() -> None:
    whole = b"".join(run_of("ä", "b"))
    followed = await read(Server(stream(*(whole[at : at + 1] for at in range(len(whole))))))
    assert (followed.lines, followed.exit_code) == (["ä", "b"], 0)


async def test_a_lost_connection_is_resumed_at_the_runs_own_address() -> None:
    """With the query of the start, and behind the last event."""
    events = run_of("a", "b", "c", code=3)
    server = Server(stream(*events[:2], breaks=True), stream(*events[2:3]), stream(*events[3:]))
    followed = await read(server, headers={"Authorization": "Bearer x"})
    assert (followed.lines, followed.exit_code) == (["a", "b", "c"], 3)
    assert server.asked == [("POST", "/run-sse/?script=a"), ("GET", RUN_PATH), ("GET", RUN_PATH)]
    assert server.places == [None, f"{RUN}.1", f"{RUN}.2"]
    assert {each.headers["authorization"] for each in server.requests} == {"Bearer x"}
    assert followed.url == f"https://example.org{RUN_PATH}"


async def test_a_run_whose_name_came_only_in_the_header_is_not_started_again() -> None:
    server = Server(stream(breaks=True), stream(*run_of("a")))
    followed = await read(server)
    assert (followed.lines, followed.exit_code) == (["a"], 0)
    assert server.asked == [("POST", "/run-sse/?script=a"), ("GET", RUN_PATH)]


async def test_repeats_are_left_out() -> None:
    events = run_of("a", "b", "c")
    followed = await read(Server(stream(*events[:3], breaks=True), stream(*events[1:])))
    assert followed.lines == ["a", "b", "c"]


async def test_a_line_that_a_proxy_lost_is_fetched() -> None:
    events = run_of("a", "b", "c")
    server = Server(stream(*events[:2], *events[3:]), stream(*events[2:]))
    followed = await read(server)
    assert (followed.lines, followed.exit_code) == (["a", "b", "c"], 0)
    assert server.places == [None, f"{RUN}.1"]


async def test_a_line_that_stays_missing_is_an_error() -> None:
    events = run_of("a", "b", "c")
    server = Server(stream(*events[:2], *events[3:]), stream(*events[3:]))
    followed = await read(server)
    assert followed.lines == ["a"]
    assert followed.raised(EventsMissing).code == "frames_missing"
    assert len(server.requests) == 3


async def test_another_runs_events_are_an_error() -> None:
    other = event(1, "stdout", line="x").replace(RUN.encode(), b"x" * 16)
    followed = await read(Server(stream(*run_of("a")[:1], other), stream(other)))
    assert followed.lines == []
    assert followed.raised(EventsMissing)


async def test_lines_that_came_in_one_event_count_as_several() -> None:
    """As `Coalesce` sends them."""
    events = [event(0, "start", run=RUN), event(3, "stdout", line="a\nb\nc"), event(4, "exit", code=0)]
    assert (await read(Server(stream(*events)))).lines == ["a\nb\nc"]
    lossy = [events[0], event(4, "stdout", line="a\nb\nc"), event(5, "exit", code=0)]
    assert (await read(Server(stream(*lossy)))).raised(EventsMissing)


# -- starting


async def test_a_start_whose_answer_was_lost_is_asked_again_with_its_key() -> None:
    server = Server(Broken(), Broken(httpx.ConnectError), Reply(502, b"<html>"), stream(*run_of("a")))
    followed = await read(server)
    assert followed.exit_code == 0
    assert server.asked == [("POST", "/run-sse/?script=a")] * 4
    assert len({each.headers["idempotency-key"] for each in server.requests}) == 1


async def test_two_runs_have_two_keys_and_a_caller_may_choose() -> None:
    server = Server(stream(*run_of("a")))
    await read(server)
    await read(server)
    await read(server, key="build-42")
    keys = [each.headers["idempotency-key"] for each in server.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "build-42"


async def test_a_start_is_not_asked_again_when_its_key_may_be_forgotten() -> None:
    """After half a minute, however long it may look for the server."""
    server = Server(Broken())
    before = anyio.current_time()
    followed = await read(server, give_up_after=None)
    assert followed.raised(RunLost).code == "start_unknown"
    assert 25 < anyio.current_time() - before <= 30


async def test_a_bridge_that_is_busy_meanwhile_makes_no_key_last_longer() -> None:
    """It has a place free again when the run of the lost answer is over, and its key forgotten."""
    busy = refusal(503, "busy", **{"Retry-After": "4"})
    server = Server(Broken(), *[busy] * 20, stream(*run_of("a")))
    before = anyio.current_time()
    followed = await read(server, give_up_after=None)
    assert followed.raised(RunLost).code == "start_unknown"
    assert anyio.current_time() - before <= 30
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Reply(500)], "The server answered 500 Internal Server Error each time for 30 seconds, so it is not known"),
        ([Reply(504), Reply(500)], "answered 500 Internal Server Error or 504 Gateway Timeout each time for 30"),
        ([Reply(504), Broken(), Reply(500)], "The answer to the start was lost"),
    ],
)
async def test_a_start_whose_answer_is_an_error_each_time(steps: list[Step], said: str) -> None:
    """No answer was lost, so that is not what it says."""
    error = (await read(Server(*steps))).raised(RunLost)
    assert error.code == "start_unknown"
    assert said in error.message


async def test_a_start_by_get_whose_answer_is_an_error() -> None:
    error = (await read(Server(Reply(500)), method="GET")).raised(RunLost)
    assert "500 Internal Server Error, so" in error.message
    assert "Start with POST" in error.message


async def test_a_start_by_get_is_asked_once() -> None:
    """As a browser starts it: the request has no key."""
    server = Server(Broken(), stream(*run_of("a")))
    followed = await read(server, method="GET")
    assert followed.raised(RunLost).code == "start_unknown"
    assert server.asked == [("GET", "/run-sse/?script=a")]
    assert "idempotency-key" not in server.requests[0].headers


async def test_a_start_by_get_that_never_went_out_is_asked_again() -> None:
    server = Server(Broken(httpx.ConnectError), refusal(503, "busy"), stream(*run_of("a")))
    assert (await read(server, method="GET")).exit_code == 0


async def test_a_run_that_is_answered_201_is_followed() -> None:
    created = Reply(201, b"{}", {"Location": f"/runs/{RUN}"})
    server = Server(created, stream(*run_of("a")))
    assert (await read(server, json={"script": "a"})).exit_code == 0
    assert server.asked == [("POST", "/run-sse/?script=a"), ("GET", f"/runs/{RUN}?script=a")]
    assert server.requests[0].content == b'{"script":"a"}'


async def test_headers_are_not_handed_to_another_server() -> None:
    for created in (
        Reply(201, b"{}", {"Location": f"https://elsewhere.example/runs/{RUN}"}),
        Reply(307, b"", {"Location": "https://elsewhere.example/run-sse/"}),
    ):
        server = Server(created, stream(*run_of("a")))
        assert (await read(server)).raised(RunRefused)
        assert len(server.requests) == 1


async def test_a_redirect_to_the_path_with_a_slash_is_followed() -> None:
    server = Server(Reply(307, b"", {"Location": "/run-sse/"}), stream(*run_of("a")))
    assert (await read(server, "https://example.org/run-sse")).exit_code == 0
    assert server.asked == [("POST", "/run-sse"), ("POST", "/run-sse/")]


async def test_a_known_run_is_followed_and_never_started() -> None:
    """What would start one if the address were no run's is made harmless by an id."""
    server = Server(state(2, None, state="running"), stream(*run_of("a")))
    assert (await read(server, RUN_URL)).exit_code == 0
    assert server.asked == [("GET", f"/run-sse/{RUN}")] * 2
    assert server.places == [f"{RUN}.0", None]
    assert (await read(Server(refusal(404, "run_unknown")), RUN_URL)).raised(RunUnknown)


# -- waiting


async def test_retry_and_retry_after_are_honoured() -> None:
    events = run_of("a")
    times: list[float] = []

    def noted(reply: Reply) -> Any:
        def answer(request: httpx.Request) -> Reply:
            times.append(anyio.current_time())
            return reply

        return answer

    server = Server(
        noted(refusal(503, "busy", Retry_After="7")),
        noted(stream(b"retry: 5000\n", run=None)),  # the same as a frame
        noted(stream(b"retry: 3000\n" + events[0], breaks=True)),
        noted(stream(*events[1:])),
    )
    assert (await read(server)).exit_code == 0
    waits = [after - before for before, after in pairwise(times)]
    assert [int(wait) for wait in waits] == [7, 5, 3]
    assert len({wait % 1 for wait in waits}) == 3  # clients that lost one server do not come back as one


async def test_a_run_that_stays_away_is_given_up() -> None:
    server = Server(stream(*run_of("a")[:2], breaks=True), Broken())
    before = anyio.current_time()
    followed = await read(server, give_up_after=20)
    assert followed.lines == ["a"]
    assert followed.raised(RunLost).code == "gave_up"
    assert 14 < anyio.current_time() - before < 20
    assert isinstance(followed.error.__cause__, httpx.ReadError) if followed.error else False


async def test_news_start_the_time_again() -> None:
    events = run_of(*"abcdefgh")
    steps: list[Step] = []
    for each in events:
        steps += [stream(b"retry: 3000\n" + each, breaks=True), Broken(), Broken(), Broken()]
    assert (await read(Server(*steps, stream()), give_up_after=20)).exit_code == 0
    assert anyio.current_time() > 60


async def test_a_connection_that_lived_is_news() -> None:
    """A script may be silent for hours, and proxies cut what is silent."""
    silent = Reply(200, b": heartbeat\n", {"Content-Type": "text/event-stream"}, breaks=True, silence=15)
    events = run_of("a")
    server = Server(stream(*events[:2], breaks=True), *[silent] * 9, stream(*events[2:]))
    assert (await read(server, give_up_after=20)).exit_code == 0


async def test_a_proxy_that_loses_a_line_on_each_connection() -> None:
    """The run comes further each time."""
    events = run_of(*"abcdefghij")
    steps = [stream(events[number], *events[number + 2 :]) for number in range(len(events) - 2)]
    followed = await read(Server(*steps, stream(*events[-2:])))
    assert (followed.lines, followed.exit_code) == (list("abcdefghij"), 0)


async def test_a_connection_without_news_does_not_keep_a_run_alive() -> None:
    server = Server(stream(*run_of("a")[:1], breaks=True), stream(b": heartbeat\n"))
    assert (await read(server)).raised(RunLost).code == "gave_up"


async def test_the_last_refusal_is_what_is_raised() -> None:
    error = (await read(Server(refusal(503, "busy")))).raised(RunRefused)
    assert (error.code, error.status, error.request_id) == ("busy", 503, "req_1")


# -- refusals


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410, 502, 504])
async def test_a_refusal_says_why(status: int) -> None:
    server = Server(refusal(status, "some_code"))
    error = (await read(server)).raised(RunRefused)
    assert len(server.requests) == 1
    assert (error.code, error.message, error.status, error.request_id) == ("some_code", "No.", status, "req_1")


async def test_a_refusal_of_a_proxy_is_named_by_its_status() -> None:
    error = (await read(Server(Reply(404, b"<html>secret</html>")))).raised(RunRefused)
    assert (error.code, error.message) == ("http_404", "The server answered 404 Not Found.")


async def test_a_refusal_as_an_event_is_the_same() -> None:
    error = (await read(Server(stream(gone("not_found", status=404, request_id="req_2"), run=None)))).raised(RunRefused)
    assert (error.code, error.status, error.request_id) == ("not_found", 404, "req_2")
    assert (await read(Server(stream(gone("run_unknown", status=404))), RUN_URL)).raised(RunRefused)


async def test_a_key_conflict_is_the_packages_own() -> None:
    error = (await read(Server(refusal(422, "key_conflict")))).raised(KeyRefused)
    assert isinstance(error, KeyConflict)


async def test_a_run_that_is_unknown_by_now() -> None:
    """Its command is never started again."""
    server = Server(stream(*run_of("a")[:2], breaks=True), stream(gone("run_unknown", status=404)))
    followed = await read(server)
    assert followed.lines == ["a"]
    assert followed.raised(RunUnknown).code == "run_unknown"
    assert followed.raised(RunUnknown).run == RUN


async def test_what_is_no_event_stream_is_refused() -> None:
    for answer in (Reply(200, b"hello", {"Content-Type": "text/html"}), Reply(204)):
        assert (await read(Server(answer))).raised(RunRefused).code == "not_event_stream"


# -- endings


async def test_an_error_is_raised_behind_all_lines() -> None:
    events = [*run_of("a", "b")[:3], event(3, "error", code="time_limit", message="Too long.")]
    followed = await read(Server(stream(*events)))
    assert followed.lines == ["a", "b"]
    error = followed.raised(RunFailed)
    assert (error.code, error.message, error.run, str(error)) == (
        "time_limit",
        "Too long.",
        RUN,
        "Too long. (time_limit)",
    )
    assert followed.exit_code is None


async def test_an_owner_that_is_lost_is_a_failure() -> None:
    server = Server(stream(*run_of("a")[:2], gone("owner_lost")))
    assert (await read(server)).raised(RunFailed).code == "owner_lost"


async def test_an_exit_without_a_number_is_no_success() -> None:
    followed = await read(Server(stream(*run_of("a", code=None))))
    assert followed.raised(RunFailed).code == "exit_unknown"


async def test_a_204_is_believed_if_the_state_agrees() -> None:
    """So ends an `EventStream`, which has no exit."""
    server = Server(stream(*run_of("a", "b")[:3]), Reply(204), state(2, None))
    followed = await read(server)
    assert (followed.lines, followed.exit_code, followed.is_over) == (["a", "b"], None, True)
    assert [each.headers["accept"] for each in server.requests[1:]] == ["text/event-stream", "application/json"]


async def test_the_state_says_of_a_verbatim_stream_whether_its_time_was_up() -> None:
    frames = run_of("a", "b")[1:3]
    server = Server(stream(*frames), Reply(204), state(2, -1, timed_out=True))
    async with httpx.AsyncClient(transport=server) as client, follow(URL, client=client) as run:
        async for _ in run:
            pass
    assert (run.exit_code, run.timed_out) == (-1, True)


async def test_the_state_has_the_exit_code_of_a_verbatim_stream() -> None:
    frames = [f"id: {RUN}.{n}\nevent: stdout\ndata: {{}}\n\n".encode() for n in (1, 2)]
    assert (await read(Server(stream(*frames), Reply(204), state(2, 3)))).exit_code == 3
    failed = Server(stream(*frames), Reply(204), state(2, None, {"code": "upstream_lost", "message": "Lost."}))
    assert (await read(failed)).raised(RunFailed).code == "upstream_lost"


async def test_a_worker_that_has_yet_to_hear_of_the_end_is_asked_again() -> None:
    """Behind a balancer, the 204 comes from one worker and the state from another."""
    late = [Reply(204), state(2, state="running")]
    followed = await read(Server(stream(*run_of("a", "b")[:3]), *4 * late, Reply(204), state(2, None)))
    assert (followed.lines, followed.is_over) == (["a", "b"], True)


async def test_a_run_that_goes_on_behind_each_204_is_given_up() -> None:
    def answer(request: httpx.Request) -> Reply:
        return state(2, state="running") if request.headers["accept"] == "application/json" else Reply(204)

    followed = await read(Server(stream(*run_of("a", "b")[:3]), answer))
    assert followed.raised(RunLost).code == "gave_up"


@pytest.mark.parametrize("said", [state(3), state(0)])
async def test_a_204_that_the_state_contradicts_is_an_error(said: Reply) -> None:
    def answer(request: httpx.Request) -> Reply:
        return said if request.headers["accept"] == "application/json" else Reply(204)

    followed = await read(Server(stream(*run_of("a", "b")[:3]), answer))
    assert followed.raised(EventsMissing)
    assert followed.exit_code is None


async def test_events_without_ids_cannot_be_resumed() -> None:
    server = Server(stream(b"event: stdout\ndata: {}\n\n"), stream(*run_of("a")))
    followed = await read(server)
    assert len(followed.events) == 1
    assert followed.raised(RunLost).code == "not_resumable"
    assert len(server.requests) == 1


async def test_a_run_without_ids_ends_with_its_exit() -> None:
    events = [event(None, "start", run=RUN), event(None, "stdout", line="a"), event(None, "exit", code=3)]
    followed = await read(Server(stream(*events)))
    assert (followed.lines, followed.exit_code) == (["a"], 3)


@pytest.mark.parametrize("first", ["tick", "error", "start"])
async def test_what_a_verbatim_stream_says_is_not_taken_for_the_bridges_words(first: str) -> None:
    """Many services send events of the type `error`, or `exit`."""
    frames = [
        f'id: {RUN}.{n}\ndata: {{"type":"{kind}","code":1,"run":"{RUN}"}}\n\n'.encode()
        for n, kind in enumerate([first, "error", "exit", "gap"], 1)
    ]
    followed = await read(Server(stream(*frames), Reply(204), state(4, None)))
    assert (len(followed.events), followed.is_over, followed.exit_code) == (4, True, None)


async def test_a_start_of_another_run_is_not_the_bridges() -> None:
    """The response's head has named the run."""
    words = ['{"type":"start","run":"0123456789abcdef"}', '{"type":"error","code":"x"}', '{"type":"tick"}']
    body = "".join(f"data: {word}\n\n" for word in words).encode()
    headers = {"content-type": "text/event-stream", "sse-bridge-run": RUN}
    assert len((await read(Server(Reply(200, body, headers), Reply(204), state(3, None)))).events) == 3


async def test_blocks_without_data_count() -> None:
    """In `verbatim`, a comment of the upstream's has a number, too."""
    frames = [f"id: {RUN}.1\n: hello\n\nid: {RUN}.2\ndata: a\n\n".encode()]
    assert (await read(Server(stream(*frames), Reply(204), state(2, None)))).is_over


# -- gaps

GAPS = {
    "typed": [*run_of("a")[:2], event(9, "gap", dropped=8, bytes=99), event(10, "exit", code=0)],
    "at the beginning": [event(9, "gap", dropped=9), event(10, "exit", code=0)],
    "of a large frame": [event(0, "start", run=RUN), event(1, "gap", dropped=1), event(2, "exit", code=0)],
    "unknown": [event(0, "start", run=RUN), event(1, "gap", dropped=None), event(2, "exit", code=0)],
    "verbatim": [
        f"id: {RUN}.1\ndata: a\n\n: gap dropped=8 bytes=99\nid: {RUN}.10\ndata: b\n\n".encode(),
    ],
    "verbatim, of a large frame": [f"id: {RUN}.1\ndata: a\n\nid: {RUN}.2\n: gap dropped=1 bytes=9\n\n".encode()],
}


@pytest.mark.parametrize("name", GAPS)
async def test_a_gap_raises_unless_it_is_accepted(name: str) -> None:
    last = 2 if "large" in name else 10
    server = Server(stream(*GAPS[name]), Reply(204), state(last))
    error = (await read(server)).raised(EventsMissing)
    assert isinstance(error, EventsMissing)
    assert error.code == "gap"
    accepted = await read(Server(stream(*GAPS[name]), Reply(204), state(last)), gaps="yield")
    assert (accepted.exit_code, accepted.is_over) == (0, True)
    (gap,) = [each.json() for each in accepted.events if "dropped" in each.data]
    assert gap["dropped"] == error.dropped


# -- lines


async def test_lines_are_whole() -> None:
    """Pieces are joined, for each stream by itself; lines of one event are taken apart."""
    events = [
        event(0, "start", run=RUN),
        event(1, "stdout", line="10 %", partial=True),
        event(2, "stderr", line="oh"),
        event(3, "stdout", line="\r20 %", partial=True),
        event(4, "stdout", line="\rdone"),
        event(6, "stdout", line="a\nb"),
        event(7, "stdout", line="no newline", partial=True),
        event(8, "exit", code=3),
    ]
    followed = await read(Server(stream(*events)), how=run_lines)
    assert followed.events == [
        Line("oh", "stderr"),
        Line("10 %\r20 %\rdone", "stdout"),
        Line("a", "stdout"),
        Line("b", "stdout"),
        Line("no newline", "stdout"),
    ]
    assert followed.exit_code == 3


async def test_lines_with_gaps() -> None:
    followed = await read(Server(stream(*GAPS["typed"])), how=run_lines, gaps="yield")
    assert followed.events == [Line("a", "stdout"), Gap(8)]


async def test_lines_need_a_dialect_that_has_them() -> None:
    followed = await read(Server(stream(f"id: {RUN}.1\ndata: a\n\n".encode())), how=run_lines)
    assert followed.raised(FollowError).code == "no_lines"


async def test_memory_is_bounded() -> None:
    """Of an event, and of a line that never ends."""
    large = event(1, "stdout", line="x" * 2000)
    followed = await read(Server(stream(*run_of()[:1], large)), max_event_size=1000)
    assert followed.raised(EventsMissing)
    pieces = [event(n, "stdout", line="x" * 100, partial=True) for n in range(1, 20)]
    followed = await read(Server(stream(*run_of()[:1], *pieces)), how=run_lines, max_event_size=1000)
    assert followed.raised(FollowError).code == "line_too_long"


# -- leaving


async def test_leaving_closes_the_connection_and_lets_the_command_run() -> None:
    server = Server(stream(*run_of("a", "b")))
    async with httpx.AsyncClient(transport=server) as client:
        async with follow(URL, client=client) as run:
            async for _ in run:
                break
        assert server.open == 0
        assert not client.is_closed
    assert [method for method, _ in server.asked] == ["POST"]


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_leaving_may_end_the_command(how: str) -> None:
    server = Server(stream(*run_of("a", "b")), Reply(204))
    async with httpx.AsyncClient(transport=server) as client:
        with anyio.CancelScope() as scope:
            try:
                async with follow(URL, client=client, cancel_on_exit=True) as run:
                    await anext(run)
                    if how == "raise":
                        raise KeyError
                    if how == "cancel":
                        scope.cancel()
                        await anyio.sleep(1)
            except KeyError:
                pass
    assert server.asked[1:] == [("DELETE", RUN_PATH)]


async def test_a_run_that_is_over_is_not_ended() -> None:
    server = Server(stream(*run_of("a")))
    await read(server, cancel_on_exit=True)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Reply(204), Cancelled.CONFIRMED),
        (Reply(202, b'{"cancelled": "acknowledged"}'), Cancelled.ACKNOWLEDGED),
        (Reply(202, b'{"cancelled": null}'), Cancelled.REQUESTED),
    ],
)
async def test_cancel_says_how_far_it_got(answer: Reply, expected: Cancelled) -> None:
    server = Server(stream(*run_of("a")[:1]), answer)
    async with httpx.AsyncClient(transport=server) as client, follow(URL, client=client) as run:
        assert await run.cancel() is None
        await anext(run)
        assert await run.cancel() is expected


async def test_a_cancel_that_is_refused() -> None:
    server = Server(stream(*run_of("a")[:1]), refusal(404, "run_unknown"))
    async with httpx.AsyncClient(transport=server) as client, follow(URL, client=client) as run:
        await anext(run)
        with pytest.raises(RunUnknown):
            await run.cancel()


# -- arguments


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("/run-sse/", {}),
        ("ftp://example.org/", {}),
        (URL, {"method": "PUT"}),
        (URL, {"gaps": "ignore"}),
        (URL, {"key": ""}),
        (URL, {"key": 7}),
        (URL, {"headers": [("a", "b")]}),
        (URL, {"headers": {"a b": "c"}}),
        (URL, {"json": {1, 2}}),
        (URL, {"json": {}, "method": "GET"}),
        (URL, {"give_up_after": 0}),
        (URL, {"silence": "1"}),
        (URL, {"max_event_size": 0}),
        (URL, {"client": httpx.Client()}),
        (URL, {"retries": 3}),
    ],
)
async def test_a_wrong_argument_fails_at_once(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        follow(url, **options)


async def test_a_run_is_read_within_its_block() -> None:
    run: FollowedRun[Any] = follow(URL)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(run)


def test_the_package_does_without_the_client() -> None:
    program = "import sys, sse_bridge; sys.exit('httpx_sse' in sys.modules or 'sse_bridge.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    program = "import sys; sys.modules['httpx_sse'] = None; import sse_bridge.client"
    failed = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert 'pip install "sse_bridge[client]"' in failed.stderr


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_start_that_the_reader_gave_up_waiting_for_may_have_happened(method: Literal["GET", "POST"]) -> None:
    """`anext` was cancelled meanwhile. Only a key makes the same request no second start."""

    class Slow(Server):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not self.requests:
                self.requests.append(request)
                await anyio.sleep(8)
            return await super().handle_async_request(request)

    server = Slow(stream(*run_of("a")))
    async with httpx.AsyncClient(transport=server) as client, follow(URL, client=client, method=method) as run:
        with anyio.move_on_after(5):
            await anext(run)
        if method == "GET":
            with pytest.raises(RunLost, match="a command may be running"):
                await anext(run)
        else:
            assert (await anext(run)).data

    keys = [request.headers.get("idempotency-key") for request in server.requests]
    assert len(keys) == (1 if method == "GET" else 2)
    assert len(set(keys)) == 1


async def test_the_half_minute_of_a_start_begins_when_it_is_sent() -> None:
    """Not when its loss is noticed: by then the run may be over for longer than its key is known."""

    class Silent(Server):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            await anyio.sleep(45)
            raise httpx.ReadTimeout("nothing")

    server = Silent()
    options: dict[str, Any] = {"give_up_after": None, "silence": 45}
    async with httpx.AsyncClient(transport=server) as client, follow(URL, client=client, **options) as run:
        with pytest.raises(RunLost, match="a command may be running"):
            await anext(run)

    assert len(server.requests) == 1
