"""Output as frames: `sse_bridge.sandbox.output`."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.sandbox.output import MAX_LINE, LineEncoder, boundary, exit_frame
from tests.sandbox.helpers import frame, pieces_of


def encode(*pieces: bytes, max_line: int = MAX_LINE) -> bytes:
    encoder = LineEncoder("stdout", max_line)
    return b"".join([*map(encoder.feed, pieces), encoder.finish()])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_each_line_is_one_frame_without_its_newline() -> None:
    """The platform's frame, byte for byte."""
    assert encode(b"a\nb\n") == (b'event: stdout\ndata: {"line":"a"}\n\nevent: stdout\ndata: {"line":"b"}\n\n')


def test_the_event_name_is_the_stream() -> None:
    """Only the event's name marks stderr."""
    assert LineEncoder("stderr").feed(b"oops\n") == frame("stderr", {"line": "oops"})


def test_lines_wait_for_their_newline() -> None:
    """A line goes out as a whole, once it is complete."""
    encoder = LineEncoder("stdout")

    assert encoder.feed(b"hel") == b""
    assert encoder.feed(b"lo\nwor") == frame("stdout", {"line": "hello"})
    assert encoder.finish() == frame("stdout", {"line": "wor"})
    assert encoder.finish() == b""


def test_a_final_newline_begins_no_line() -> None:
    """A final newline leaves `finish` empty-handed."""
    assert encode(b"a\n") == frame("stdout", {"line": "a"})


def test_empty_lines_are_lines() -> None:
    """Three newlines are three lines."""
    assert encode(b"\n\n\n") == frame("stdout", {"line": ""}) * 3


@pytest.mark.parametrize(
    "text", ["a\rb\r", "a\u2028b", "\u2029\u0085", "\v\f\x1c\x1d\x1e", "\x1b[31mred\x7f", '\\n"\\\\']
)
def test_only_a_newline_ends_a_line(text: str) -> None:
    """The separators of other line splitters stay inside their line."""
    assert encode(text.encode() + b"\n") == frame("stdout", {"line": text})


def test_line_separators_travel_raw() -> None:
    """U+2028 is sent unescaped: a reader that splits at it loses data, which tests have to be able to see."""
    assert b"\xe2\x80\xa8" in encode("a\u2028b\n".encode())


def test_invalid_utf8_becomes_replacement_characters() -> None:
    """A frame is always valid UTF-8."""
    assert encode(b"a\xff\xc3\n\xe2\x82\nb\n") == b"".join(
        frame("stdout", {"line": line}) for line in ("a\ufffd\ufffd", "\ufffd", "b")
    )


@given(text=st.text(), cuts=st.lists(st.integers(0, 1000), max_size=5))
def test_the_fast_encoder_agrees_with_json_dumps(text: str, cuts: list[int]) -> None:
    """For any output cut anywhere, also where a character straddles two pieces."""
    lines = text.split("\n")
    expected = lines if lines[-1] else lines[:-1]

    frames = encode(*cut(text.encode(), cuts))

    assert frames == b"".join(frame("stdout", {"line": line}) for line in expected)


@given(data=st.binary(), cuts=st.lists(st.integers(0, 1000), max_size=5), max_line=st.integers(4, 12))
def test_cuts_never_change_the_frames(data: bytes, cuts: list[int], max_line: int) -> None:
    """Frames depend on the bytes alone, however they were read, long lines included."""
    assert encode(*cut(data, cuts), max_line=max_line) == encode(data, max_line=max_line)


