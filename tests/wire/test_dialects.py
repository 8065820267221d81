"""Dialects: how frames are spelled, and what each dialect has."""

from __future__ import annotations

from sse_bridge.wire.dialects import DIALECTS, NAMED, TYPED, VERBATIM
from sse_bridge.wire.events import parse
from sse_bridge.wire.ids import FrameIds


def test_what_a_late_viewer_missed_stands_under_a_number_that_was_given() -> None:
    """It shares a number: other viewers have got these frames."""
    ids, none = FrameIds("r"), FrameIds(None)

    assert TYPED.missed(ids, 7, None, 9) == b'id: r.9\ndata: {"type":"gap","dropped":7}\n\n'
    assert TYPED.missed(ids, 7, 99, 9) == b'id: r.9\ndata: {"type":"gap","dropped":7,"bytes":99}\n\n'
    assert NAMED.missed(none, 7, None, 9) == b'event: gap\ndata: {"dropped":7}\n\n'


def test_a_gap_in_verbatim_is_a_comment_that_leaves_the_next_event_alone() -> None:
    """It is a line without a blank line of its own, and without an id: the next frame has one."""
    for ids in (FrameIds("r"), FrameIds(None)):
        assert VERBATIM.missed(ids, 17, 2048, 9) == b": gap dropped=17 bytes=2048\n"
        assert VERBATIM.missed(ids, 17, None, 9) == b": gap dropped=17\n"
    for following in (b"data: x\n\n", b"event: y\nid: 7\ndata\n\n", b": heartbeat\nretry: 3\n\n"):
        assert [*parse(VERBATIM.missed(ids, 1, 2, 3) + following)] == [*parse(following)]


def test_each_dialect_has_the_name_the_bridge_takes() -> None:
    """`SSEBridge(dialect="typed")` takes one of three."""
    assert {"typed": TYPED, "named": NAMED, "verbatim": VERBATIM} == DIALECTS
    assert all(name == dialect.name for name, dialect in DIALECTS.items())


def test_only_verbatim_leaves_the_upstreams_frames_alone() -> None:
    """By default it lacks ids, and the bridge adds frames only to the others."""
    assert [(one.has_own_frames, one.ids_by_default) for one in (TYPED, NAMED, VERBATIM)] == [
        (True, True),
        (True, True),
        (False, False),
    ]


def test_the_bridge_has_frames_of_its_own_except_in_verbatim() -> None:
    """They are spelled as the dialect spells any frame."""
    body = {"run": "r"}

    assert DIALECTS["typed"].own_frame("start", body) == b'data: {"type":"start","run":"r"}'
    assert DIALECTS["named"].own_frame("start", body) == b'event: start\ndata: {"run":"r"}'
    assert DIALECTS["verbatim"].own_frame("start", body) == b""
