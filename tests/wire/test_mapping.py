"""`mapping`: the fast path says what the slow path says, lines are whole, and endings are seen."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sse_bridge.wire import events, frames
from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.frames import FrameSplitter, canonical
from sse_bridge.wire.ids import FrameIds, Parts
from sse_bridge.wire.mapping import MAX_UNFINISHED
from sse_bridge.wire.shapes import EXEC
from tests.support.frames import frame, loose_frames, objects, pipeline, plain_frames, typed, upstreams

# -- fast and slow agree ------------------------------------------------------------------------------------------


def same(dialect: Dialect, upstream: list[bytes], *, whole: bool) -> None:
    """What the pipeline says of frames beside what the mapper says of the same frames in disguise.

    A comment leaves the meaning of a frame as it is, and keeps the frame off every fast path.
    """
    stream = b"".join(upstream)
    fast, oracle = pipeline(dialect), dialect.mapper(EXEC, numbered=False)
    mapped = b"".join(fast.feed(chunk) for chunk in ([stream] if whole else upstream))
    disguised = [b": x\n" + one + b"\n\n" for one in frames.split(canonical(FrameSplitter(None).feed(stream)))]
    expected = unnumbered([oracle.map(one) for one in disguised])

    assert mapped == canonical(mapped)
    assert seen(mapped) == seen(expected)
    assert fast.next == len(seen(expected)) + 1
    assert (fast.finished, fast.ending, fast.unfinished) == (oracle.finished, oracle.ending, oracle.unfinished)
    assert seen(fast.flush()) == seen(unnumbered([oracle.flush()]))


def unnumbered(mapped: list[Parts]) -> bytes:
    return b"".join(FrameIds(None).number(parts, 1) for parts in mapped)


def seen(out: bytes) -> list[tuple[str, Any]]:
    return [(event.type, json.loads(event.data or "null")) for event in events.parse(out)]


@given(upstreams, st.booleans())
def test_fast_path_and_slow_path_agree_typed(upstream: list[bytes], whole: bool) -> None:
    """Whatever arrives, however it is batched, the page gets the same objects."""
    same(TYPED, upstream, whole=whole)


@given(upstreams, st.booleans())
def test_fast_path_and_slow_path_agree_named(upstream: list[bytes], whole: bool) -> None:
    """The same for `named`: the same event names, too."""
    same(NAMED, upstream, whole=whole)


@given(st.lists(plain_frames, min_size=1, max_size=6))
def test_every_plain_line_is_one_frame_with_its_number(upstream: list[bytes]) -> None:
    """Numbers start at 1 and stand on every frame, in both paths."""
    out = pipeline(TYPED, "r").feed(b"".join(upstream))

    assert [event.id for event in events.parse(out)] == [f"r.{number + 1}" for number in range(len(upstream))]


def test_a_run_can_go_on_fast_once_a_line_is_finished() -> None:
    """The beginning of a line takes plain frames off the fast path, and its end puts them back."""
    mapper = TYPED.mapper(EXEC, numbered=False)
    assert mapper.heads == TYPED.mapper(EXEC, numbered=True).heads != {}
    mapper.map(frame("stderr", {"data": "a"}).encode())
    assert mapper.heads == {}
    mapper.map(frame("stderr", {"data": "b\n"}).encode())
    assert mapper.heads != {}
    mapper.map(frame("exit", "0").encode())
    assert mapper.heads == {}


# -- lines ----------------------------------------------------------------------------------------------------------


def test_an_object_that_repeats_a_key_cannot_say_two_things() -> None:
    """A browser keeps the last of equal keys, so ours must be the only ones."""
    out = pipeline().feed(b'event: stdout\ndata: {"line":"a","type":"exit","type":"error"}\n\n')

    assert out == b'data: {"type":"stdout","line":"a"}\n\n'


def test_text_in_the_payload_that_looks_like_a_frame_is_text() -> None:
    """Heads count only where a frame begins."""
    text = 'event: stdout\ndata: {"line":"x"}\n\n'
    assert typed(frame("stdout", {"line": text})) == [
        {"type": "stdout", "line": line} for line in text.removesuffix("\n").split("\n")
    ]


json_like = st.text(st.sampled_from('",:[]{}\\nu a\u2028\x85\r\t\ud800'), max_size=6)


@given(st.lists(json_like, min_size=1, max_size=6), st.sampled_from([TYPED, NAMED]), st.sampled_from(["line", "data"]))
@example(['"a": "b",', '"c": "d",', "}"], TYPED, "data")  # JSON on several lines, as programs print it
@example(["first", 'a","b', '"', '","', "\\", '\\","', "", '"', "last"], TYPED, "line")
def test_many_lines_in_one_event_are_cut_apart_where_they_end_and_nowhere_else(
    lines: list[str], dialect: Dialect, key: str
) -> None:
    """Whatever their texts look like: they may hold JSON of their own, cut anywhere."""
    out = pipeline(dialect).feed(frame("stdout", {key: "\n".join([*lines, ""])}).encode())

    assert [body["line"] for body in objects(out)] == lines


def test_after_the_terminal_frame_nothing_follows() -> None:
    """Later frames of the same chunk are dropped, and so are frames of our own."""
    made = pipeline()

    out = made.feed((frame("exit", {"code": 0}) + frame("stdout", {"line": "late"}) + frame("exit", "1")).encode())

    assert objects(out) == [{"type": "exit", "code": 0}]
    assert made.finished
    assert made.feed(frame("stdout", {"line": "later"}).encode()) == b""
    assert made.fail("a", "b") == made.flush() == b""
    mapper = TYPED.mapper(EXEC, numbered=False)
    mapper.fail("a", "b", b"")
    assert mapper.discarded(b"data: x\n", 1)[:2] == mapper.map(b"data: x\n\n")[:2] == ([], 0)


def test_named_keeps_the_type_as_the_events_name() -> None:
    """The object has everything but the type, and a name stays within its line."""
    made = pipeline(NAMED, "r", limit=80)

    out = made.feed((frame("", {"type": "stderr", "line": "a"}) + frame("", {"type": "x\n\rdata: y", "z": 1})).encode())
    out += made.feed(b"x" * 88 + b"\n\n") + made.fail("upstream_ended", "It ended.")

    assert list(events.parse(out)) == [
        events.Event("stderr", '{"line":"a"}', "r.1"),
        events.Event("x  data: y", '{"z":1}', "r.2"),
        events.Event("gap", '{"dropped":1,"bytes":90}', "r.3"),
        events.Event("error", '{"code":"upstream_ended","message":"It ended."}', "r.4"),
    ]


def test_text_beyond_ascii_goes_as_it_came() -> None:
    """Raw UTF-8, U+2028 included, stays raw."""
    chunk = 'event: stdout\ndata: {"line":"é\u2028"}\n\n'.encode()

    assert pipeline().feed(chunk) == 'data: {"type":"stdout","line":"é\u2028"}\n\n'.encode()


def test_bytes_that_are_not_utf8_become_text_that_is() -> None:
    """As a browser would read them (9.2.6), whatever else is in the chunk."""
    chunk = b'event: stdout\ndata: {"line":"\xff"}\n\nevent: stdout\ndata: {"line":"\xc3\xa9"}\n\n'

    assert typed(chunk) == [{"type": "stdout", "line": "\ufffd"}, {"type": "stdout", "line": "é"}]


def test_half_a_character_can_only_be_escaped() -> None:
    """A lone surrogate is beyond UTF-8; JSON escapes it."""
    out = pipeline().feed(b'event: stdout\ndata: {"line":"\\ud800"}\n\n')

    assert out == b'data: {"type":"stdout","line":"\\ud800"}\n\n'


def test_frames_that_cannot_be_mapped_as_a_whole_are_mapped_one_by_one() -> None:
    """Two streams in a chunk, one frame that only looks plain."""
    chunk = frame("stdout", {"line": "a"}) + 'event: stdour\ndata: {"line":"b"}\n\n' + frame("stderr", {"line": "c"})
    chunk = chunk.replace('{"line": ', '{"line":')

    assert [one["line"] for one in typed(chunk)] == ["a", "b", "c"]


# -- pieces ---------------------------------------------------------------------------------------------------------


def test_pieces_are_cut_into_lines_per_stream() -> None:
    """Text under `data` or `output` ends where the script's line ends, however the pieces are cut."""
    assert typed(
        frame("stdout", {"data": "part"}),
        frame("stderr", {"data": "oo"}),
        frame("stdout", {"output": "ial\n\nnext"}),
        frame("stderr", {"data": "ps\n", "ts": 1}),
        frame("stdout", {"data": "\n"}),
    ) == [
        {"type": "stdout", "line": "partial"},
        {"type": "stdout", "line": ""},
        {"type": "stderr", "line": "oops", "ts": 1},
        {"type": "stdout", "line": "next"},
    ]


