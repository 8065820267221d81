"""`Pipeline`: chunks in, numbered frames out, however they are cut."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire import events
from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.frames import FrameSplitter
from sse_bridge.wire.ids import read_place
from tests.support.frames import frame, objects, pipeline, typed, upstreams

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


@pytest.mark.parametrize(
    ("chunk", "is_amid_frame"),
    [
        (b"", False),
        (b"data: 1\n\n", False),
        (b": one\n\n", False),
        (b"data: 1\n\nda", True),
        (b"data: 1\n", True),
        (b"data: " + b"x" * 200, True),
        (b"data: " + b"x" * 200 + b"\n", True),
        (b"data: " + b"x" * 200 + b"\n\n", False),
    ],
)
def test_it_knows_whether_a_frame_has_begun(chunk: bytes, is_amid_frame: bool) -> None:
    """Above the limit, too."""
    made = pipeline(TYPED, RUN, limit=100)
    made.feed(chunk)
    assert made.is_amid_frame is is_amid_frame


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


# -- endings that are too large


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


PAD = "x" * 1_100_000
MEMBERS = "".join(f'"key{number}":"{PAD[:900]}",' for number in range(1_300))
BIG_EXITS = [
    (f'event: exit\ndata: {{"exit_code":3,"pad":"{PAD}"}}\n\n', {"type": "exit", "code": 3}),
    (f'event: exit\ndata: {{"pad":"{PAD}","exit_code":3}}\n\n', {"type": "exit", "code": 3}),
    (f'data: {{"a":["{PAD}"],"exitCode":"3","b":{{"exit_code":7,"pad":"{PAD}"}}}}\n\n', {"type": "exit", "code": 3}),
    (f'event: done\r\ndata: {{"pad":"{PAD}",\r\ndata: "exit_code":3}}\r\n\r\n', {"type": "exit", "code": 3}),
    (f'event: exit\ndata: {{"pad":"\\"exit_code\\":7 {PAD}","exit_code":3.0}}\n\n', {"type": "exit", "code": 3}),
    (f'event: exit\ndata: {{"pad":{"9" * 1_100_000},"exit_code":null}}\n\n', {"type": "exit", "code": None}),
    (f'data: {{"type":"exit","pad":"{PAD}","code":3}}\n\n', {"type": "exit", "code": 3}),
    (f'data: {{"pad":"{PAD}"}}\nevent: timeout\n\n', {"type": "exit", "code": -1, "timed_out": True}),
    (f'event: exit\ndata: {{"exit_code":-1,"timed_out":true,"x":{"[" * 600_000}{"]" * 600_000}}}\n\n',
     {"type": "exit", "code": -1, "timed_out": True}),
    (f'event: exit\ndata: {{"error":{{"details":"{PAD}","message":"m","code":"LOST"}},"exit_code":-2}}\n\n',
     {"type": "error", "code": "LOST", "message": "m"}),
    (f'data: {{"error":{{"code":"LOST","message":"{PAD}"}}}}\n\n',
     {"type": "error", "code": "LOST", "message": "x" * 1000 + "…"}),
    (f'event: error\ndata: {PAD}\n\n', {"type": "error", "code": "upstream_error", "message": "x" * 1000}),
    (f'event: error\ndata: {{"code":"A","message":"m","trace":["{PAD}"]}}\n\n',
     {"type": "error", "code": "A", "message": "m"}),
    (f'data: {{"errors":[{{"message":"m","code":"X","trace":"{PAD}"}}]}}\n\n',
     {"type": "error", "code": "X", "message": "m"}),
    (f'event: exit\ndata: {{{MEMBERS}"exit_code":3,"error":{{"code":"A","message":"m"}}}}\n\n',
     {"type": "error", "code": "A", "message": "m"}),
    (f'data: {{{MEMBERS}"error":{{"code":"A","message":"m"}},"exit_code":0}}\n\n',
     {"type": "error", "code": "A", "message": "m"}),
]  # fmt: skip


@pytest.mark.parametrize("size", [10**7, 65_537, 997])
@pytest.mark.parametrize(("big", "ending"), BIG_EXITS, ids=range(len(BIG_EXITS)))
def test_an_ending_survives_any_size(big: str, ending: dict[str, object], size: int) -> None:
    """What a terminal frame says is kept although the frame is dropped: wherever in it the fact stands.

    Nothing else of it is, and the gap counts it. It ends the run as any other does.
    """
    limit = 1024 * 1024
    small = frame("stdout", {"line": "a"})
    for dialect in (TYPED, NAMED):
        made = pipeline(dialect, RUN, limit)
        out = b"".join(map(made.feed, cut((small + big + small).encode(), size)))

        if dialect is TYPED:
            gap = {"type": "gap", "dropped": 1, "bytes": len(big.replace("\r\n", "\n"))}
            assert objects(out) == [{"type": "stdout", "line": "a"}, gap, ending]
        assert made.finished
        assert made.exited is (ending["type"] == "exit")


@pytest.mark.parametrize("size", [10**7, 997])
@pytest.mark.parametrize(("big", "ending"), BIG_EXITS, ids=range(len(BIG_EXITS)))
def test_verbatim_keeps_an_ending_of_any_size(big: str, ending: dict[str, object], size: int) -> None:
    """A comment counts the frame, and an event of the same name says how the run ended."""
    made = pipeline(VERBATIM, None, 1024 * 1024)
    out = b"".join(map(made.feed, cut(big.encode(), size)))

    (event,) = events.parse(out)
    assert out.startswith(b": gap dropped=1 bytes=%d\n" % len(big.replace("\r\n", "\n")))
    (said,) = typed(out)
    assert {key: said[key] for key in ending} == ending
    assert event.type == next(events.parse(FrameSplitter(None).feed(big.encode()))).type
    made.close()
    assert made.exited is (ending["type"] == "exit")


def test_fifty_megabytes_take_bounded_memory() -> None:
    """An exit frame of any size, in odd chunks."""
    made = pipeline(TYPED, RUN, 1024 * 1024)
    chunks = [b'event: exit\ndata: {"a":{"b":"', *[b"x" * 99_991] * 500, b'"},"exit_', b'code":', b"4", b"}\n", b"\n"]
    made.feed(b": c\n\n")
    tracemalloc.start()
    out = b"".join(map(made.feed, chunks))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert objects(out)[-1] == {"type": "exit", "code": 4}
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize(
    "big",
    [
        f'event: stdout\ndata: {{"line":"{PAD}","exit_code":3}}\n\n',
        f'event: stdout\ndata: {{"pad":"{PAD}","exit_code":3}}\n\n',
        f'data: {{"line":"{PAD}"}}\n\n',
        f'data: {{"result":{{"exit_code":3}},"pad":"{PAD}"}}\n\n',
        f'data: {{"exit_code":3,"pad":"{PAD}"\n\n',
        f'data: {{"code":3,"pad":"{PAD}"}}\n\n',
        f'data: {{"code":500,"message":"m","pad":"{PAD}"}}\n\n',
        f'event: started\ndata: {{"exit_code":null,"pad":"{PAD}"}}\n\n',
        f': {{"exit_code":3,"pad":"{PAD}"}}\n\n',
    ],
    ids=range(9),
)
def test_a_large_frame_that_tells_of_no_ending_ends_nothing(big: str) -> None:
    """Output is counted, whatever it holds."""
    made = pipeline(TYPED, RUN, 1024 * 1024)
    out = made.feed(big.encode() + frame("stdout", {"line": "a"}).encode())

    assert objects(out) == [{"type": "gap", "dropped": 1, "bytes": len(big)}, {"type": "stdout", "line": "a"}]
    assert not made.finished


def test_a_gap_stands_between_the_parts_of_a_line_that_it_tore() -> None:
    """Text in front of it and text behind it are never put together."""
    made = pipeline(TYPED, limit=100)
    frames = [frame("stdout", {"data": "be"}).encode(), LARGE, frame("stdout", {"data": "hind\n"}).encode()]

    assert objects(b"".join(map(made.feed, frames))) == [
        {"type": "stdout", "line": "be", "partial": True},
        {"type": "gap", "dropped": 1, "bytes": len(LARGE)},
        {"type": "stdout", "line": "hind"},
    ]


# -- what a browser would take from the upstream itself


class Browser:
    """The state of an `EventSource` after a stream has ended (WHATWG HTML 9.2.6)."""

    def __init__(self, stream: bytes) -> None:
        lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
        self.dispatched: list[tuple[str, str, str]] = []
        self.last_id, self.retry = "", None
        block: list[bytes] = []
        for line in lines:
            if line:
                block.append(line)
                told = events.parse_frame(line).retry
                self.retry = self.retry if told is None else told  # counts at once
                continue
            event = events.parse_frame(b"\n".join(block))
            block = []
            self.last_id = self.last_id if event.id is None else event.id  # counts with the blank line
            if event.data is not None:
                self.dispatched.append((event.type, event.data, self.last_id))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Browser) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


def relayed(stream: bytes, size: int = 10**6, limit: int | None = None) -> bytes:
    made = pipeline(VERBATIM, None, limit)
    return b"".join(map(made.feed, cut(stream, size))) + made.fail("upstream_ended", "It ended.")


UNFINISHED = [
    (b"retry: 2\n", b"retry: 2\n\n"),
    (b"retry:2\r", b"retry: 2\n\n"),
    (b"\xef\xbb\xbfretry: 2\r\n", b"retry: 2\n\n"),
    (b"retry: 2", b""),
    (b"retry: x\n", b""),
    (b"retry\n", b""),
    (b"retry: 2\nretry: 3\nretry: 4x\n", b"retry: 3\n\n"),
    (b"data: x\n\nretry: 007\ndata: y\n", b"data: x\n\nretry: 7\n\n"),
    (b"retry: 1\n\nretry: 2\n", b"retry: 1\n\nretry: 2\n\n"),
    (b"id: 1\ndata: x\n\nid: 2\n", b"id: 1\ndata: x\n\n"),
    (b"id: 2\nretry: 5\n", b"retry: 5\n\n"),
    (b"event: x\n", b""),
    (b": retry: 2\n", b""),
    (b"data: retry: 2\n", b""),
    (b"retry: 2\nda", b"retry: 2\n\n"),
]


@pytest.mark.parametrize(("stream", "out"), UNFINISHED)
def test_verbatim_hands_on_the_reconnection_time_of_an_unfinished_block(stream: bytes, out: bytes) -> None:
    """It counts as soon as its line is read (WPT `status-reconnect`). An id in such a block never counts."""
    for size in (1, 3, 100):
        assert relayed(stream, size) == out
        assert Browser(relayed(stream, size)) == Browser(stream)
    assert pipeline(TYPED).fail("a", "b").count(b"retry") == 0


fields = st.sampled_from(
    [b"data: x", b"data", b"event: a", b"id: 1", b"id", b"id: 2", b"retry: 2", b"retry: 30", b"retry: x", b": c"]
    + [b""] * 3
)
browser_streams = st.lists(st.tuples(fields, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=12).map(
    lambda lines: b"".join(map(b"".join, lines))
)


@given(browser_streams, st.sampled_from([b"", b"retry: 9", b"da"]), st.integers(1, 9))
def test_a_browser_ends_up_as_if_it_had_asked_the_upstream(stream: bytes, rest: bytes, size: int) -> None:
    """The same events, the same last id, the same reconnection time, also after a stream that was cut."""
    assert Browser(relayed(stream + rest, size)) == Browser(stream + rest)


@given(browser_streams, st.integers(1, 9), st.integers(8, 20))
def test_a_frame_that_was_too_large_leaves_its_id_and_its_time(stream: bytes, size: int, limit: int) -> None:
    """A browser that comes back asks the upstream for what follows it."""
    whole, relay = Browser(stream), Browser(relayed(stream, size, limit))

    assert (relay.last_id, relay.retry) == (whole.last_id, whole.retry)
    assert all(event in whole.dispatched for event in relay.dispatched)


def test_with_ids_of_ours_a_reconnection_time_has_one_too() -> None:
    """It is a frame like any other. A discarded frame loses the upstream's id."""
    made = pipeline(VERBATIM, "r", 20)

    assert made.feed(b"id: 7\ndata: too large for this\n\n") == b"id: r.1\n: gap dropped=1 bytes=32\n\n"
    made.feed(b"retry: 2\n")
    assert made.fail("a", "b") == b"id: r.2\nretry: 2\n\n"
