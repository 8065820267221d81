"""`Run`: an upstream is read into an audience, and the run ends in every way there is."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.errors import UpstreamLost, UpstreamRefused
from sse_bridge.flow.policy import Block
from sse_bridge.relay import run as run_module
from sse_bridge.upstream.base import Cancelled
from tests.support.scene import scene
from tests.support.work import FollowedStream, ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


def piece(text: str) -> str:
    """A frame with a part of a line."""
    return f'event: stdout\ndata: {{"data":"{text}"}}\n\n'


# -- reading


async def test_lines_arrive_as_they_are_printed_and_the_exit_ends_the_run(anyio_backend: str) -> None:
    """Each chunk is in the log as soon as it comes. After the exit there is no work to end."""
    async with scene() as it:
        for line in ("a", "b"):
            it.work.feed(stdout(line))
            await wait_all_tasks_blocked()
            assert it.take() == [{"type": "stdout", "line": line}]
        it.work.feed(exit_frame(3))
        await wait_all_tasks_blocked()
        assert it.take() == [{"type": "exit", "code": 3}]
        assert it.run.is_over
        it.work.finish()

    assert it.work.cancels == 0


async def test_an_upstream_that_lingers_after_the_exit_is_left(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit is the end: what the upstream says afterwards is ignored, and it is left soon."""
    monkeypatch.setattr(run_module, "END_AFTER_EXIT", 0.05)
    async with scene() as it:
        it.work.feed(exit_frame(), stdout("late"))
        await it.work.closed.wait()

    assert it.take() == [{"type": "exit", "code": 0}]
    assert it.work.cancels == 0
    assert not it.work.was_read_to_its_end


async def test_an_upstream_has_time_to_end_its_response_after_the_exit(anyio_backend: str) -> None:
    """The connection is then complete and can be reused."""
    async with scene() as it:
        it.work.feed(exit_frame())
        await wait_all_tasks_blocked()
        it.work.finish()

    assert it.work.was_read_to_its_end


async def test_an_upstream_that_ends_without_exit_is_an_error_and_its_work_is_ended(anyio_backend: str) -> None:
    """The work may still be running."""
    async with scene() as it:
        it.work.feed(stdout("a"), b'event: stdout\ndata: {"line":"cut')
        it.work.finish()

    assert [said.get("code") for said in it.take()] == [None, "upstream_ended"]
    assert it.work.cancels == 1
    assert it.run.cancelled is Cancelled.CONFIRMED


@pytest.mark.parametrize(
    ("dialect", "chunks", "shown"),
    [
        ("typed", [b"event: tick\ndata: 1\n\n"], [{"type": "tick", "data": "1"}]),
        ("typed", [piece("a")], [{"type": "stdout", "line": "a", "partial": True}]),
        ("typed", [stdout("a"), b"event: tick\ndata: cut"], [{"type": "stdout", "line": "a"}]),
        ("typed", [], []),
        ("verbatim", [b'data: {"n":1}\n\n'], [{"n": 1}]),
    ],
)
async def test_a_stream_that_is_no_commands_just_ends(
    dialect: str, chunks: list[bytes | str], shown: list[object], anyio_backend: str
) -> None:
    """The kind of fault: the usual end of a stream is told as an error. It has neither an exit code nor an error."""
    async with scene(FollowedStream(), dialect=dialect) as it:
        it.work.feed(*chunks)
        it.work.finish()

    assert it.take() == shown
    assert it.run.is_over
    outcome = it.run.outcome()
    assert (outcome.exit_code, outcome.error, outcome.message, outcome.cancelled) == (None, None, None, None)
    assert outcome.lines == len(shown)


@pytest.mark.parametrize("end", [exit_frame(3), b"event: error\ndata: lost\n\n"])
async def test_a_stated_end_is_the_last_frame_of_any_stream(end: bytes, anyio_backend: str) -> None:
    """The end of the response adds none."""
    async with scene(FollowedStream()) as it:
        it.work.feed(end)
        it.work.finish()

    assert [said["type"] for said in it.take()] == ["exit" if b"exit" in end else "error"]