def test_an_unfinished_line_goes_out_marked_when_it_is_flushed() -> None:
    """After silence, or at the end, the page gets the beginning of a line, marked as such."""
    made = pipeline()
    assert made.feed(frame("stdout", {"data": "50%"}).encode()) == b""
    assert made.unfinished

    assert objects(made.flush()) == [{"type": "stdout", "line": "50%", "partial": True}]
    assert not made.unfinished
    assert made.flush() == b""


def test_the_end_and_a_whole_line_say_what_is_unfinished_first() -> None:
    """Order is the script's."""
    assert typed(
        frame("stdout", {"data": "a"}),
        frame("stdout", {"line": "b"}),
        frame("stdout", {"data": "c"}),
        frame("exit", "0"),
    ) == [
        {"type": "stdout", "line": "a", "partial": True},
        {"type": "stdout", "line": "b"},
        {"type": "stdout", "line": "c", "partial": True},
        {"type": "exit", "code": 0},
    ]
    made = pipeline()
    made.feed(frame("stdout", {"data": "a"}).encode())
    assert [said["type"] for said in objects(made.fail("lost", "gone"))] == ["stdout", "error"]


def test_a_line_that_never_ends_is_handed_on_in_pieces() -> None:
    """The bridge holds back a bounded part, and hands on all of it."""
    piece = "x" * 1000
    said = typed(*[frame("stdout", {"data": piece})] * 200)

    assert all(one["partial"] for one in said)
    assert sum(len(one["line"]) for one in said) >= 200 * 1000 - MAX_UNFINISHED


