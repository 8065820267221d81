"""Going on with a stream that was opened again: where it was, what it repeats, and what is said of the rest."""

from __future__ import annotations

import itertools
import json
import random
from math import inf
from typing import Any

import pytest

from sse_bridge.wire.continuity import MAX_WITHHELD, Continuity
from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.events import parse
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.shapes import EVENT_STREAM, EXEC, Shape


def line(text: str) -> bytes:
    return b'event: stdout\ndata: {"line":"%b"}\n\n' % text.encode()


def piece(text: str) -> bytes:
    return b"event: stdout\ndata: " + json.dumps({"data": text}).encode() + b"\n\n"


EXIT = b'event: exit\ndata: {"exit_code":3}\n\n'


def repeating() -> Continuity:
    return Continuity(keeps_ids=False, keeps_frames=True)


def pipeline(continuity: Continuity | None = None, *, dialect: Dialect = TYPED, shape: Shape = EXEC) -> Pipeline:
    return Pipeline(dialect, shape, FrameIds(None), 64 * 1024, continuity or repeating())


def carrying(frames: bytes) -> Pipeline:
    """A second stream broke off before it was known whether these frames of it are repeats. The third one begins."""
    one = pipeline()
    one.feed(line("seen"))
    one.go_on(exactly=False)
    assert one.feed(frames) == b""
    one.interrupt()
    one.go_on(exactly=False)
    return one


def objects(frames: bytes) -> list[Any]:
    return [json.loads(event.data) for event in parse(frames) if event.data is not None]


def texts(frames: bytes) -> list[Any]:
    """The lines, and the type of everything else."""
    return [said.get("line", said["type"]) for said in objects(frames)]


# -- repeats


@pytest.mark.parametrize(
    ("size", "seen"), [*itertools.product([1, 7, 10_000], [1, 3, 500]), (100, 20_000), (10_000, 20_000)]
)
@pytest.mark.parametrize("forgotten", [0, 2])
def test_what_the_new_stream_repeats_is_left_out(size: int, seen: int, forgotten: int) -> None:
    """Wherever it is cut, whether the upstream has kept all of it or only the end, and whatever comments there are."""
    first = pipeline()
    frames = [line(f"line {number}") for number in range(seen + 5)]
    shown = first.feed(b": heartbeat\n\n".join(frames[:seen]) + b'event: stdout\ndata: {"li')
    assert texts(first.go_on(exactly=False)) == ["gap"]

    again = b"\xef\xbb\xbf" + b": other\n: comment\n\n".join(frames[min(forgotten, seen - 1) :]) + EXIT
    later = b"".join(first.feed(again[at : at + size]) for at in range(0, len(again), size))

    assert texts(shown + later) == [f"line {number}" for number in range(seen + 5)] + ["exit"]
    assert first.finished


def test_the_first_repeat_counts() -> None:
    """An output that repeats itself must lose no line. It may show some of them twice."""
    one = pipeline()
    one.feed(line("tick"))
    one.go_on(exactly=False)

    assert texts(one.feed(line("tick") * 3)) == ["tick", "tick"]


def test_half_a_frame_is_no_repeat() -> None:
    """The last frame may look like the end of another."""
    one = pipeline(shape=EVENT_STREAM)
    one.feed(b"data: 1\n\n")
    one.go_on(exactly=False)

    assert one.feed(b"event: x\ndata: 1\n\n") == b""
    assert len(list(parse(one.release()))) == 1


def test_frames_that_may_be_repeats_are_shown_when_their_time_is_up() -> None:
    """The upstream goes on without a repeat. They are due as an unfinished line is."""
    one = pipeline()
    one.feed(line("seen"))
    one.go_on(exactly=False)

    assert one.feed(line("new") + piece("par")) == b""
    assert one.unfinished > 0
    assert one.due(7.0) == 7.0
    assert one.due(9.0) == 7.0
    assert one.flush(6.9) == b""
    assert texts(one.flush(7.0)) == ["new"]
    assert one.due(8.0) == 8.0
    assert texts(one.flush(8.0)) == ["par"]
    assert one.unfinished == 0
    assert texts(one.feed(line("seen"))) == ["seen"]


def test_frames_that_may_be_repeats_are_bounded() -> None:
    """Above the bound all of them are shown."""
    one = pipeline()
    one.feed(line("seen"))
    one.go_on(exactly=False)
    chunk = line("x" * 1000) * 60
    shown = b""
    fed = 0
    while not shown:
        shown = one.feed(chunk)
        fed += len(chunk)

    assert MAX_WITHHELD < fed <= MAX_WITHHELD + len(chunk)
    assert len(objects(shown)) == fed // len(line("x" * 1000))