async def test_a_stream_that_is_no_commands_hands_on_the_reconnection_time_of_an_unfinished_block(
    anyio_backend: str,
) -> None:
    """In `verbatim`, as at any other end."""
    async with scene(FollowedStream(), dialect="verbatim") as it:
        it.work.feed(b"data: 1\n\nretry: 5\n")
        it.work.finish()

    assert it.viewer.delivery.cursor.take(1000) == b"data: 1\n\nretry: 5\n\n"


async def test_an_upstream_that_breaks_is_an_error_and_its_work_is_ended(anyio_backend: str) -> None:
    """Lines that came before are kept."""
    async with scene() as it:
        it.work.feed(stdout("a"))
        it.work.fail(UpstreamLost("It broke."))

    assert it.take() == [
        {"type": "stdout", "line": "a"},
        {"type": "error", "code": "upstream_lost", "message": "It broke."},
    ]
    assert it.work.cancels == 1


async def test_an_error_of_the_upstreams_ends_the_run_and_its_work(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `error` frame is terminal, yet the command behind it may still be running."""
    monkeypatch.setattr(run_module, "END_AFTER_EXIT", 0.05)
    async with scene() as it:
        it.work.feed('event: error\ndata: {"code":"oom","message":"out of memory"}\n\n')

    assert it.take() == [{"type": "error", "code": "oom", "message": "out of memory"}]
    assert it.work.cancels == 1


async def test_a_break_after_the_exit_is_ignored(anyio_backend: str) -> None:
    """The terminal frame is the last, whatever the connection does."""
    async with scene() as it:
        it.work.feed(exit_frame())
        it.work.fail(UpstreamLost("It broke."))

    assert it.take() == [{"type": "exit", "code": 0}]
    assert it.work.cancels == 0


async def test_a_refusal_is_kept_for_the_response(anyio_backend: str) -> None:
    """Before the first frame it is an HTTP error. The upstream started no work, so there is none to end."""
    refusal = UpstreamRefused("No.", code="not_found", status=404, started_nothing=True)
    async with scene(ScriptedWork(refusal=refusal)) as it:
        pass

    assert it.run.refused is refusal
    assert it.run.answered.is_set
    assert it.run.started_nothing
    assert it.work.cancels == 0


async def test_an_answer_is_no_refusal(anyio_backend: str) -> None:
    """A run that fails after the upstream has said yes had a stream."""
    async with scene() as it:
        await wait_all_tasks_blocked()
        assert it.run.answered.is_set
        it.work.fail(UpstreamLost("It broke."))

    assert it.run.refused is None
    assert not it.run.started_nothing


async def test_a_viewer_that_keeps_up_costs_no_wait(anyio_backend: str) -> None:
    """The upstream is asked to wait only above a mark."""
    async with scene(high_water=10**6) as it:
        for _ in range(20):
            it.work.feed(stdout("x" * 50))
            await wait_all_tasks_blocked()
            it.take()
        assert it.work.waits == 0
        it.run.cancel()


async def test_a_frame_too_large_becomes_a_gap_where_it_stood(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The gap has a number of its own, the log names the size, and the run goes on."""
    large = stdout("x" * 100)
    async with scene(max_frame_size=80) as it:
        it.work.feed(stdout("a") + large + stdout("b"), large[:90])
        await wait_all_tasks_blocked()
        it.work.feed(large[90:] + exit_frame())
        it.work.finish()

    assert it.take() == [
        {"type": "stdout", "line": "a"},
        {"type": "gap", "dropped": 1, "bytes": len(large)},
        {"type": "stdout", "line": "b"},
        {"type": "gap", "dropped": 1, "bytes": len(large)},
        {"type": "exit", "code": 0},
    ]
    assert it.audience.log.next == 6
    assert caplog.messages == [f"run tokent...: discarded a frame of {len(large)} bytes, above max_frame_size"] * 2


# -- unfinished lines


@pytest.mark.parametrize(
    "more",
    [": heartbeat\n\n", piece("..."), 'event: stderr\ndata: {"line":"warning"}\n\n', "event: sta"],
    ids=["comment", "piece", "other stream", "half a frame"],
)
async def test_nothing_that_follows_delays_an_unfinished_line(anyio_backend: str, more: str) -> None:
    """A prompt is shown although its newline never comes, half a second after its first byte."""
    async with scene(by_hand=True) as it:
        it.work.feed(piece("50%"))
        await wait_all_tasks_blocked()
        it.time.advance(0.49)
        it.work.feed(more)
        await wait_all_tasks_blocked()
        assert not [said for said in it.take() if said["type"] == "stdout"]
        it.time.advance(0.01)
        text = "50%..." if more == piece("...") else "50%"
        assert it.take() == [{"type": "stdout", "line": text, "partial": True}]
        it.time.advance(100)
        assert it.take() == []
        it.run.cancel()


@pytest.mark.virtual_time
@pytest.mark.parametrize("interval", [0.2, 0.03, 0.45, 0.7])
@pytest.mark.parametrize("streams", [["stdout"], ["stdout", "stderr"]], ids=["one stream", "two streams"])
async def test_text_is_shown_half_a_second_after_its_first_byte_however_often_more_arrives(
    anyio_backend: str, interval: float, streams: list[str]
) -> None:
    """A progress bar moves while it is printed.

    The kind of fault: each piece, of any stream, puts off what came before it.
    """
    sent: dict[str, list[float]] = {stream: [] for stream in streams}
    late: list[float] = []
    async with scene() as it:
        for number in range(int(8 / interval)):
            stream = streams[number % len(streams)]
            it.work.feed(f'event: {stream}\ndata: {{"data":"."}}\n\n')
            sent[stream].append(anyio.current_time())
            with anyio.move_on_after(interval):
                while True:
                    await it.viewer.news.wait()
                    for said in it.take():
                        late.append(anyio.current_time() - sent[said["type"]][0])
                        del sent[said["type"]][: len(said["line"])]
        it.run.cancel()

    assert len(late) >= 5
    assert max(late) <= 0.5 + 1e-9


@pytest.mark.virtual_time
async def test_a_new_line_has_half_a_second_of_its_own(anyio_backend: str) -> None:
    """The end of a line begins the time of the next; the other stream's goes on."""
    async with scene() as it:
        it.work.feed(piece("a"))
        await anyio.sleep(0.3)
        it.work.feed(piece("b\\nc"), 'event: stderr\ndata: {"data":"e"}\n\n')
        await anyio.sleep(0.1)
        it.work.feed('event: stderr\ndata: {"data":"f\\ng"}\n\n')
        await anyio.sleep(0.39)
        assert [said["line"] for said in it.take()] == ["ab", "ef"]
        await anyio.sleep(0.02)
        assert it.take() == [{"type": "stdout", "line": "c", "partial": True}]
        await anyio.sleep(0.1)
        assert it.take() == [{"type": "stderr", "line": "g", "partial": True}]
        it.run.cancel()


async def test_a_slow_viewer_does_not_cut_lines(anyio_backend: str) -> None:
    """While the run waits for a viewer it reads nothing, so silence does not mean that the line is complete."""
    async with scene(high_water=10, by_hand=True) as it:
        it.work.feed(piece("first\\nsecond ha"), piece("lf\\n"))
        await wait_all_tasks_blocked()
        assert it.work.unread == 1
        it.time.advance(0.5)
        it.time.advance(0.5)
        seen = it.take()
        await wait_all_tasks_blocked()
        seen += it.take()
        it.work.feed(exit_frame())
        await wait_all_tasks_blocked()
        it.time.advance(1.0)

    assert [said["line"] for said in seen] == ["first", "second half"]


async def test_the_event_loops_own_time_shows_an_unfinished_line(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent run wakes up in time by itself."""
    monkeypatch.setattr(run_module, "FLUSH_AFTER", 0.02)
    async with scene() as it:
        it.work.feed(piece("50%"))
        with anyio.fail_after(5):
            while not it.viewer.delivery.cursor.pending:
                await it.viewer.news.wait()
        it.work.feed(exit_frame())
        it.work.finish()


# -- viewers come and go


async def test_the_last_viewers_leaving_ends_a_silent_exec_at_once(anyio_backend: str) -> None:
    """With `grace=0` the leaving itself ends it, before the upstream says anything more."""
    async with scene() as it:
        it.audience.leave(it.viewer)
        await it.work.closed.wait()

    assert it.work.cancels == 1
    assert [said.get("code") for said in it.take()] == ["abandoned"]


async def test_leaving_before_the_upstream_has_answered_ends_the_work_too(anyio_backend: str) -> None:
    """The request may have arrived although there was no answer."""
    async with scene(ScriptedWork(answers=False)) as it:
        it.audience.leave(it.viewer)

    assert it.work.cancels == 1


async def test_the_exec_goes_on_for_the_grace_period(anyio_backend: str) -> None:
    """The last viewer's leaving starts the clock."""
    async with scene(grace=0.2) as it:
        left = anyio.current_time()
        it.audience.leave(it.viewer)
        it.work.feed(stdout("still there"))
        await it.work.closed.wait()

    assert anyio.current_time() - left >= 0.2
    assert [said.get("line") for said in it.take()] == ["still there", None]
    assert it.work.cancels == 1


async def test_a_viewer_that_comes_back_in_time_stops_the_clock_and_has_lost_nothing(anyio_backend: str) -> None:
    """The run waited at the mark of the viewer that left, and keeps what came meanwhile."""
    async with scene(grace=0.2, high_water=100) as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        it.take()
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 20)] * 50)
        await wait_all_tasks_blocked()
        assert it.work.unread > 40

        it.viewer = it.view(Block(10**6), 2)
        with anyio.move_on_after(0.4):
            await it.work.closed.wait()
        assert not it.work.closed.is_set()
        it.work.feed(exit_frame())
        it.work.finish()
        await it.work.closed.wait()

    assert len(it.take()) == 51
    assert it.work.cancels == 0


