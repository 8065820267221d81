"""`Digest`: a frame that was too large, in short, however it was cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.digest import Digest
from sse_bridge.wire.events import Event, parse_frame
from tests.support.frames import loose_frames

FACTS = frozenset({"exit_code"})


def digest(frame: bytes, size: int = 10**6) -> bytes:
    made = Digest(FACTS)
    for at in range(0, len(frame), size):
        made.feed(frame[at : at + size])
    return made.frame()


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b'event: exit\ndata: {"exit_code":3}\n', Event("exit", '{"exit_code":3}')),
        (b'data:{"exit_code":\ndata:3}\nid:7\nretry:5\n', Event(data='{"exit_code":3}', id="7", retry=5)),
        (b": c\nxdata: 1\nevents: 2\nid\ndata\n", Event(data="", id="")),
        (b"event: stdout\ndata: two\ndata: lines\n", Event("stdout", "two\nlines")),
        (b'event: exit\ndata: {"exit_code":3,\n', Event("exit", '{"exit_code":3}')),
        (b'data: {"exit_code":3,\n', Event(data='{"exit_code":3,')),
        (b"id: a\0b\nretry: x\nretry: 5\nretry: 6y\n", Event(retry=5)),
        (b"event: a\nevent: b\n", Event("b")),
        (b"id: " + b"7" * 300 + b"\nevent: " + b"x" * 300 + b"\ndata: x\n", Event(data="x")),
        (b"data: x\nid: 7", Event(data="x")),
        (b"", Event()),
    ],
)
def test_a_digest_has_the_fields_that_a_browser_would_read(frame: bytes, event: Event) -> None:
    """All but ids, names and times that are too long, or whose line has yet to end."""
    for size in (1, 2, 5, 100):
        assert parse_frame(digest(frame, size)) == event


@given(loose_frames, st.integers(1, 20))
def test_cuts_make_no_difference(frame: bytes, size: int) -> None:
    """And what is small stays whole, if it is an object."""
    made = parse_frame(digest(frame[:-1], size))

    assert made == parse_frame(digest(frame[:-1]))
    told = parse_frame(frame[:-2])
    assert (made.type, made.id, made.retry) == (told.type, told.id, told.retry)
    assert (made.data is None) == (told.data is None)
    try:
        expected = json.loads(told.data or "")
    except (ValueError, RecursionError):
        return
    if isinstance(expected, dict) and all(isinstance(value, str | int | None) for value in expected.values()):
        assert json.loads(made.data or "") == expected