def test_a_line_may_be_as_long_as_the_bound_and_no_longer() -> None:
    """One character below it is held back; at the bound the line goes out in full, marked `partial`."""
    made = pipeline()

    assert made.feed(frame("stdout", {"data": "x" * (MAX_UNFINISHED - 1)}).encode()) == b""
    assert made.unfinished == MAX_UNFINISHED - 1
    assert objects(made.feed(frame("stdout", {"data": "x"}).encode())) == [
        {"type": "stdout", "line": "x" * MAX_UNFINISHED, "partial": True}
    ]
    assert made.unfinished == 0


@pytest.mark.parametrize("key", ["line", "data"])
def test_what_else_an_object_holds_is_kept_once(key: str) -> None:
    """On every line of it, a frame of 60 KB would become 400 MB."""
    said = typed(frame("stdout", {key: "a\nb\nc\n", "x": "y" * 100}))

    assert said == [{"type": "stdout", "line": "a", "x": "y" * 100}] + [{"type": "stdout", "line": one} for one in "bc"]


def test_a_character_split_between_pieces_arrives_whole() -> None:
    """Halves of a surrogate pair meet again in the line."""
    assert typed(frame("stdout", {"data": "\ud83d"}), frame("stdout", {"data": "\ude00\n"})) == [
        {"type": "stdout", "line": "😀"}
    ]


def piece(name: str, text: str, **more: object) -> bytes:
    return frame(name, {"data": text, **more}).encode()