@pytest.mark.parametrize("ends", ["release", "fail", "finish"])
def test_an_end_that_may_be_a_repeat_is_not_lost(ends: str) -> None:
    """The stream ends before a repeat was found."""
    one = pipeline()
    one.feed(line("seen"))
    one.go_on(exactly=False)
    assert one.feed(line("new") + EXIT) == b""
    assert not one.finished
    said = {"release": one.release, "fail": lambda: one.fail("c", "m"), "finish": one.finish}[ends]()

    assert texts(said) == ["new", "exit"]
    assert one.finished
    assert one.exited


def test_a_frame_that_is_too_large_ends_the_search() -> None:
    """It stands nowhere among the frames that a repeat is recognised by."""
    one = pipeline()
    one.feed(line("seen"))
    one.go_on(exactly=False)
    assert one.feed(line("a")) == b""

    assert texts(one.feed(line("b") + line("x" * 70_000) + line("c"))) == ["a", "b", "gap", "c"]
    one.go_on(exactly=False)
    assert texts(one.feed(line("c") + line("d"))) == ["d"]
    one.feed(line("x" * 70_000))
    one.go_on(exactly=False)
    assert texts(one.feed(line("d"))) == ["d"]


def test_a_frame_that_is_too_large_is_news() -> None:
    """A feed that brings only this before it ends its stream is to be asked for more."""
    continuity = Continuity(keeps_ids=True, keeps_frames=False)
    one = pipeline(continuity, dialect=VERBATIM, shape=EVENT_STREAM)
    for frame, is_news in ((b"data: x\n\n", True), (b"retry: 1\n: %b\n\n", False), (b"id: 1\ndata: %b\n\n", True)):
        one.go_on(exactly=True)
        one.feed(frame.replace(b"%b", b"x" * 70_000))
        assert continuity.has_news is is_news


def test_a_stream_that_brought_nothing_has_nothing_to_repeat() -> None:
    """What comes next is shown at once."""
    one = pipeline()
    assert texts(one.go_on(exactly=False)) == ["gap"]
    assert texts(one.feed(line("a"))) == ["a"]


def test_random_cuts_lose_no_line() -> None:
    """Each stream is cut anywhere, and the next one repeats a random part of what came before. All lines are there, in
    order, and each once."""
    rng = random.Random(20261127)
    for _ in range(50):
        one, frames, sent, shown = pipeline(), [line(f"{n}") for n in range(200)], 0, b""
        while sent < len(frames):
            begin = rng.randint(0, max(0, sent - 1))
            end = rng.randint(sent, len(frames)) if sent < 150 else len(frames)
            half = frames[end][: rng.randint(0, 20)] if end < len(frames) else b""
            shown += one.feed(b"".join(frames[begin:end]) + half)
            sent = max(sent, end)
            one.interrupt()
            one.go_on(exactly=False)
        assert [text for text in texts(shown) if text != "gap"] == [f"{n}" for n in range(200)]


# -- what is said of the rest


def test_a_gap_of_unknown_size_stands_behind_what_was_unfinished() -> None:
    """The new stream does not go on with the beginning of a line. Under `typed` and `named` the gap counts nothing."""
    one = pipeline()
    one.feed(piece("half a l"))
    said = one.go_on(exactly=False)

    assert objects(said) == [
        {"type": "stdout", "line": "half a l", "partial": True},
        {"type": "gap", "dropped": None},
    ]
    one.feed(piece("ine\n"))
    assert texts(one.release()) == ["ine"]


def test_the_gap_in_other_dialects() -> None:
    """`verbatim` has no frames of its own, so it is a comment."""
    named = pipeline(dialect=NAMED)
    assert named.go_on(exactly=False) == b'event: gap\ndata: {"dropped":null}\n\n'
    assert pipeline(dialect=VERBATIM).go_on(exactly=False) == b": gap dropped=unknown\n\n"


def test_one_gap_covers_several_cuts() -> None:
    """Streams that bring nothing add no gap."""
    one = pipeline()
    one.feed(line("a"))
    assert one.go_on(exactly=False)
    assert one.go_on(exactly=False) == b""
    one.feed(line("b"))
    one.release()
    assert one.go_on(exactly=False)


