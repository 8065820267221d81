"""`plain`: what the fast path takes, and what it leaves to the slow one."""

from __future__ import annotations

import pytest

from sse_bridge.wire.dialects import NAMED, TYPED
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.plain import map_plain, map_plain_frame
from sse_bridge.wire.shapes import EXEC

HEADS = TYPED.mapper(EXEC, numbered=True).heads
NAMED_HEADS = NAMED.mapper(EXEC, numbered=True).heads
OUT = b'event: stdout\ndata: {"line":"a"}\n\n'
ERR = OUT.replace(b"stdout", b"stderr")
MAPPED_OUT = b'data: {"type":"stdout","line":"a"}\n\n'
MAPPED_ERR = MAPPED_OUT.replace(b"stdout", b"stderr")


def mapped(frames: bytes) -> bytes | None:
    parts = map_plain(frames, HEADS)
    if parts is None:
        return None
    made = FrameIds(None).number(parts, 1)
    assert parts[1] == made.count(b"\n\n") == len(parts[0])
    return made


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (OUT, MAPPED_OUT),
        (OUT * 3, MAPPED_OUT * 3),
        (ERR * 2, MAPPED_ERR * 2),
        (OUT + ERR + OUT, MAPPED_OUT + MAPPED_ERR + MAPPED_OUT),
        (OUT.replace(b'"a"', '"é\u2028"'.encode()), MAPPED_OUT.replace(b'"a"', '"é\u2028"'.encode())),
        (OUT.replace(b'"a"', b'""'), MAPPED_OUT.replace(b'"a"', b'""')),
        *(
            (OUT.replace(b'"a"', b'"%b"' % escape) * times, MAPPED_OUT.replace(b'"a"', b'"%b"' % escape) * times)
            for times in (1, 2)
            for escape in (b'\\"', b"\\\\", b"\\/", b"\\b", b"\\f", b"\\r", b"\\t", b"\\u001b[1m", b"x\\u000ey\\uD83d")
        ),
    ],
)
def test_plain_frames_are_mapped_as_a_whole(frames: bytes, expected: bytes) -> None:
    """If the fast path refused them, output would be the same and only a clock would notice."""
    assert mapped(frames) == expected


@pytest.mark.parametrize("seen", [OUT, OUT * 3, OUT + ERR])
@pytest.mark.parametrize(
    "odd",
    [
        b'event: stdlog\ndata: {"line":"a"}\n\n',
        b'event: stderr\ndata: {"line"}"}\n\n',
        b'event: stdout\ndata: {"line":"\\n"}\n\n',
        b'event: stdout\ndata: {"line":"\\u000a"}\n\n',
        b'event: stdout\ndata: {"line":"\\u000D"}\n\n',
        b'event: stdout\ndata: {"line":"\\x"}\n\n',
        b'event: stdout\ndata: {"line":"\\u12"}\n\n',
        b'event: stdout\ndata: {"line":"a\tb"}\n\n',
        b'event: stdout\ndata: {"line":"a"b"}\n\n',
        b'event: stdout\ndata: {"line":"\xff"}\n\n',
        b'event: stdout\ndata: {"line":"a","n":"b"}\n\n',
        b'event: stdout\ndata: {"line":"a" }\n\n',
        b'event: exit\ndata: {"exit_code":0}\n\n',
        b"\n",
        b": x\n\n",
    ],
)
def test_one_odd_frame_sends_all_to_the_slow_path(seen: bytes, odd: bytes) -> None:
    """Wherever it stands."""
    assert mapped(seen + odd) is None
    assert mapped(odd + seen) is None
    assert mapped(odd) is None


def test_one_frame_may_have_the_white_space_of_other_encoders() -> None:
    """One by one, frames are plain in four spellings, and the stream stays what it is."""
    for source in (b'event:stdout\ndata:{"line":"a"}', b'event: stdout\ndata: {"line": "a"}'):
        assert map_plain_frame(source, HEADS) == MAPPED_OUT.removesuffix(b"\n\n")
    assert (
        map_plain_frame(b'event: stderr\ndata: {"line":"\\t"}', NAMED_HEADS) == b'event: stderr\ndata: {"line":"\\t"}'
    )


@pytest.mark.parametrize(
    "odd", [b'event: stdout\ndata: {"line":"\xff"}', b'event: stdout\ndata: {"line":"\\n"}', b"data: a", b""]
)
def test_one_odd_frame_is_not_plain(odd: bytes) -> None:
    """Invalid UTF-8, and text that ends a line, are for the slow path."""
    assert map_plain_frame(odd, HEADS) is None
