"""`events`: what the standard says of fields, and frames that say what they were given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire import events
from sse_bridge.wire.events import Event
from sse_bridge.wire.frames import FrameSplitter

text = st.text(st.characters(codec="utf-8"), max_size=30)
one_line = text.map(lambda value: value.replace("\r", "").replace("\n", ""))
made = st.builds(
    Event,
    type=one_line.map(lambda value: value or "message"),
    data=st.none() | text,
    id=st.none() | one_line.map(lambda value: value.replace("\0", "")),
    retry=st.none() | st.integers(0, 10**12),
)


@given(made)
def test_what_is_encoded_is_parsed_back(event: Event) -> None:
    """Encoding keeps everything except the difference between line ends."""
    frame = events.encode(event)

    if event == Event():
        assert frame == b""
        return
    splitter = FrameSplitter(None)
    (parsed,) = events.parse(splitter.feed(frame))
    data = event.data.replace("\r\n", "\n").replace("\r", "\n") if event.data is not None else None
    assert parsed == Event(event.type, data, event.id, event.retry)
    assert splitter.pending == b""


def test_an_event_is_written_field_by_field() -> None:
    """A `message` goes unnamed, and every line of the data gets a `data` line."""
    assert (
        events.encode(Event("a", "1\r\n2\r3\n", "x", 5))
        == b"retry: 5\nid: x\nevent: a\ndata: 1\ndata: 2\ndata: 3\ndata: \n\n"
    )
    assert events.encode(Event(data="")) == b"data: \n\n"
    assert events.encode(Event(id="")) == b"id: \n\n"
    assert events.encode(Event()) == b""


@given(st.binary(max_size=60))
def test_no_bytes_make_the_parser_fail(noise: bytes) -> None:
    """The parser ignores what the standard ignores, and accepts every frame."""
    for event in events.parse(FrameSplitter(None).feed(noise + b"\n\n")):
        assert isinstance(event, Event)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Event(type="a\nb"), "line end"),
        (Event(id="a\rb"), "line end"),
        (Event(id="a\0b"), "NUL"),
        (Event(retry=-1), "milliseconds"),
        (Event(data="\ud800"), "surrogates"),
    ],
)
def test_what_cannot_be_said_is_refused(event: Event, reason: str) -> None:
    """An event that would arrive as something else is an error."""
    with pytest.raises(ValueError, match=reason):
        events.encode(event)


@pytest.mark.parametrize("value", [b"1_000", b"+5", b"-5", b"5.0", b" 5", b"", "٥".encode(), b"9" * 5000])
def test_retry_takes_ascii_digits_only(value: bytes) -> None:
    """9.2.6: only ASCII digits set the reconnection time."""
    assert events.parse_frame(b"retry: " + value).retry is None


def test_unicode_line_separators_are_data() -> None:
    """Only CR, LF and CRLF end a line; `str.splitlines` knows eight more."""
    data = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    frame = f"data: {data}\n\n".encode()

    (event,) = events.parse(FrameSplitter().feed(frame))

    assert event.data == data


def test_a_comment_is_a_frame_that_dispatches_nothing() -> None:
    """Heartbeats are whole frames, whatever text they carry."""
    assert events.comment("heartbeat") == b": heartbeat\n\n"
    assert events.comment("a\ndata: b\r\rc") == b": a\n: data: b\n: \n: c\n\n"
    assert events.parse_frame(events.comment("a")) == Event()
