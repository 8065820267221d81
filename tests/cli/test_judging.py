"""What the doctor makes of measurements, without a network and without a clock."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sse_bridge.cli import judging
from sse_bridge.cli.seeing import Answer, Sight

RUN = "Zk3vQ0x9bTnWf2Rq"
START = b'retry: 2000\nid: Zk3vQ0x9bTnWf2Rq.0\ndata: {"type":"start"}\n\n'


BEAT = b": heartbeat\n"


def frame(number: int) -> bytes:
    return b"id: %b.%d\ndata: a\n\n" % (RUN.encode(), number)


def sight(*parts: tuple[float, bytes], status: int | None = 200, head: float = 0.0) -> Sight:
    """A stream that was asked for at 0, and what came when."""
    made = Sight(RUN, 0.0)
    if status is not None:
        made.begin(status, head)
    for now, chunk in parts:
        made.feed(chunk, now)
    return made


def state(frames: int = 0, seconds: float = 0.1, **more: Any) -> Answer:
    body = {"run": RUN, "state": "running", "error": None, "frames": frames, "viewers": 2, **more}
    return Answer(200, body, seconds)


# -- the start


@pytest.mark.parametrize(
    ("error", "may_run"),
    [(httpx.ReadTimeout(""), True), (httpx.ConnectTimeout(""), False), (httpx.ConnectError(""), False)],
)
def test_a_start_without_an_answer_may_have_started_a_run(error: httpx.HTTPError, may_run: bool) -> None:
    assert ("A run may be going on" in judging.unreachable(error, 10.0).found) is may_run


# -- what a stream shows


def test_what_is_read_of_a_stream_does_not_depend_on_how_it_is_cut() -> None:
    whole = (START + frame(1) + b": heartbeat\n" + frame(2)).replace(b"\n", b"\r\n")
    pieces = sight(*((float(at), whole[at : at + 1]) for at in range(len(whole))))
    assert (pieces.first, pieces.last, pieces.heartbeats, pieces.place) == (0, 2, 1, f"{RUN}.2")
    assert pieces.first_at == float(whole.index(b"start") + len(b'start"}\r'))


def test_a_heartbeat_in_the_output_is_none() -> None:
    seen = sight((0.0, b"id: x.1\n"), (9.0, b"data: : heartbeat\n\n"))
    assert (seen.heartbeats, seen.last, seen.place) == (0, None, None)


def test_a_heartbeat_that_ends_no_silence_proves_nothing() -> None:
    seen = sight((0.0, BEAT), (0.3, BEAT), (15.0, b": heart"), (15.1, b"beat\n\n" + BEAT))
    assert seen.heartbeats == 1


def test_the_longest_silence_is_one_that_was_survived() -> None:
    seen = sight((0.0, START), (7.0, frame(1)), (9.0, frame(2)))
    seen.finish(30.0, is_broken=True)
    assert seen.longest == 7.0


# -- lines one by one


@pytest.mark.parametrize(
    ("delays", "usual", "is_good"),
    [
        ((0.1, 0.1), 0.1, True),
        ((0.1, 4.9), 0.1, False),  # a proxy that flushes every five seconds
        ((4.9, 0.1), 0.1, False),
        ((1.6, 1.6), 0.9, True),  # a long way
        ((4.9, 4.9), 4.8, False),  # everything is held back
    ],
)
def test_a_first_event_that_is_late(delays: tuple[float, float], usual: float, is_good: bool) -> None:
    finding = judging.lines([sight((delay, START)) for delay in delays], [state(seconds=usual)], 1.0, 8.0)
    assert finding.is_good is is_good


@pytest.mark.parametrize(
    ("status", "frames", "is_good"),
    [(None, 0, False), (200, 3, False), (200, 0, None)],
    ids=["no head", "the run has events", "the run has none"],
)
def test_a_first_event_that_does_not_come(status: int | None, frames: int, is_good: bool | None) -> None:
    assert judging.lines([sight(status=status)] * 2, [state(frames)], 1.0, 8.0).is_good is is_good


def test_lines_that_the_run_has_and_the_stream_has_not() -> None:
    held, flowing = sight((0.0, START)), sight((0.0, START))
    for second in range(1, 5):
        for each in (held, flowing):
            each.owe(2 * second, float(second))
        flowing.feed(frame(2 * second - 1), second + 0.5)
    assert judging.lines([held], [state(8)], 1.0, 8.0).is_good is False
    assert (held.held, flowing.held) == (3.0, 1.0)


def test_lines_that_come_in_time_are_owed_no_longer() -> None:
    seen = sight((0.0, START))
    seen.owe(1, 1.0)
    seen.feed(frame(1), 1.1)
    seen.owe(1, 9.0)
    seen.feed(frame(2), 10.0)
    assert seen.held == pytest.approx(0.1)


@pytest.mark.parametrize("status", [404, 503])
def test_a_viewer_that_gets_no_stream(status: int) -> None:
    finding = judging.lines([sight((0.0, START)), sight(status=status)], [state()], 1.0, 8.0)
    assert finding.is_good is False
    assert f"a viewer got {status}" in finding.found


def test_a_connection_that_shows_nothing_while_another_does() -> None:
    silent, closed, seen = sight(), sight(), sight((0.1, START))
    closed.finish(9.0, is_broken=False)
    for sights in ([silent, seen], [seen, silent]):
        finding = judging.lines(sights, [state(1)], 1.0, 8.0)
        assert finding.is_good is False
        assert "one of 2 connections got none in 8 s" in finding.found
    assert judging.lines([closed, seen], [state(1)], 1.0, 8.0).is_good


def test_a_connection_that_fails_is_not_held_back() -> None:
    failed = sight(status=None)
    failed.finish(1.0, is_broken=True, error="ConnectError")
    finding = judging.lines([sight((0.1, START)), failed], [state(1)], 1.0, 8.0)
    assert (finding.is_good, finding.found) == (False, "a viewer got no connection (ConnectError)")


# -- silence


def ended(at: float, *parts: tuple[float, bytes], is_broken: bool = True) -> Sight:
    made = sight(*parts)
    made.finish(at, is_broken=is_broken)
    return made


@pytest.mark.parametrize(
    ("seen", "state", "is_good", "says"),
    [
        (sight((0, START), (15, BEAT), (30, BEAT)), state(), True, "2 heartbeats came, after 15.0 s"),
        (sight((0, START), (20, BEAT)), state(), True, "a heartbeat came, after 20.0 s"),
        (ended(10, (0, START)), state(), False, "was cut after 10.0 s of silence"),
        (ended(10, (0, START), is_broken=False), state(), False, "was cut after 10.0 s of silence"),
        (
            ended(10, (0, START), is_broken=False),
            state(state="ended", error={"code": "abandoned"}),
            False,
            "was cut after 10.0 s of silence",
        ),
        (ended(20, (0, START), (15, BEAT)), state(), False, "ended after 20.0 s, for a reason other than silence"),
        (
            ended(20, (0, START), (15, BEAT), is_broken=False),
            state(),
            None,
            "ended after 20.0 s, for a reason other than silence",
        ),
        (ended(3, (0, START), is_broken=False), state(state="ended"), None, "the run ended after 3.0 s"),
        (sight((0, START), *((n, frame(n)) for n in range(1, 32))), state(), None, "the script prints"),
        (sight((0, START)), state(), False, "no heartbeat in 32.0 s"),
    ],
)
def test_silence(seen: Sight, state: Answer, is_good: bool | None, says: str) -> None:
    finding = judging.silence(seen, state, 32.0)
    assert (finding.is_good, says in finding.found) == (is_good, True), finding


def test_silence_that_was_watched_for_a_short_time_is_left_open() -> None:
    assert judging.silence(sight((0, START)), state(), 5.0).is_good is None


def test_the_heartbeat_to_set_is_half_of_the_silence() -> None:
    assert "heartbeat=5 or less" in judging.silence(ended(10, (0, START)), state(), 32.0).remedy


# -- the run on other connections


@pytest.mark.parametrize(
    ("answers", "is_good", "says"),
    [
        ([state()] * 9, True, "9 connections found the run"),
        ([state()] * 5 + [Answer(404)] * 4, False, "4 of 9 requests did not find the run"),
        ([Answer(503)] * 9, False, "9 of 9 requests for the run got 503 Service Unavailable"),
        ([state()] * 8 + [Answer(0)], False, "1 of 9 requests for the run got no answer"),
        ([state()] * 8 + [state(run="another")], False, "1 of 9 requests for the run got something other"),
    ],
)
def test_resuming(answers: list[Answer], is_good: bool, says: str) -> None:
    finding = judging.resume(answers, RUN)
    assert (finding.is_good, says in finding.found) == (is_good, True), finding


@pytest.mark.parametrize(
    ("seen", "is_good"),
    [
        (sight((0, b"retry: 2000\n" + frame(4))), True),
        (sight((0, START)), False),
        (sight((0, frame(3))), False),
        (sight(status=204), True),
        (ended(1, is_broken=False), True),  # `verbatim` says nothing of the end
        (sight((0, b"id: %b.gone\ndata: {}\n\n" % RUN.encode())), False),
        (sight(), False),
        (sight(status=502), False),
    ],
)
def test_a_place(seen: Sight, is_good: bool) -> None:
    assert judging.place(seen, 3, state()).is_good is is_good


# -- viewers that leave


@pytest.mark.parametrize(
    ("before", "in_time", "after", "is_good"),
    [
        (2, True, 0, True),
        (2, False, 0, None),  # with a write, as behind Apache
        (2, False, 1, False),
        (2, False, None, None),
        (None, None, None, None),
        (0, None, None, None),
    ],
)
def test_leaving(before: int | None, in_time: bool | None, after: int | None, is_good: bool | None) -> None:
    assert judging.leaving(before, in_time, after, 5.0, why="").is_good is is_good


def test_leaving_is_not_wrong_before_a_heartbeat_was_due() -> None:
    assert judging.leaving(2, False, 1, 5.0, why="", has_beaten=False).is_good is None


@pytest.mark.parametrize(
    ("answers", "is_cut", "says"),
    [
        ([state(viewers=0, state="ended")], True, "the run ended meanwhile"),
        ([state(viewers=1)], True, "a stream ended before its run"),
        ([state(viewers=1)], False, "several workers answer"),
        ([state(), state(viewers=0)], False, "several workers answer"),
        ([Answer(503)], False, "a request for the run's state got 503 Service Unavailable"),
        ([Answer(0)], False, "a request for the run's state got no answer"),
    ],
)
def test_why_leaving_is_unknown(answers: list[Answer], is_cut: bool, says: str) -> None:
    seen = ended(1, (0, START)) if is_cut else sight((0, START))
    why = judging.why_unknown(answers, [sight((0, START)), seen])
    assert says in why
    assert judging.leaving(None, None, None, 5.0, why=why).found == f"not checked: {why}"


BUSY = b'{"error": {"code": "busy", "message": "There are enough viewers."}}'


def test_a_limit_is_not_wrong() -> None:
    refused = sight((0, BUSY), status=503)
    start = judging.refused(503, BUSY)
    assert (start.is_good, "There are enough viewers." in start.found) == (None, True)
    for finding in (
        start,
        judging.lines([sight((0, START)), refused], [state()], 1.0, 8.0),
        judging.place(refused, 3, state()),
    ):
        assert finding.is_good is None
        assert finding.remedy == "Ask again when it is less busy."


@pytest.mark.parametrize(
    ("answer", "is_good", "says"),
    [
        (Answer(204), True, "confirmed"),
        (Answer(202, {"cancelled": "acknowledged"}), None, "not seen to end (acknowledged)"),
        (Answer(202, {"cancelled": "requested"}), None, "may still be running (requested)"),
        (Answer(202, {"cancelled": None}), None, "may still be running (requested)"),
        (Answer(0), False, "no answer"),
        (None, None, "others use the run"),
    ],
)
def test_an_end(answer: Answer | None, is_good: bool | None, says: str) -> None:
    finding = judging.end(answer)
    assert (finding.is_good, says in finding.found) == (is_good, True), finding


def test_viewers_are_known_if_all_answers_agree() -> None:
    assert judging.viewers([state(), state()]) == 2
    assert judging.viewers([state(), state(viewers=0)]) is None
    assert judging.viewers([state(), Answer(404)]) is None


@pytest.mark.parametrize(
    ("answer", "opened", "asked_at", "expected"),
    [
        (state(viewers=0, started_at=100.2), 0, 100.0, False),
        (state(viewers=1, started_at=100.2), 0, 100.0, True),
        (state(viewers=2, started_at=100.2), 2, 100.0, False),
        (state(viewers=3, started_at=100.2), 2, 100.0, True),  # somebody has come meanwhile
        (state(viewers=0, started_at=98.0), 0, 100.0, False),  # clocks differ
        (state(viewers=0, started_at=90.0), 0, 100.0, True),
        (state(viewers=0, started_at=90.0), 0, None, False),
        (Answer(404), 0, 100.0, False),
    ],
)
def test_a_run_that_others_use(answer: Answer, opened: int, asked_at: float | None, expected: bool) -> None:
    assert judging.is_shared(answer, opened, asked_at) is expected


def test_a_run_that_was_left_running_need_not_show_what_follows_a_place() -> None:
    assert judging.place(sight(), 3, state(), goes_on=True).is_good is None
    assert judging.place(sight((0, START)), 3, state(), goes_on=True).is_good is False


# -- the address without the slash


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_loses_the_method(status: int) -> None:
    url = httpx.URL("https://a.example/run-sse?x=1")
    assert judging.slash("POST", url, status, "/run-sse/?x=1").is_good is False
    assert judging.slash("GET", url, status, "/run-sse/?x=1").is_good is True
