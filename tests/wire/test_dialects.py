"""Dialects: the fast path says what the slow path says, and every known upstream shape has one meaning."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire import events, frames
from sse_bridge.wire.dialects import DIALECTS, MAX_UNFINISHED, Dialect, Named, Typed, Verbatim
from sse_bridge.wire.frames import FrameSplitter, canonical
from sse_bridge.wire.ids import FrameIds


def typed(*upstream: str | bytes) -> list[Any]:
    """The objects a page would get from these upstream frames."""
    dialect = Typed(FrameIds(None))
    out = b"".join(dialect.map(frame.encode() if isinstance(frame, str) else frame) for frame in upstream)
    return objects(out)


def objects(out: bytes) -> list[Any]:
    return [json.loads(event.data) for event in events.parse(out) if event.data is not None]


def slow(dialect: Typed | Named, stream: bytes) -> bytes:
    """The oracle: each frame through the slow path alone."""
    out = b""
    for source in frames.split(stream):
        if not dialect.finished:
            out += b"".join(frame + b"\n\n" for frame in dialect.translate(events.parse_frame(source)))
    return out


# -- fast and slow agree ------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\\", '"', "\\n", "a\nb", "\r", "\t", "\u2028", "\x85", '"}', '{"line":"', "\ud800", "\x7f"]),
)
bodies = st.one_of(
    texts.map(lambda text: {"line": text}),
    st.dictionaries(
        st.sampled_from(
            ["line", "data", "output", "type", "stream", "exit_code", "exitCode", "code", "partial", "error", "message"]
        ),
        texts | st.integers() | st.none() | st.floats() | st.sampled_from(["stdout", "stderr", "exit", "error", "gap"]),
        max_size=4,
    ),
)
payloads = st.one_of(
    st.builds(json.dumps, bodies, ensure_ascii=st.booleans(), separators=st.sampled_from([(",", ":"), (", ", ": ")])),
    texts,
    st.sampled_from(["{}", "null", "[1]", "3", '"x"', '{"line":"a","line":"b"}', '{"line":1e999}', "[" * 200, "NaN"]),
    st.sampled_from(['{"line":"raw\ttab"}', '{"line":"\\u000a"}', '{"line":"\\/"}', '{"line":"\\ud83d\\ude00"}']),
).map(lambda text: text.encode("utf-8", "surrogatepass"))  # lone surrogates: bytes that are not UTF-8
heads = st.sampled_from(
    [
        b"event: stdout\n",
        b"event: stderr\n",
        b"event:stdout\n",
        b"",
        b"event: exit\n",
        b"event: error\n",
        b"event: ping\n",
        b"event: gap\n",
        b"event: \xff\n",
        b"xevent: stdout\n",
        b"id: 7\nevent: stdout\n",
        b": c\n",
        b"event: message\n",
        b"event: output\n",
        b"event: timeout\n",
    ]
)
loose_frames = st.builds(
    lambda head, colon, payload, tail: head + colon + payload.replace(b"\n", b"\ndata:") + tail + b"\n\n",
    heads,
    st.sampled_from([b"data: ", b"data:", b"data:  "]),
    payloads,
    st.sampled_from([b"", b"", b"", b"\nid: 9", b"\nevent: stderr"]),
)
plain_frames = st.builds(
    lambda kind, text: b'event: %b\ndata: {"line":"%b"}\n\n' % (kind, text),
    st.sampled_from([b"stdout", b"stderr"]),
    st.sampled_from([b"", b"x", b"a b c", "é\u2028".encode(), b'\\"', b"\\t", b"\\\\n", b"\xff", b"}"]),
)
endings = st.sampled_from([b"event: exit\ndata: 0\n\n", b"event: error\ndata: x\n\n"])
escapes = [b'\\"', b"\\\\", b"\\t", b"\\r", b"\\u001b[1m", b"\\ud83d\\ude00", b"\\ud800"]
line_ends = [b"\\n", b"\\u000d", b"\\u000A"]
no_json = [b"\\u12", b"\\x", b'"', b"\t", b"\\"]
escaped_frames = st.builds(
    lambda kind, texts: b'event: %b\ndata: {"line":"%b"}\n\n' % (kind, b"".join(texts)),
    st.sampled_from([b"stdout", b"stdout", b"stderr"]),
    st.lists(st.sampled_from([b"x", *escapes, *line_ends, *no_json]), max_size=4),
)
blank_lines = st.sampled_from([b"\n", b"\n\n"])
upstreams = st.lists(
    st.one_of(plain_frames, plain_frames, escaped_frames, escaped_frames, loose_frames, endings, blank_lines),
    max_size=8,
)


def same(dialect: type[Typed | Named], upstream: list[bytes], *, whole: bool) -> None:
    stream = b"".join(upstream)
    splitter, fast, oracle = FrameSplitter(None), dialect(FrameIds(None)), dialect(FrameIds(None))
    chunks = [stream] if whole else upstream
    mapped = b"".join(fast.map(splitter.feed(chunk)) for chunk in chunks)
    expected = slow(oracle, canonical(FrameSplitter(None).feed(stream)))

    assert mapped == canonical(mapped)
    as_seen = [(event.type, json.loads(event.data or "null")) for event in events.parse(mapped)]
    as_meant = [(event.type, json.loads(event.data or "null")) for event in events.parse(expected)]
    assert as_meant == as_seen
    assert fast.ids.next == len(as_seen) + 1
    assert (fast.finished, fast.unfinished) == (oracle.finished, oracle.unfinished)
    assert objects(fast.flush()) == [json.loads(frame[frame.index(b"{") :]) for frame in oracle._take_unfinished()]


@given(upstreams, st.booleans())
def test_fast_path_and_slow_path_agree_typed(upstream: list[bytes], whole: bool) -> None:
    """Whatever arrives, however it is batched, the page gets the same objects."""
    same(Typed, upstream, whole=whole)


@given(upstreams, st.booleans())
def test_fast_path_and_slow_path_agree_named(upstream: list[bytes], whole: bool) -> None:
    """The same for `named`: the same event names, too."""
    same(Named, upstream, whole=whole)


@given(st.lists(plain_frames, min_size=1, max_size=6))
def test_every_plain_line_is_one_frame_with_its_number(upstream: list[bytes]) -> None:
    """Numbers start at 1 and stand on every frame, in both paths."""
    out = Typed(FrameIds("r")).map(b"".join(upstream))

    assert [event.id for event in events.parse(out)] == [f"r.{number + 1}" for number in range(len(upstream))]


def test_plain_lines_of_one_stream_take_the_fast_path() -> None:
    """The normal case is mapped as a whole: were it not, nobody would notice but the clock."""
    chunk = b'event: stdout\ndata: {"line":"a"}\n\n' * 3
    dialect = Typed(FrameIds(None))

    assert dialect._map_plain(chunk) == b'data: {"type":"stdout","line":"a"}\n\n' * 3
    assert dialect._map_plain(chunk.replace(b'"a"', '"é"'.encode())) is not None
    assert Named(FrameIds(None)).map(chunk) == chunk
    mixed = chunk + chunk.replace(b"stdout", b"stderr")
    assert dialect._map_plain(mixed) == dialect.map(chunk) + dialect.map(mixed[len(chunk) :])
    assert dialect._map_plain(chunk + b'event: stdlog\ndata: {"line":"a"}\n\n') is None
    assert dialect._map_plain(chunk + b'event: stderr\ndata: {"line"}"}\n\n') is None
    assert dialect._map_plain(b"x" + chunk) is None
    coloured = chunk.replace(b'"a"', b'"\\u001b[1ma"')
    assert dialect._map_plain(coloured) == Typed(FrameIds(None))._map_each(coloured, fast=True)
    assert dialect._map_plain(chunk.replace(b'"a"', b'"\\u000a"')) is None


# -- every known shape, miosa-wire.md §2.1 and §6 ------------------------------------------------------------------


def frame(name: str, payload: object) -> str:
    data = payload if isinstance(payload, str) else json.dumps(payload)
    return (f"event: {name}\n" if name else "") + f"data: {data}\n\n"


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        # the stream: in the event's name, in the body, nowhere
        (frame("stdout", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("stderr", {"line": "a"}), {"type": "stderr", "line": "a"}),
        (frame("output", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("log", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("message", {"type": "stderr", "line": "a"}), {"type": "stderr", "line": "a"}),
        (frame("", {"stream": "stderr", "line": "a"}), {"type": "stderr", "line": "a", "stream": "stderr"}),
        (frame("", {"stream": ["stderr"], "line": "a"}), {"type": "stdout", "line": "a", "stream": ["stderr"]}),
        (frame("stdout", {"type": "exit", "line": "a", "code": 3}), {"type": "stdout", "line": "a", "code": 3}),
        (frame("", {"type": ["exit"], "line": "a"}), {"type": "stdout", "line": "a"}),
        # the text: with its line feed, with none, not a string, absent, not JSON
        (frame("stdout", {"line": "a\n"}), {"type": "stdout", "line": "a"}),
        (frame("stdout", {"line": "a\r"}), {"type": "stdout", "line": "a\r"}),
        (frame("stdout", {"line": ""}), {"type": "stdout", "line": ""}),
        (frame("stdout", {}), {"type": "stdout", "line": ""}),
        (frame("", {}), {"type": "stdout", "line": ""}),
        (frame("stdout", {"line": None}), {"type": "stdout", "line": ""}),
        (frame("stdout", {"line": 42}), {"type": "stdout", "line": "42"}),
        (frame("stdout", "plain words"), {"type": "stdout", "line": "plain words"}),
        (frame("stderr", "null"), {"type": "stderr", "line": "null"}),
        (frame("stdout", '["a"]'), {"type": "stdout", "line": '["a"]'}),
        (frame("stdout", '{"line": NaN}'), {"type": "stdout", "line": '{"line": NaN}'}),
        (frame("stdout", '{"line": "a", "t": 1e999}'), {"type": "stdout", "line": '{"line": "a", "t": 1e999}'}),
        (frame("stdout", '{"a":' * 150 + "0" + "}" * 150), {"type": "stdout", "line": '{"a":' * 150 + "0" + "}" * 150}),
        (frame("stdout", "[" * 100_000), {"type": "stdout", "line": "[" * 100_000}),
        (frame("stdout", {"line": "a", "ts": 1.5, "partial": True}),
         {"type": "stdout", "line": "a", "ts": 1.5, "partial": True}),
        # the exit
        (frame("exit", {"exit_code": 0}), {"type": "exit", "code": 0}),
        (frame("exit", {"exitCode": 3}), {"type": "exit", "code": 3}),
        (frame("exit", {"code": "4"}), {"type": "exit", "code": 4}),
        (frame("exit", {"exit_code": 5.0}), {"type": "exit", "code": 5}),
        (frame("exit", {"exit_code": None}), {"type": "exit", "code": None, "exit_code": None}),
        (frame("exit", {"exit_code": True}), {"type": "exit", "code": None, "exit_code": True}),
        (frame("exit", {"exit_code": "bad", "code": 7}), {"type": "exit", "code": 7, "exit_code": "bad"}),
        (frame("exit", "6"), {"type": "exit", "code": 6}),
        (frame("exit", "bye"), {"type": "exit", "code": None, "exit_code": "bye"}),
        (frame("", {"exit_code": 0}), {"type": "exit", "code": 0}),
        (frame("", {"code": 9}), {"type": "exit", "code": 9}),
        (frame("", {"exit_code": None}), {"type": "exit", "code": None, "exit_code": None}),
        (frame("message", {"exitCode": None}), {"type": "exit", "code": None, "exitCode": None}),
        (frame("", {"exit_code": "oops"}), {"type": "exit", "code": None, "exit_code": "oops"}),
        (frame("", {"type": None, "exit_code": None, "status": ["failed"]}),
         {"type": "exit", "code": None, "exit_code": None, "status": ["failed"]}),
        (frame("", {"type": "exit", "code": 3}), {"type": "exit", "code": 3}),
        # what only looks like one: a word that may be anything, text, something that goes on, a type of its own
        (frame("", {"code": None}), {"type": "stdout", "line": "", "code": None}),
        (frame("", {"code": "E_OOM"}), {"type": "stdout", "line": "", "code": "E_OOM"}),
        (frame("", {"exit": "left"}), {"type": "stdout", "line": "", "exit": "left"}),
        (frame("", {"line": "a", "exit_code": None}), {"type": "stdout", "line": "a", "exit_code": None}),
        (frame("", {"line": None, "exit_code": None}), {"type": "stdout", "line": "", "exit_code": None}),
        (frame("", {"status": "running", "exit_code": None}),
         {"type": "stdout", "line": "", "status": "running", "exit_code": None}),
        (frame("", {"state": "queued", "exitCode": None}),
         {"type": "stdout", "line": "", "state": "queued", "exitCode": None}),
        (frame("", {"type": "job", "exit_code": None}), {"type": "job", "exit_code": None}),
        (frame("job", {"exit_code": None}), {"type": "job", "exit_code": None}),
        (frame("", {"type": "exit", "exit_code": -1, "timed_out": True}),
         {"type": "exit", "code": -1, "timed_out": True}),
        (frame("timeout", {}), {"type": "exit", "code": -1, "timed_out": True}),
        (frame("", {"type": "timeout"}), {"type": "exit", "code": -1, "timed_out": True}),
        (frame("timeout", "too long"), {"type": "exit", "code": -1, "timed_out": True, "line": "too long"}),
        # errors
        (frame("error", {"code": "oom", "message": "killed"}), {"type": "error", "code": "oom", "message": "killed"}),
        (frame("error", "boom"), {"type": "error", "code": "upstream_error", "message": "boom"}),
        (frame("error", {}), {"type": "error", "code": "upstream_error", "message": "The upstream reported an error."}),
        (frame("error", {"error": "VM_LOST", "detail": "gone"}),
         {"type": "error", "code": "VM_LOST", "message": "gone", "error": "VM_LOST", "detail": "gone"}),
        (frame("error", {"error": {"code": 500, "message": "no"}}),
         {"type": "error", "code": "500", "message": "no", "error": {"code": 500, "message": "no"}}),
        # whatever else: kept under its own name
        (frame("started", {"pid": 3}), {"type": "started", "pid": 3}),
        (frame("", {"type": "gap", "dropped": 2, "bytes": 9}), {"type": "gap", "dropped": 2, "bytes": 9}),
        (frame("", {"type": "status_change", "data": {"status": "online"}}),
         {"type": "status_change", "data": {"status": "online"}}),
    ],
)  # fmt: skip
def test_each_upstream_shape_has_one_meaning(upstream: str, expected: dict[str, Any]) -> None:
    """One upstream frame, one object, and `type` is always ours."""
    assert typed(upstream) == [expected]


@pytest.mark.parametrize("name", ["heartbeat", "ping", "keepalive"])
def test_named_heartbeats_are_no_output(name: str) -> None:
    """A heartbeat says nothing, whether a comment, a named event, or a body's type."""
    assert typed(frame(name, {}), frame(name, {"line": "no"}), frame("", {"type": name}), ": heartbeat\n\n") == []


