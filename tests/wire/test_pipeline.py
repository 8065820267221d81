"""`Pipeline`: chunks in, numbered frames out, however they are cut."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire import events
from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.ids import read_place
from tests.support.frames import frame, objects, pipeline, upstreams

RUN = "Zk3vQ0x9bTnWf2Rq"
LARGE = frame("stdout", {"line": "x" * 200}).encode()


@given(upstreams, st.lists(st.integers(0, 400), max_size=8), st.sampled_from([TYPED, NAMED, VERBATIM]), st.booleans())
def test_cuts_never_change_what_comes_out(
    upstream: list[bytes], cuts: list[int], dialect: Dialect, is_limited: bool
) -> None:
    """Frames, gaps, numbers and state depend on the bytes alone, and numbers are consecutive."""
    stream, limit = b"".join(upstream), 60 if is_limited else None
    whole, cut = pipeline(dialect, RUN, limit), pipeline(dialect, RUN, limit)
    bounds = [0, *sorted(min(at, len(stream)) for at in cuts), len(stream)]

    expected = whole.feed(stream)
    out = b"".join(cut.feed(stream[start:stop]) for start, stop in itertools.pairwise(bounds))

    assert out + cut.flush() + cut.fail("a", "b") == expected + whole.flush() + whole.fail("a", "b")
    for made in (whole, cut):
        assert (made.next, made.finished, made.exited) == (cut.next, cut.finished, cut.exited)
        assert (made.discarded_frames, made.discarded_bytes) == (cut.discarded_frames, cut.discarded_bytes)
    numbers = [place.number for event in events.parse(expected) if (place := read_place(event.id or "")) is not None]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert expected.count(b"\n\n") == len(numbers)


def test_a_gap_stands_where_a_discarded_frame_would_have_stood() -> None:
    """With a number of its own, and the caller learns of each discard once."""
    made = pipeline(TYPED, RUN, limit=100)
    a, b = (frame("stdout", {"line": line}).encode() for line in "ab")

    out = made.feed(a + LARGE + b + LARGE)
    assert objects(out) == [
        {"type": "stdout", "line": "a"},
        {"type": "gap", "dropped": 1, "bytes": len(LARGE)},
        {"type": "stdout", "line": "b"},
        {"type": "gap", "dropped": 1, "bytes": len(LARGE)},
    ]
    assert [event.id for event in events.parse(out)] == [f"{RUN}.{number}" for number in range(1, 5)]
    assert [discard.size for discard in made.discards] == [len(LARGE)] * 2
    assert (made.discarded_frames, made.discarded_bytes, made.next) == (2, 2 * len(LARGE), 5)

    assert objects(made.feed(a)) == [{"type": "stdout", "line": "a"}]
    assert not made.discards
    assert made.feed(b"") == b""
    assert made.discarded_frames == 2


@pytest.mark.parametrize("then", [b"", b"data: x"])
def test_the_caller_forgets_discards_even_if_no_frame_follows(then: bytes) -> None:
    """They are those of the last chunk."""
    made = pipeline(limit=100)
    made.feed(LARGE)
    assert len(made.discards) == 1

    assert made.feed(then) == b""
    assert not made.discards


def test_a_frame_discarded_after_the_end_makes_no_gap() -> None:
    """The terminal frame is the last."""
    made = pipeline(limit=100)

    out = made.feed(frame("exit", "0").encode() + LARGE + frame("stdout", {"line": "late"}).encode())

    assert objects(out) == [{"type": "exit", "code": 0}]
    assert made.discarded_frames == 1


def test_unfinished_lines_are_counted_flushed_and_numbered() -> None:
    """The caller knows after each call how much is held back."""
    made = pipeline(TYPED, RUN)
    assert made.feed(frame("stdout", {"data": "50"}).encode()) == b""
    assert made.unfinished == 2
    assert made.feed(frame("stderr", {"data": "%"}).encode()) == b""
    assert (made.unfinished, made.next) == (3, 1)

    out = made.flush()
    assert [event.id for event in events.parse(out)] == [f"{RUN}.1", f"{RUN}.2"]
    assert (made.unfinished, made.next) == (0, 3)
    made.feed(frame("stdout", {"data": "cut"}).encode())
    assert objects(made.fail("lost", "It broke.")) == [
        {"type": "stdout", "line": "cut", "partial": True},
        {"type": "error", "code": "lost", "message": "It broke."},
    ]
    assert (made.unfinished, made.next, made.finished) == (0, 5, True)


def test_closing_keeps_the_counts_and_the_ending() -> None:
    """The beginnings of lines and frames go; statistics and the ending stay."""
    made = pipeline(limit=100)
    made.feed(LARGE + frame("stdout", {"data": "half"}).encode() + b"data: half a frame")
    made.close()

    assert (made.unfinished, made.finished, made.exited) == (0, False, False)
    assert (made.next, made.discarded_frames, made.discarded_bytes) == (2, 1, len(LARGE))
    assert made.flush() == b""
    ended = pipeline()
    ended.feed(frame("exit", "0").encode())
    ended.close()
    assert (ended.finished, ended.exited) == (True, True)


@pytest.mark.parametrize(
    ("dialect", "chunk"),
    [
        (TYPED, b"data: " + b"x" * 10**6),
        (TYPED, b'event: stdout\ndata: {"data":"x"}\n\ndata: ' + b"x" * 10**6),
        (VERBATIM, b"data: " + b"x" * 10**6 + b"\n\n"),
    ],
)
def test_closing_frees_what_is_not_whole(dialect: Dialect, chunk: bytes) -> None:
    """A run that is over stays in the store for a while, and all that it holds by then is its log."""
    made = pipeline(dialect)
    tracemalloc.start()
    made.feed(bytes(bytearray(chunk)))
    before = tracemalloc.get_traced_memory()[0]
    made.close()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert before > 10**6 > 10**5 > after