def test_a_line_is_due_from_its_first_byte_on_in_each_stream_apart() -> None:
    """More text does not put it off; a new line has a time of its own; what is due in one stream leaves the others."""
    made = pipeline()
    made.feed(piece("stdout", "a"))
    assert made.due(1.0) == 1.0
    made.feed(piece("stdout", "b") + piece("stderr", "x"))
    assert made.due(2.0) == 1.0
    assert made.flush(0.9) == b""
    assert objects(made.flush(1.0)) == [{"type": "stdout", "line": "ab", "partial": True}]
    assert made.due(3.0) == 2.0

    made.feed(piece("stderr", "\ny") + piece("stdout", "c"))
    assert made.due(4.0) == 4.0
    assert {said["line"] for said in objects(made.flush(4.0))} == {"y", "c"}
    assert made.due(5.0) == inf
    assert made.unfinished == 0


@pytest.mark.parametrize(
    ("frames", "lines"),
    [
        (
            [piece("output", "o", stream="stdout"), piece("output", "e\n", stream="stderr"), piece("output", "k\n")],
            [("stderr", "e"), ("stdout", "ok")],
        ),
        ([piece("output", "o", fd=1), piece("stderr", "e"), piece("", "k\n"), piece("output", "!\n", fd=2)],
         [("stdout", "ok"), ("stderr", "e!")]),
        ([piece("stdout", "o", channel="stderr"), piece("stdout", "k\n"), piece("stderr", "!\n")],
         [("stdout", "k"), ("stderr", "o!")]),
        ([piece("output", "boot", stream="system"), piece("stdout", "ok\n"), piece("output", "ed\n", stream="system")],
         [("stdout", "ok"), ("stdout", "booted")]),
        ([piece("", "e", type="stderr"), piece("", "o\n", type="stdout"), piece("", "!\n", type="stderr")],
         [("stdout", "o"), ("stderr", "e!")]),
        ([piece("chunk", "e", stream="STDERR"), piece("chunk", "o\n", stream=["stderr"]), piece("stderr", "!\n")],
         [("stdout", "o"), ("stderr", "e!")]),
    ],
)  # fmt: skip
def test_pieces_of_two_streams_are_never_put_together(frames: list[bytes], lines: list[tuple[str, str]]) -> None:
    """The object's own word names its stream, whatever the event is called and however it spells it.

    The kind of fault: pieces are joined by what the event is called, and the object says otherwise.
    """
    said = [(one["type"], one["line"]) for one in typed(*frames)]

    assert said == lines


def test_streams_without_end_are_not_held_back_without_end() -> None:
    """An upstream may name as many streams as it likes."""
    made = pipeline()
    out = b"".join(made.feed(piece("output", f"{number},", stream=f"s{number}")) for number in range(1000))

    assert "".join(said["line"] for said in objects(out + made.flush())) == "".join(f"{one}," for one in range(1000))
    assert out.count(b"partial") > 900


def test_text_beside_an_ending_goes_out_before_it() -> None:
    """Whole lines and pieces, behind what was unfinished."""
    assert typed(piece("stdout", "a"), frame("", {"line": "last", "exit_code": 3})) == [
        {"type": "stdout", "line": "a", "partial": True},
        {"type": "stdout", "line": "last", "exit_code": 3},
        {"type": "exit", "code": 3},
    ]
    assert typed(piece("stdout", "a"), frame("", {"text": "b\nc", "exitCode": 0})) == [
        {"type": "stdout", "line": "ab", "exitCode": 0},
        {"type": "stdout", "line": "c", "partial": True},
        {"type": "exit", "code": 0},
    ]


# -- verbatim -------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(loose_frames, st.sampled_from([b"id: 1\n\n", b": c\n\n", b"id\ndata: x\n\n"])), max_size=6))
def test_verbatim_without_ids_touches_nothing(upstream: list[bytes]) -> None:
    """The very object that came goes on, and its frames are counted."""
    stream = canonical(FrameSplitter(None).feed(b"".join(upstream)))
    texts, count, *around = VERBATIM.mapper(EXEC, numbered=False).map(stream)

    assert texts[0] is stream
    assert around == [b"", b""]
    assert count == len(frames.split(stream))