def test_frames_without_data_dispatch_nothing() -> None:
    """9.2.6: an id, a name or a comment alone is no event."""
    assert typed("id: 1\n\n", "event: stdout\n\n", ": x\n\n", "retry: 1\n\n") == []


def test_an_object_that_repeats_a_key_cannot_say_two_things() -> None:
    """A browser keeps the last of equal keys: no key of the upstream's can stand behind ours."""
    out = Typed(FrameIds(None)).map(b'event: stdout\ndata: {"line":"a","type":"exit","type":"error"}\n\n')

    assert out == b'data: {"type":"stdout","line":"a"}\n\n'


def test_text_in_the_payload_that_looks_like_a_frame_is_text() -> None:
    """Heads count only where a frame begins."""
    text = 'event: stdout\ndata: {"line":"x"}\n\n'
    assert typed(frame("stdout", {"line": text})) == [
        {"type": "stdout", "line": line} for line in text.removesuffix("\n").split("\n")
    ]


def test_many_lines_in_one_event_are_cut_apart_where_they_end_and_nowhere_else() -> None:
    """Whatever they hold: what stands between two of them stands in none of them."""
    lines = ["first", 'a","b', '"', '","', "\\", '\\","', "", "\u2028", "\ud800", "last"]

    assert typed(frame("stdout", {"line": "\n".join(lines)})) == [{"type": "stdout", "line": line} for line in lines]


