"""Output as frames: `sse_bridge.sandbox.output`."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.sandbox.output import MAX_LINE, LineEncoder, boundary, exit_frame
from tests.sandbox.helpers import frame, lines_of


def encode(*pieces: bytes, max_line: int = MAX_LINE) -> bytes:
    encoder = LineEncoder("stdout", max_line)
    return b"".join([*map(encoder.feed, pieces), encoder.finish()])


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
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

    frames = encode(*pieces_of(text.encode(), cuts))

    assert frames == b"".join(frame("stdout", {"line": line}) for line in expected)


@given(data=st.binary(), cuts=st.lists(st.integers(0, 1000), max_size=5), max_line=st.integers(4, 12))
def test_cuts_never_change_the_frames(data: bytes, cuts: list[int], max_line: int) -> None:
    """Frames depend on the bytes alone, however they were read, long lines included."""
    assert encode(*pieces_of(data, cuts), max_line=max_line) == encode(data, max_line=max_line)


@given(text=st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
def test_a_long_line_is_cut_between_characters(text: str) -> None:
    """The pieces hold whole characters, are as long as the limit allows, and add up to the line."""
    lines = lines_of(encode(text.encode() + b"\n", max_line=8))

    assert "".join(lines) == text
    assert all(len(line.encode()) <= 8 for line in lines)
    assert all(len(line.encode()) > 4 for line in lines[:-1])


def test_a_line_of_exactly_the_limit_is_not_cut() -> None:
    """The limit itself is allowed."""
    assert lines_of(encode(b"x" * 8 + b"\n", max_line=8)) == ["x" * 8]
    assert lines_of(encode(b"x" * 9 + b"\n", max_line=8)) == ["x" * 8, "x"]


def test_a_line_without_an_end_is_held_in_bounded_memory() -> None:
    """Bytes above the limit go out at once."""
    encoder = LineEncoder("stdout", 1024)

    sent = b"".join(encoder.feed(b"x" * 700) for _ in range(100))

    assert len(lines_of(sent)) == 70_000 // 1024
    assert len(lines_of(encoder.finish())[0]) == 70_000 % 1024


def test_continuation_bytes_alone_are_cut_at_the_limit() -> None:
    """Invalid UTF-8 may lack a boundary between characters."""
    assert boundary(b"\x80" * 10, 8) == 8


def test_the_exit_frame_says_how_it_ended() -> None:
    """As on the platform, timeouts included."""
    assert exit_frame(0) == b'event: exit\ndata: {"exit_code":0}\n\n'
    assert exit_frame(-1, timed_out=True) == b'event: exit\ndata: {"exit_code":-1,"timed_out":true}\n\n'