@pytest.mark.parametrize("odd", [b"", b"event: exit\ndata: 0\n\n", b"\n", b"data: 1\ndata: 2\n\n"])
@pytest.mark.parametrize("ids", [None, "r"])
def test_verbatim_counts_many_frames_as_it_counts_few(odd: bytes, ids: str | None) -> None:
    """Frames may begin alike or differently, and extra blank lines may separate them."""
    alike = b"".join(b"event: a\ndata: %d\n\n" % number for number in range(500))
    many, few = pipeline(VERBATIM, ids), pipeline(VERBATIM, ids)

    whole = many.feed(alike + odd + alike)

    assert whole == b"".join(few.feed(frame + b"\n\n") for frame in frames.split(canonical(alike + odd + alike)))
    assert many.next == few.next == 1001 + bool(odd.strip())


def test_verbatim_counts_what_it_does_not_touch() -> None:
    """Numbers go on, even if they stay invisible."""
    made = pipeline(VERBATIM)

    assert made.feed(b"id: 7\n\ndata: x\n\n") == b"id: 7\n\ndata: x\n\n"
    assert made.next == 3


def test_verbatim_with_ids_replaces_the_upstreams() -> None:
    """Of two ids the last would win, so the upstream's go; so do frames that held only an id."""
    made = pipeline(VERBATIM, "r")

    out = made.feed(b"id: 7\n\nid: 8\ndata: id: 1\n\ndata: x\nid\n\nevent: idle\ndata: y\n\n")

    assert out == b"id: r.1\ndata: id: 1\n\nid: r.2\ndata: x\n\nid: r.3\nevent: idle\ndata: y\n\n"
    assert made.feed(b"data: z\n\n") == b"id: r.4\ndata: z\n\n"


def test_verbatim_adds_only_comments() -> None:
    """A frame that was too large leaves one. An end without an exit leaves none."""
    made = pipeline(VERBATIM, limit=20)

    assert made.feed(b"data: 1\n\ndata: too large for this\n\n") == b"data: 1\n\n: gap dropped=1 bytes=26\n\n"
    assert made.fail("a", "b") == made.flush() == b""
    assert made.due(1.0) == inf
    assert not any((made.unfinished, made.finished, made.exited))
    assert made.next == 3


# -- the end --------------------------------------------------------------------------------------------------------


def test_only_an_exit_says_that_the_work_has_ended() -> None:
    """An error ends the run, and the work may go on."""
    for name, exited in (("exit", True), ("timeout", True), ("error", False)):
        made = pipeline()
        made.feed(frame(name, {}).encode())
        assert made.finished
        assert made.exited is exited
    failed = pipeline()
    failed.fail("a", "b")
    assert (failed.finished, failed.exited) == (True, False)


def test_a_stream_may_end_without_a_terminal_frame() -> None:
    """It shows what is unfinished, and adds no frame."""
    made = pipeline()
    made.feed(frame("stdout", {"data": "a"}).encode())

    assert objects(made.finish()) == [{"type": "stdout", "line": "a", "partial": True}]
    made.close()
    assert made.ending is None


EXIT = b"event: exit\ndata: 0\n\n"
NUMBERS = b"".join(b"event: a\ndata: %d\n\n" % number for number in range(500))
LINES = b"".join(b'event: stdout\ndata: {"line":"%d"}\n\n' % number for number in range(500))
MIXED = b"".join(b'event: std%b\ndata: {"line":"exit"}\n\n' % (b"err", b"out")[n % 2] for n in range(100))
RENAMED = b'event: stdout\ndata: {"exit_code":0}\nevent: exit\n\n'
LARGE_EXIT = b'event: exit\ndata: {"exit_code":0,"x":"' + b"x" * 70_000 + b'"}\n\n'