def test_what_a_late_reader_missed_stands_under_a_number_that_was_given() -> None:
    """It takes no number of its own: others have got these frames."""
    dialect = Typed(FrameIds("r"))
    dialect.map(frame("stdout", {"line": "a"}).encode())

    assert dialect.missed(7, None, 9) == b'id: r.9\ndata: {"type":"gap","dropped":7}\n\n'
    assert dialect.missed(7, 99, 9) == b'id: r.9\ndata: {"type":"gap","dropped":7,"bytes":99}\n\n'
    assert Named(FrameIds(None)).missed(7, None, 9) == b'event: gap\ndata: {"dropped":7}\n\n'
    assert dialect.ids.next == 2


def test_after_the_terminal_frame_nothing_follows() -> None:
    """Not even what stood in the same chunk, and not our own words."""
    dialect = Typed(FrameIds(None))

    out = dialect.map((frame("exit", {"code": 0}) + frame("stdout", {"line": "late"}) + frame("exit", "1")).encode())

    assert objects(out) == [{"type": "exit", "code": 0}]
    assert dialect.finished
    assert dialect.map(frame("stdout", {"line": "later"}).encode()) == b""
    assert dialect.error("a", "b") == dialect.gap(1, 1) == dialect.flush() == b""


# -- pieces ---------------------------------------------------------------------------------------------------------


