"""Merging says the same in fewer events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.events import Event, parse
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.merging import Merged, first_frames
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.terminal import settle
from tests.support.frames import pipeline

RUN = "Zk3vQ0x9bTnWf2Rq"


def upstream(kind: str, body: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def typed(*lines: tuple[str, Any], run: str | None = RUN) -> tuple[Pipeline, bytes]:
    made = pipeline(TYPED, run)
    return made, made.feed(b"".join(upstream(kind, body) for kind, body in lines))


def merge(frames: bytes, first: int, most: int | None, run: str | None = RUN) -> Merged:
    return TYPED.merge(FrameIds(run), frames, first, most)


def bodies(frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.data or "") for event in parse(frames)]


def test_lines_of_one_stream_become_one_event_under_the_number_of_the_last() -> None:
    """So a page that appends lines shows the same text, and a resume goes on behind all of them."""
    _, frames = typed(*[("stdout", {"line": text}) for text in ("a", 'say "b"', "c\\", "")])

    merged = merge(frames, 1, None)

    assert bodies(merged.data) == [{"type": "stdout", "line": 'a\nsay "b"\nc\\\n'}]
    assert [event.id for event in parse(merged.data)] == [f"{RUN}.4"]
    assert merged[1:] == (1, 4, len(frames))


@pytest.mark.parametrize("run", [RUN, None])
@pytest.mark.parametrize("dialect", [TYPED, NAMED], ids=["typed", "named"])
def test_another_stream_begins_another_event(dialect: Dialect, run: str | None) -> None:
    """Order is kept, in both dialects that merge, whether frames have ids or lack them."""
    kinds = ["stdout", "stdout", "stderr", "stderr", "stderr", "stdout"]
    stream = b"".join(upstream(kind, {"line": str(number)}) for number, kind in enumerate(kinds))
    frames = pipeline(dialect, run).feed(stream)

    merged = dialect.merge(FrameIds(run), frames, 1, None)

    assert [body["line"] for body in bodies(merged.data)] == ["0\n1", "2\n3\n4", "5"]
    if run is not None:
        assert [event.id for event in parse(merged.data)] == [f"{RUN}.{last}" for last in (2, 5, 6)]
    assert merged[1:] == (3, 6, len(frames))


OTHERS: list[tuple[str, Any]] = [
    ("stdout", {"line": "x", "at": "noon"}),
    ("stdout", {"line": "x", "n": 1}),
    ("exit", {"exit_code": 0}),
    ("error", {"code": "oom", "message": "x"}),
    ("started", {"pid": 1}),
]


@pytest.mark.parametrize("other", OTHERS, ids=[str(other) for other in OTHERS])
def test_what_is_no_plain_line_stays_as_it_is_and_in_its_place(other: tuple[str, Any]) -> None:
    """Its bytes stay the same, and it separates the lines on its two sides."""
    made, frames = typed(("stdout", {"line": "a"}), ("stdout", {"line": "b"}))
    between = made.feed(upstream(*other))
    after = b"" if made.finished else made.feed(upstream("stdout", {"line": "c"}))

    merged = merge(frames + between + after, 1, None)

    assert between in merged.data
    assert bodies(merged.data)[0]["line"] == "a\nb"
    assert merged.events == (3 if after else 2)


def test_a_text_that_looks_like_the_end_of_a_line_is_text() -> None:
    """A quote inside a text is escaped, so merging can tell text from the bytes between two frames."""
    text = '"}\n\nid: 1\ndata: {"type":"stdout","line":"'
    _, frames = typed(("stdout", {"line": "a", "n": '"}'}), ("stdout", {"line": 'b","n":"c'}))
    assert [body["line"] for body in bodies(merge(frames, 1, None).data)] == ["a", 'b","n":"c']

    _, frames = typed(("stdout", {"line": json.dumps(text)}), ("stdout", {"line": "c"}))
    assert [body["line"] for body in bodies(merge(frames, 1, None).data)] == [json.dumps(text) + "\nc"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("10%\r20%\r30%", "30%"),
        ("\r30%", "30%"),
        ("windows\r", "windows\r"),
        ("10%\r20%\r", "20%\r"),
        ("20%\r\r", "20%\r\r"),
        ("a\\rb", "a\\rb"),
        ("a\\\rb", "a\\\rb"),
        ('a"\rbcé\\', "bcé\\"),
        ("\r", "\r"),
        ("\x1b[31m-old text\x1b[m\r\x1b[m", "\x1b[31m-old text\x1b[m\r\x1b[m"),
        ("100 bytes\r50", "100 bytes\r50"),
    ],
)
def test_of_a_line_with_returns_only_what_is_still_shown_is_kept(line: str, shown: str) -> None:
    """Text stays unless something printable overwrites all of it: a reset of colours does not, nor does a shorter text.

    `terminal` decides. Merging has to ask it for each line, and to keep lines that it leaves alone as they are.
    """
    for lines in ([("stdout", {"line": line})] * 3, [("stdout", {"line": line}), ("stderr", {"line": line})]):
        _, frames = typed(*lines)

        assert "\n".join(body["line"] for body in bodies(merge(frames, 1, None).data)) == "\n".join(
            [shown] * len(lines)
        )


CONTINUED = [
    (["Downloading 60%"], "\rDownloading 100%\n", "\rDownloading 100%"),
    (["5"], "0%\r60%\n", "0%\r60%"),
    (["1%"], "\r2%\r3%\r4%\n", "\r4%"),
    (["1%", "\r2%"], "\r3%\n", "\r3%"),
    (["text\r"], "\n", ""),
    (["text"], "\r\n", "\r"),
]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("dialect", [TYPED, NAMED], ids=["typed", "named"])
@pytest.mark.parametrize(("shown", "rest", "continuation"), CONTINUED)
def test_the_continuation_of_a_partial_line_keeps_its_return(
    shown: list[str], rest: str, continuation: str, dialect: Dialect, together: bool
) -> None:
    """Without it, `60%` and the next state of a progress bar would stand side by side.

    A continuation begins wherever the part that was shown ends. Whether that part comes in the same batch or came
    long before, no text and no return of it may be taken to begin a line.
    """
    made, before = pipeline(dialect, RUN), b""
    for piece in shown:
        made.feed(upstream("stdout", {"data": piece}))
        before += made.flush()
    made.feed(upstream("stderr", {"line": "between"}))
    continued = made.feed(upstream("stdout", {"data": rest + "1\r2\n"}))
    first = 1 if together else 1 + len(shown)

    merged = dialect.merge(FrameIds(RUN), before + continued if together else continued, first, None)

    said = [json.loads(event.data or "") for event in parse(merged.data)]
    assert [body["line"] for body in said if body.get("partial")] == (shown if together else [])
    assert said[-1]["line"] == continuation + "\n2"


def test_a_line_that_holds_more_than_text_begins_a_new_one() -> None:
    """Only a partial line has a continuation."""
    _, frames = typed(("stdout", {"line": "a", "n": 1}), ("stdout", {"line": "1%\r2%"}), ("exit", {"exit_code": 0}))

    assert [body.get("line") for body in bodies(merge(frames, 5, None).data)] == ["a", "2%", None]


def test_no_more_events_than_wanted() -> None:
    """The rest is left for the next time, when there may be more to merge with."""
    _, frames = typed(*[(kind, {"line": kind}) for kind in ("stdout", "stdout", "stderr", "stdout")])

    assert merge(frames, 1, 0) == (b"", 0, 0, 0)
    first = merge(frames, 1, 2)
    rest = merge(frames[first.size :], 1 + first.frames, 2)
    assert (first.events, first.frames, rest.events, rest.frames) == (2, 3, 1, 1)
    assert [body["line"] for body in bodies(first.data + rest.data)] == ["stdout\nstdout", "stderr", "stdout"]


def test_verbatim_merges_nothing() -> None:
    """Its frames are the upstream's."""
    frames = b"data: 1\n\ndata: 2\n\ndata: 3\n\n"
    ids = FrameIds(None)

    assert VERBATIM.merge(ids, frames, 1, None) == first_frames(frames, None) == (frames, 3, 3, len(frames))
    assert VERBATIM.merge(ids, frames, 1, 2) == (frames[:18], 2, 2, 18)