@pytest.mark.parametrize("ids", [None, "r"])
@pytest.mark.parametrize(
    ("chunks", "exited"),
    [
        ([b"data: x\n\n"], False),
        ([b"data: x\n\n: y\n\n"], False),
        ([EXIT], True),
        ([b'data: {"exit_code":1}\n\n'], True),
        ([b"event: timeout\ndata: {}\n\n"], True),
        ([b"event: error\ndata: {}\n\n"], False),
        ([b"data: x\n\n" + EXIT], True),
        ([EXIT, b"data: late\n\n"], False),
        ([EXIT + b"data: late\n\n"], False),
        ([EXIT, b": data\n\n", b"id: 1\n\n"], True),
        ([EXIT + b": data\n\nretry: 1\n\n"], True),
        ([b"event: exit\ndatum: 0\n\n"], False),
        ([b"event: exit\ndata: 0\n"], False),
        ([LINES + EXIT], True),
        ([EXIT + LINES], False),
        ([LINES + EXIT + b": data\n\n\n\n"], True),
        ([LINES + EXIT, b": x\n\n" * 1000], True),
        ([b'data: {"exit_code":1,"x":"' + b"x" * 3000 + b'"}\n\n'], True),
        ([b": x\n" * 1000 + EXIT], True),
        ([EXIT, b"event: exit\ndata 3\n\n"], True),  # a field of another name
        ([EXIT, b"database: 3\n\n", b"x\ndatum: 3\ndatabase: 4\n\n"], True),
        ([EXIT + b"x\ndataset: 3\n" * 300 + b"\n"], True),
        ([EXIT, b"data\n\n"], True),  # the field without a value
        ([EXIT, b": x\n" * 1000 + b"data\n\n"], True),
        ([EXIT, b"event: ping\ndata: {}\n\n"], True),
        ([EXIT, b'data: {"type":"heartbeat"}\n\n' * 3], True),
        ([EXIT, b"event: done\ndata: {}\n\n", b"event: end\ndata: bye\n\n"], True),
        ([EXIT, b"event: done\ndata: [DONE]\n\n"], True),
        ([EXIT, b"data: [DONE]\n\n"], True),
        ([EXIT, b'event: stats\ndata: {"ms":3,"note":"exit_code"}\n\n'], True),
        ([EXIT, b"event: error\ndata: late\n\n"], True),
        ([EXIT, NUMBERS], True),
        ([NUMBERS, EXIT, NUMBERS, b"event: ping\ndata: 1\n\n"], True),
        ([LARGE_EXIT, b"event: ping\ndata: 1\n\n"], True),
        ([LARGE_EXIT, b"event: stdout\ndata: 1\n\n"], False),
        ([EXIT, b"event: ping\ndata: 1\n\n", b"event: stdout\ndata: 1\n\n"], False),
        ([EXIT, b"event: stdout\ndata: [DONE]\n\n"], False),
        ([EXIT, b"event: ping\ndata: 1\n\ndata: late\n\n", EXIT, b"event: ping\ndata: 2\n\n"], True),
        ([EXIT, MIXED], False),
        ([MIXED, EXIT, b"event: ping\ndata: 1\n\n"], True),
        ([LINES, EXIT, b"event: ping\ndata: 1\n\n"], True),
        ([EXIT, b'event: stdout\ndata: {"line":"' + b"x" * 70_000 + b'"}\n\n'], False),
        ([EXIT, b'event: stats\ndata: {"x":"' + b"x" * 70_000 + b'"}\n\n'], True),
        ([RENAMED, b"event: ping\ndata: 1\n\n"], True),  # the last name of a frame counts
        ([RENAMED * 100, b"event: ping\ndata: 1\n\n"], True),
        ([], False),
    ],
)
def test_verbatim_reads_an_exit_that_only_output_takes_back(chunks: list[bytes], exited: bool, ids: str | None) -> None:
    """The kind of fault: what an upstream sends behind an exit hides it, and the command is looked for although it has
    ended. However it is cut, whether its frames are too large, and after the close, too.
    """
    for cut in (chunks, [b"".join(chunks)], [bytes([byte]) for byte in b"".join(chunks)]):
        made = pipeline(VERBATIM, ids, 60_000)
        for chunk in cut:
            made.feed(chunk)

        assert made.exited is exited
        made.close()
        assert made.exited is exited
        assert not made.finished