def test_a_gap_parts_unfinished_lines_although_one_stands_there() -> None:
    """Two beginnings of lines, of two streams, are not one line."""
    one = pipeline(Continuity(keeps_ids=False, keeps_frames=False))
    one.go_on(exactly=False)
    assert one.feed(piece("half a l")) == b""

    assert texts(one.go_on(exactly=False)) == ["half a l", "gap"]
    assert texts(one.feed(piece("another\n"))) == ["another"]


def test_behind_the_end_there_is_no_gap() -> None:
    """The terminal frame is the last one."""
    one = pipeline()
    one.feed(EXIT)
    assert one.go_on(exactly=False) == b""


def test_a_stream_that_goes_on_exactly_leaves_no_mark() -> None:
    """Only the half frame is dropped, which the upstream sends again; an unfinished line goes on."""
    one = pipeline(Continuity(keeps_ids=True, keeps_frames=False), dialect=TYPED)
    one.feed(piece("half a l") + b'data: {"li')
    assert one.go_on(exactly=True) == b""
    assert objects(one.feed(piece("ine\n"))) == [{"type": "stdout", "line": "half a line"}]


@pytest.mark.parametrize("half", [b"data: x", b"\xef\xbb", b"data: x\r", b"data: x\n", b"data: " + b"x" * 70_000])
def test_no_half_frame_reaches_into_the_next_stream(half: bytes) -> None:
    """Neither its bytes nor what they said of line ends, of the byte order mark or of the size limit."""
    one = pipeline(Continuity(keeps_ids=True, keeps_frames=False), dialect=VERBATIM, shape=EVENT_STREAM)
    one.feed(half)
    one.go_on(exactly=True)

    assert one.feed(b"\xef\xbb\xbf\ndata: 1\n\n") == b"data: 1\n\n"


# -- where it was


@pytest.mark.parametrize(
    ("frames", "last"),
    [
        ([b"data: 1\n\n"], None),
        ([b"id: 1\ndata: 1\n\n"], "1"),
        ([b"id: 1\ndata: 1\n\nid:2\ndata: 1\n\n", b"data: 3\n\n"], "2"),
        (["data: 1\nid: ü\n\n".encode()], "ü"),
        ([b"id: 7\n\n"], "7"),
        ([b"id: 1\n\nid\n\n"], ""),
        ([b"id: 1\n\nid: a\0b\n\n"], "1"),
        ([b"id: 1\n\nidle: 4\n\ndata: x\nident\n\n"], "1"),
        ([b"id: 1\ndata: 1\n\nid: 2\ndata: half"], "1"),
        ([b"data: 0\n\nid: 5\ndata: " + b"x" * 70_000 + b"\n\n"], "5"),
    ],
)
def test_the_last_event_id_is_that_of_a_browser(frames: list[bytes], last: str | None) -> None:
    """That of the last whole frame which has one (WHATWG HTML 9.2.6), one that was too large included."""
    continuity = Continuity(keeps_ids=True, keeps_frames=False)
    one = pipeline(continuity, dialect=VERBATIM, shape=EVENT_STREAM)
    for chunk in frames:
        one.feed(chunk)

    assert continuity.last_event_id == last


@pytest.mark.parametrize(
    ("frame", "seconds"),
    [
        (b"data: 1\n\n", None),
        (b"retry: 1500\n\n", 1.5),
        (b"retry: 1\n\ndata: retry: 9\n\nretry:20\ndata: 1\n\n", 0.02),
        (b"retry: soon\n\n", None),
        (b"retry: 99999999999\n\n", None),
        (b"retry: 20\ndata: " + b"x" * 70_000 + b"\n\n", 0.02),
        (b"retry: 20\n\nretry: 1500\ndata: half", 1.5),
        (b"retry: 20\n\nretry: 1500", 0.02),
        (b"retry: 20\n\nretry: 99999999999\n", 0.02),
    ],
)
@pytest.mark.parametrize("ends", ["release", "interrupt"])
@pytest.mark.parametrize("keeps_ids", [True, False])
def test_the_time_between_two_connections_is_the_upstreams(
    frame: bytes, seconds: float | None, keeps_ids: bool, ends: str
) -> None:
    """In milliseconds on the wire. An absurd one is ignored."""
    continuity = Continuity(keeps_ids=keeps_ids, keeps_frames=False)
    one = pipeline(continuity, dialect=VERBATIM, shape=EVENT_STREAM)
    one.feed(frame)
    getattr(one, ends)()

    assert continuity.retry == seconds