def test_pieces_are_cut_into_lines_per_stream() -> None:
    """Text under `data` or `output` ends where the script's line ends, not where the piece does."""
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
    """Silence or the end say the beginning of a line as what it is."""
    dialect = Typed(FrameIds(None))
    assert dialect.map(frame("stdout", {"data": "50%"}).encode()) == b""
    assert dialect.unfinished

    assert objects(dialect.flush()) == [{"type": "stdout", "line": "50%", "partial": True}]
    assert not dialect.unfinished
    assert dialect.flush() == b""


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
    dialect = Typed(FrameIds(None))
    dialect.map(frame("stdout", {"data": "a"}).encode())
    assert [said["type"] for said in objects(dialect.error("lost", "gone"))] == ["stdout", "error"]


def test_a_line_that_never_ends_is_not_kept_for_ever() -> None:
    """What is held back is bounded; nothing of it is lost."""
    piece = "x" * 1000
    said = typed(*[frame("stdout", {"data": piece})] * 200)

    assert all(one["partial"] for one in said)
    assert sum(len(one["line"]) for one in said) >= 200 * 1000 - MAX_UNFINISHED


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


# -- the other dialects ---------------------------------------------------------------------------------------------


def test_named_keeps_the_type_as_the_events_name() -> None:
    """The object has everything but the type, and no name can break out of its line."""
    dialect = Named(FrameIds("r"))

    out = dialect.map((frame("", {"type": "stderr", "line": "a"}) + frame("", {"type": "x\ndata: y", "z": 1})).encode())
    out += dialect.gap(2, 90) + dialect.error("upstream_ended", "It ended.")

    assert list(events.parse(out)) == [
        events.Event("stderr", '{"line":"a"}', "r.1"),
        events.Event("x data: y", '{"z":1}', "r.2"),
        events.Event("gap", '{"dropped":2,"bytes":90}', "r.3"),
        events.Event("error", '{"code":"upstream_ended","message":"It ended."}', "r.4"),
    ]


