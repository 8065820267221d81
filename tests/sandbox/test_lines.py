"""Whole lines out of pieces: `sse_bridge.sandbox.lines`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.sandbox.lines import WholeLines


@given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"\0", b"\n"))))
def test_lines_are_handed_on_whole(pieces: list[bytes]) -> None:
    """However the output is cut, and nothing is lost."""
    lines = WholeLines()
    handed = [lines.feed(piece) for piece in pieces]
    last = lines.finish()

    assert all(each == b"" or each.endswith(b"\n") for each in handed)
    assert b"".join(handed) + last == b"".join(pieces)
    assert b"\n" not in last
    assert lines.finish() == b""


def test_a_line_that_is_too_long_is_cut() -> None:
    """Between characters, so that the memory is bounded."""
    lines = WholeLines(limit=6)

    assert lines.feed(b"123456") == b""
    assert lines.feed("é".encode()) == b"123456"
    assert lines.feed(b"abcd\xc3") == "éabcd".encode()
    assert lines.feed(b"\xa9\n") == "é\n".encode()