@pytest.mark.parametrize(
    ("frames", "is_done"),
    [
        (b"data: 1\n\n", False),
        (b"data: 1\n\ndata: [DONE]\n\n", True),
        (b"data:[DONE]\n\n\n: bye\n\n", True),
        (b"data: [DONE]\n\ndata: more\n\n", False),
        (b"data: [DONE] not\n\n", False),
        (b"data: 1\n\ndata: [DONE]\nretry: 15000\n\nretry: 9\n\n", True),
        (b"data: [DONE] \nid: 7\n\n", True),
        (b"data: [DONE]\nid: 7\n\ndata: more\nid: 8\n\n", False),
        (b"data: 1\ndata: [DONE]\n\n", False),
    ],
)
def test_a_stream_that_says_so_is_done(frames: bytes, is_done: bool) -> None:
    """The shape has the words for it. Comments may follow, and other fields, which some servers write behind it."""
    continuity = Continuity(keeps_ids=True, keeps_frames=False, end_marks=("[DONE]",))
    one = pipeline(continuity, dialect=VERBATIM, shape=EVENT_STREAM)
    one.feed(frames)
    assert continuity.is_done is is_done

    one.feed(b"id: 9\n\n: bye\n\n")
    assert continuity.is_done is is_done
    one.feed(b"data: 9\n\n")
    assert not continuity.is_done


def test_a_pipeline_without_continuity_starts_over() -> None:
    """Its stream is never opened again."""
    one = Pipeline(TYPED, EXEC, FrameIds(None), None)
    one.feed(b"data: half")
    one.interrupt()
    assert one.go_on(exactly=False) == b""
    assert one.release() == b""


# -- a stream that breaks off before it is known what it repeats


def test_a_repeat_that_breaks_off_is_no_news() -> None:
    """The next stream begins with it again."""
    one = pipeline()
    seen = b"".join(line(f"{n}") for n in range(5))
    one.feed(seen)
    for cut in (30, 70, 50, 150):
        one.go_on(exactly=False)
        assert one.feed(seen[:cut]) == b""
        assert one.due(5.0) == (5.0 if cut > 40 else inf)
        one.interrupt()
        assert one.due(5.0) == inf
        assert one.flush(9.0) == b""
    one.go_on(exactly=False)

    assert texts(one.feed(seen + line("5"))) == ["5"]


@pytest.mark.parametrize("size", [1, 10_000])
def test_what_the_next_stream_does_not_begin_with_was_new(size: int) -> None:
    """It is shown before anything of that stream, of which repeats are left out again. What lay between them is not
    known.
    """
    one = carrying(line("a") + line("b"))
    later = line("b") + line("c")
    shown = b"".join(one.feed(later[at : at + size]) for at in range(0, len(later), size))

    assert texts(shown) == ["a", "b", "gap", "c"]


@pytest.mark.parametrize("what", ["differs", "is too large", "is late"])
def test_pieces_of_two_streams_are_not_joined_to_a_line(what: str) -> None:
    """What one stream began, before it was known whether it was a repeat, the next one does not go on with."""
    one = carrying(piece("half a l"))
    shown = b""
    if what == "is late":
        one.due(5.0)
        shown = one.flush(5.0)
    shown += one.feed(piece("ong one\n") + (line("x" * 70_000) if what == "is too large" else b""))

    assert texts(shown + one.release()) == ["half a l", "gap", "ong one", *(["gap"] if what == "is too large" else [])]
    assert one.go_on(exactly=False)


def test_what_follows_such_news_may_be_a_repeat_itself() -> None:
    """The search begins again, and ends as any other."""
    one = carrying(line("a"))

    assert texts(one.feed(line("x"))) == ["a", "gap"]
    assert texts(one.release()) == ["x"]


def test_what_was_carried_is_not_lost_with_the_last_stream() -> None:
    """The run fails before the next stream has brought as much."""
    one = carrying(line("a") + line("b"))
    one.feed(line("a"))
    one.interrupt()

    assert texts(one.fail("c", "m")) == ["a", "b", "error"]


def test_a_stream_without_continuity_is_interrupted_without_a_trace() -> None:
    """It is never opened again, and its run fails."""
    one = Pipeline(TYPED, EXEC, FrameIds(None), None)
    one.feed(line("a") + b"data: half")
    one.interrupt()

    assert texts(one.fail("c", "m")) == ["error"]