@given(st.lists(st.one_of(loose_frames, st.sampled_from([b"id: 1\n\n", b": c\n\n", b"id\ndata: x\n\n"])), max_size=6))
def test_verbatim_without_ids_touches_nothing(upstream: list[bytes]) -> None:
    """The very object that came goes on, and its frames are counted."""
    stream = canonical(FrameSplitter(None).feed(b"".join(upstream)))
    dialect = Verbatim(FrameIds(None))

    assert dialect.map(stream) is stream
    assert dialect.ids.next == len(frames.split(stream)) + 1


@pytest.mark.parametrize("odd", [b"", b"event: exit\ndata: 0\n\n", b"\n", b"data: 1\ndata: 2\n\n"])
@pytest.mark.parametrize("ids", [None, "r"])
def test_verbatim_counts_many_frames_as_it_counts_few(odd: bytes, ids: str | None) -> None:
    """Whether they begin alike or not, with blank lines too many or without."""
    alike = b"".join(b"event: a\ndata: %d\n\n" % number for number in range(500))
    many, few = Verbatim(FrameIds(ids)), Verbatim(FrameIds(ids))

    whole = many.map(alike + odd + alike)

    assert whole == b"".join(few.map(frame + b"\n\n") for frame in frames.split(canonical(alike + odd + alike)))
    assert many.ids.next == few.ids.next == 1001 + bool(odd.strip())