@given(text=st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
def test_a_long_line_is_cut_between_characters(text: str) -> None:
    """The pieces hold whole characters, are as long as the limit allows, and add up to the line."""
    pieces = pieces_of(encode(b"start" + text.encode() + b"\n", max_line=4))

    assert "".join(pieces) == f"start{text}\n"
    assert all(len(piece.removesuffix("\n").encode()) <= 4 for piece in pieces)


def test_a_line_of_exactly_the_limit_is_not_cut() -> None:
    """The limit itself is allowed."""
    assert encode(b"x" * 8 + b"\n", max_line=8) == frame("stdout", {"line": "x" * 8})
    assert pieces_of(encode(b"x" * 9 + b"\n", max_line=8)) == ["x" * 8, "x\n"]


def test_a_line_without_an_end_is_held_in_bounded_memory() -> None:
    """Bytes above the limit go out at once."""
    encoder = LineEncoder("stdout", 1024)

    sent = b"".join(encoder.feed(b"x" * 700) for _ in range(100))

    assert len(pieces_of(sent)) == 70_000 // 1024
    assert len(pieces_of(encoder.finish())[0]) == 70_000 % 1024


def test_an_unfinished_line_can_be_shown_at_once() -> None:
    """A frame of `line` would end it. The text goes out as `data`, and so does the rest of the line."""
    encoder = LineEncoder("stdout")
    encoder.feed(b"Password: ")

    assert encoder.flush() == frame("stdout", {"data": "Password: "})
    assert encoder.flush() == b""
    assert encoder.feed(b"ok\nnext\n") == frame("stdout", {"data": "ok\n"}) + frame("stdout", {"line": "next"})
    assert encoder.finish() == b""


@pytest.mark.parametrize(
    "output",
    [
        b"50%",
        b"50%\r100%\n",
        b"\n\n",
        b"a" * 20,
        "größer € 😀\n".encode(),
        b"\xe2\x82",  # a character that never ends
        b"\xe2(\xa1\n",  # invalid, and known to be only by its second byte
        b"\xf0\x9f\x98\n\x80",
        b"\xff\xfe",
        b'"\\\x1b[0m',
    ],
)
@pytest.mark.parametrize("max_line", [MAX_LINE, 4])
def test_the_text_is_the_same_however_often_it_is_shown(output: bytes, max_line: int) -> None:
    """Also where a character, or an invalid sequence, straddles two reads with a `flush` after each."""
    for first in range(len(output) + 1):
        for second in range(first, len(output) + 1):
            encoder = LineEncoder("stdout", max_line)
            frames = b""
            for piece in (output[:first], output[first:second], output[second:]):
                frames += encoder.feed(piece) + encoder.flush()
            assert text_of(frames + encoder.finish()) == output.decode("utf-8", "replace").removesuffix("\n")


@given(data=st.binary(), cuts=st.lists(st.integers(0, 1000), max_size=8), max_line=st.integers(4, 12))
def test_any_bytes_shown_at_any_time_are_the_same_text(data: bytes, cuts: list[int], max_line: int) -> None:
    """For any output, cut anywhere and shown after every cut."""
    encoder = LineEncoder("stdout", max_line)
    frames = b"".join(encoder.feed(piece) + encoder.flush() for piece in cut(data, cuts)) + encoder.finish()

    assert text_of(frames) == data.decode("utf-8", "replace").removesuffix("\n")


def text_of(frames: bytes) -> str:
    """The output as a reader of the frames puts it together, without a last newline, which a `line` may have lacked."""
    bodies = [json.loads(each.partition(b"data: ")[2]) for each in frames.split(b"\n\n")[:-1]]
    return "".join(body.get("data", body.get("line", "") + "\n") for body in bodies).removesuffix("\n")


def test_continuation_bytes_alone_are_cut_at_the_limit() -> None:
    """Invalid UTF-8 may lack a boundary between characters."""
    assert boundary(b"\x80" * 10, 8) == 8


def test_the_exit_frame_says_how_it_ended() -> None:
    """As on the platform, timeouts included."""
    assert exit_frame(0) == b'event: exit\ndata: {"exit_code":0}\n\n'
    assert exit_frame(-1, timed_out=True) == b'event: exit\ndata: {"exit_code":-1,"timed_out":true}\n\n'