async def test_without_a_grace_limit_the_exec_goes_on_to_its_own_end(anyio_backend: str) -> None:
    """`None` switches the limit off."""
    async with scene(grace=None) as it:
        it.audience.leave(it.viewer)
        await wait_all_tasks_blocked()
        assert not it.work.closed.is_set()
        it.work.feed(exit_frame())
        it.work.finish()

    assert it.work.cancels == 0


# -- verbatim


async def test_verbatim_ends_as_its_upstream_ends(anyio_backend: str) -> None:
    """The upstream's own exit is the end; the bridge adds no frame, and there is no work to end."""
    async with scene(dialect="verbatim") as it:
        it.work.feed(b'id: 1\nevent: exit\ndata: {"exit_code":0}\r\n\r\n')
        it.work.finish()

    assert it.viewer.delivery.cursor.take(100) == b'id: 1\nevent: exit\ndata: {"exit_code":0}\n\n'
    assert it.viewer.delivery.cursor.finished
    assert it.work.cancels == 0


async def test_verbatim_ends_the_work_of_a_stream_that_ends_without_an_exit(anyio_backend: str) -> None:
    """The command may still be running, whatever the dialect."""
    async with scene(dialect="verbatim") as it:
        it.work.feed(stdout("a"))
        it.work.finish()

    assert it.viewer.delivery.cursor.take(100) == stdout("a")
    assert it.viewer.delivery.cursor.finished
    assert it.work.cancels == 1


async def test_verbatim_ends_the_work_of_a_stream_that_breaks(anyio_backend: str) -> None:
    """A broken connection tells nothing about the command."""
    async with scene(dialect="verbatim") as it:
        it.work.fail(UpstreamLost("It broke."))

    assert it.viewer.delivery.cursor.finished
    assert it.work.cancels == 1