texts = st.text(st.sampled_from('ab"\\\r\n{}:,\x00é\u2028😀'), max_size=8)
kinds = st.sampled_from(["stdout", "stdout", "stdout", "stderr"])
extras = st.sampled_from([{}, {}, {}, {"n": "1"}])


def lines_of(frames: bytes) -> Iterator[tuple[str, str]]:
    """Every line of text, with its stream, without what a terminal would no longer show of it."""
    for body in bodies(frames):
        for line in str(body.get("line", "")).split("\n"):
            yield body["type"], settle(line, starts=True)


@given(
    st.lists(st.tuples(kinds, texts, extras), min_size=1, max_size=12),
    st.one_of(st.none(), st.integers(1, 4)),
    st.sampled_from([RUN, None]),
)
def test_a_page_that_shows_what_it_gets_shows_the_same(
    lines: list[tuple[str, str, dict[str, str]]], most: int | None, run: str | None
) -> None:
    """Every line is there, in order, in its stream; ids go up to the last; neighbours of one stream are one event."""
    _, frames = typed(*[(kind, {"line": text, **extra}) for kind, text, extra in lines], run=run)
    number, rest, said, seen = 1, frames, b"", list[Event]()
    while rest:
        merged = merge(rest, number, most, run)
        assert merged.frames == rest[: merged.size].count(b"\n\n") > 0
        assert merged.events == merged.data.count(b"\n\n") <= (most or 10**6)
        number, rest, said = number + merged.frames, rest[merged.size :], said + merged.data
        seen += parse(merged.data)
        if run is not None:
            assert seen[-1].id == f"{run}.{number - 1}"

    assert list(lines_of(said)) == list(lines_of(frames))
    if most is None:
        plain = [set(body) == {"type", "line"} and body["type"] for body in bodies(said)]
        assert not any(one and one == other for one, other in pairwise(plain))