def test_verbatim_counts_what_it_does_not_touch() -> None:
    """Numbers go on, whether anybody sees them or not."""
    dialect = Verbatim(FrameIds(None))

    assert dialect.map(b"id: 7\n\ndata: x\n\n") == b"id: 7\n\ndata: x\n\n"
    assert dialect.ids.next == 3


def test_text_beyond_ascii_goes_as_it_came() -> None:
    """Raw UTF-8, U+2028 included: nothing is escaped on the way."""
    chunk = 'event: stdout\ndata: {"line":"é\u2028"}\n\n'.encode()

    assert Typed(FrameIds(None)).map(chunk) == 'data: {"type":"stdout","line":"é\u2028"}\n\n'.encode()


def test_verbatim_with_ids_replaces_the_upstreams() -> None:
    """Of two ids the last would win, so the upstream's go; so do frames that were nothing else."""
    dialect = Verbatim(FrameIds("r"))

    out = dialect.map(b"id: 7\n\nid: 8\ndata: id: 1\n\ndata: x\nid\n\nevent: idle\ndata: y\n\n")

    assert out == b"id: r.1\ndata: id: 1\n\nid: r.2\ndata: x\n\nid: r.3\nevent: idle\ndata: y\n\n"
    assert dialect.map(b"data: z\n\n") == b"id: r.4\ndata: z\n\n"


def test_verbatim_has_no_words_of_its_own() -> None:
    """No line of ours but heartbeats."""
    dialect = Verbatim(FrameIds(None))

    assert dialect.gap(1, 1) == dialect.missed(1, 1, 1) == dialect.error("a", "b") == dialect.flush() == b""
    assert not any((dialect.unfinished, dialect.finished, dialect.sees_endings, dialect.ids_by_default))


def test_bytes_that_are_not_utf8_become_text_that_is() -> None:
    """As a browser would read them (9.2.6), whatever else is in the chunk."""
    chunk = b'event: stdout\ndata: {"line":"\xff"}\n\nevent: stdout\ndata: {"line":"\xc3\xa9"}\n\n'

    assert typed(chunk) == [{"type": "stdout", "line": "\ufffd"}, {"type": "stdout", "line": "é"}]


def test_half_a_character_can_only_be_escaped() -> None:
    """UTF-8 cannot carry a lone surrogate; JSON can."""
    out = Typed(FrameIds(None)).map(b'event: stdout\ndata: {"line":"\\ud800"}\n\n')

    assert out == b'data: {"type":"stdout","line":"\\ud800"}\n\n'


def test_frames_that_cannot_be_mapped_as_a_whole_are_mapped_one_by_one() -> None:
    """Two streams in a chunk, one frame that only looks plain."""
    chunk = frame("stdout", {"line": "a"}) + 'event: stdour\ndata: {"line":"b"}\n\n' + frame("stderr", {"line": "c"})
    chunk = chunk.replace('{"line": ', '{"line":')

    assert [one["line"] for one in typed(chunk)] == ["a", "b", "c"]


def test_each_dialect_has_the_name_the_bridge_takes() -> None:
    """`SSEBridge(dialect="typed")` and its two brothers."""
    made: dict[str, Dialect] = {name: dialect(FrameIds(None)) for name, dialect in DIALECTS.items()}

    assert re.sub("[^a-z ]", "", str({name: type(one).__name__.lower() for name, one in made.items()})) == (
        "typed typed named named verbatim verbatim"
    )
