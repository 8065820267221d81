"""`FrameSplitter`: any cut gives the same frames, memory is bounded, and a browser dispatches the same events."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire import events, frames
from sse_bridge.wire.frames import Discard, FrameSplitter, canonical, count_alike

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("sse-vectors.json").read_text())


def deliveries(stream: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """One stream, cut in all the ways a network might: whole, byte by byte, at random, with empty chunks."""
    yield "whole", [stream]
    yield "bytes", [stream[i : i + 1] for i in range(len(stream))]
    if len(stream) < 500:
        yield from ((f"cut at {i}", [stream[:i], stream[i:]]) for i in range(1, len(stream)))
    for seed in range(5):
        yield f"random {seed}", random_cuts(stream, random.Random(seed))


def random_cuts(stream: bytes, rng: random.Random) -> list[bytes]:
    chunks = []
    while stream:
        size = rng.choice((0, 1, 2, 3, 7, 50, 1000))
        chunks.append(stream[:size])
        stream = stream[size:]
    return chunks


class Dispatched:
    """What an `EventSource` would dispatch from whole frames (9.2.6), and the state it would be left with."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        splitter = FrameSplitter(None)
        self.events: list[dict[str, Any]] = []
        self.last_event_id = ""
        self.retry: int | None = None
        for chunk in chunks:
            for event in events.parse(splitter.feed(chunk)):
                self._take(event)
        # The last block is not dispatched, but its `retry` lines count as soon as they end.
        self._keep_retry(events.parse_frame(splitter.lines))

    def _take(self, event: events.Event) -> None:
        self._keep_retry(event)
        self.last_event_id = event.id if event.id is not None else self.last_event_id
        if event.data is not None:
            dispatched = {"event": event.type, "data": event.data, "id": self.last_event_id, "retry": event.retry}
            self.events.append(dispatched)

    def _keep_retry(self, event: events.Event) -> None:
        self.retry = event.retry if event.retry is not None else self.retry


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_public_vectors_dispatch_the_same_under_any_cut(vector: dict[str, Any]) -> None:
    """Each of the 165 public cases gives its expected events, however it is cut."""
    stream = base64.b64decode(vector["input_b64"])

    for name, chunks in deliveries(stream):
        seen = Dispatched(chunks)

        assert vector["expected"] == seen.events, name
        assert vector["final_retry"] == seen.retry, name
        assert vector["final_last_event_id"] == seen.last_event_id, name


pieces = st.sampled_from(
    [
        b"data",
        b"event",
        b"id",
        b"retry",
        b":",
        b" ",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"x",
        b"\xef\xbb\xbf",
        "\u2028".encode(),
        "\x85".encode(),
        b"\x0b",
        b"\x0c",
        b"\x1c",
        b"\x00",
        b"\xff",
        b"7",
        b"\xf0\x9f",
    ]
)
streams = st.lists(pieces, max_size=40).map(b"".join)
limits = st.one_of(st.none(), st.integers(1, 30))


@given(streams, st.lists(st.integers(0, 100), max_size=12), limits)
def test_cuts_never_change_frames_or_discards(stream: bytes, cuts: list[int], limit: int | None) -> None:
    """Canonical frames, discards and what is pending depend on the bytes alone."""
    whole = FrameSplitter(limit)
    expected = whole.feed(stream)
    splitter = FrameSplitter(limit)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    out, discards = b"", []
    for start, stop in itertools.pairwise(bounds):
        fed = splitter.feed(stream[start:stop])
        discards += [(len(out) + len(canonical(fed[: one.offset])), *one[1:]) for one in splitter.discards]
        out += canonical(fed)

    assert canonical(expected) == out
    assert [(len(canonical(expected[: one.offset])), *one[1:]) for one in whole.discards] == discards
    assert whole.discarded_frames == splitter.discarded_frames == len(discards)
    assert whole.discarded_bytes == splitter.discarded_bytes == sum(size for _, size, _ in discards)
    assert whole.pending == splitter.pending


@given(streams)
def test_frames_are_canonical(stream: bytes) -> None:
    """Lines end in LF, frames have content and end in exactly one blank line; feeding them again gives the same."""
    fed = FrameSplitter(None).feed(stream)
    out = canonical(fed)

    assert b"\r" not in fed
    assert b"\n\n\n" not in out
    assert out == b"" or (out.endswith(b"\n\n") and not out.startswith(b"\n"))
    assert out == b"".join(frame + b"\n\n" for frame in frames.split(out))
    if not out.startswith(b"\xef\xbb\xbf"):
        assert out == FrameSplitter(None).feed(out)


heads = st.sampled_from([b"data:", b"event: a\ndata: ", b"event: b\ndata: ", b"id\ndata:", b": c", b"data", b"x:\ny:"])
rests = st.sampled_from([b"", b"1", b"2:3", b"\n\ndata:4", b"\ndata: 5", b"\n"])


@given(st.lists(st.tuples(heads, rests), min_size=1, max_size=6) | st.lists(st.tuples(st.just(b"a:\nb:"), rests)))
def test_frames_that_begin_alike_are_counted_by_their_beginning(parts: list[tuple[bytes, bytes]]) -> None:
    """A count is right or zero; and where frames differ only in the last line's value, they are counted."""
    fed = FrameSplitter(None).feed(b"".join(head + rest + b"\n\n" for head, rest in parts))
    if not fed:
        return

    count = count_alike(fed)

    assert count in (0, len(frames.split(canonical(fed))))
    assert not count or fed == canonical(fed)
    if len({head for head, _ in parts}) == 1 and b":" in parts[0][0] and not any(b"\n" in rest for _, rest in parts):
        assert count == len(parts)


@given(streams, st.integers(1, 30))
def test_what_is_delivered_and_what_is_discarded_is_what_came(stream: bytes, limit: int) -> None:
    """A limit takes away exactly the frames that are larger, and says where they stood."""
    everything = frames.split(canonical(FrameSplitter(None).feed(stream)))
    splitter = FrameSplitter(limit)

    kept = splitter.feed(stream)

    assert frames.split(canonical(kept)) == [frame for frame in everything if len(frame) + 2 <= limit]
    offset, expected = 0, []
    for frame in everything:
        if len(frame) + 2 > limit:
            expected.append((offset, len(frame) + 2))
        else:
            offset += len(frame) + 2
    assert [one[:2] for one in splitter.discards] == expected
    assert len(splitter.pending) <= limit


def test_one_byte_order_mark_is_stripped_and_only_at_the_start() -> None:
    """9.2.5: one leading BOM goes, whole or in pieces; a second one, or one later, is data."""
    bom = b"\xef\xbb\xbf"
    for _, chunks in deliveries(bom + bom + b"data:1\n\n" + bom + b"data:2\n\n"):
        splitter = FrameSplitter()

        assert b"".join(map(splitter.feed, chunks)) == bom + b"data:1\n\n" + bom + b"data:2\n\n"


def test_a_lone_crlf_is_not_a_blank_line() -> None:
    """CRLF is one line end even when the chunk ends between its halves."""
    for _, chunks in deliveries(b"data:1\r\ndata:2\r\n\r\ndata:3\r\rdata:4\n\r\n"):
        splitter = FrameSplitter()

        assert b"".join(map(splitter.feed, chunks)) == b"data:1\ndata:2\n\ndata:3\n\ndata:4\n\n"


def test_a_frame_that_ends_in_cr_is_not_delayed() -> None:
    """The second CR ends the frame at once, although an LF may follow."""
    splitter = FrameSplitter()

    assert splitter.feed(b"data:1\r\r") == b"data:1\n\n"
    assert splitter.feed(b"\ndata:2\n\n") == b"data:2\n\n"


def test_a_chunk_of_whole_frames_is_handed_on_without_a_copy() -> None:
    """In the normal case the very object that came in goes out."""
    splitter = FrameSplitter()
    splitter.feed(b"data:0\n\n")
    chunk = b"data:1\n\ndata:2\n\n"

    assert splitter.feed(chunk) is chunk


def test_a_huge_frame_is_discarded_in_bounded_memory_and_the_next_arrives() -> None:
    """100 MB in one frame take at most the limit and a chunk."""
    splitter = FrameSplitter(1024)
    chunk = b"x" * 65536
    splitter.feed(b"data: ")

    for _ in range(1600):
        assert splitter.feed(chunk) == b""
        assert len(splitter.pending) <= 1024
    out = splitter.feed(b"\n\ndata: next\n\n")

    assert out == b"data: next\n\n"
    assert splitter.discards == [Discard(0, len("data: ") + 1600 * 65536 + 2, b"data: " + b"x" * 1000 + b"\n")]
    assert splitter.feed(b"data: more\n\n") == b"data: more\n\n"
    assert not splitter.discards


def test_several_may_be_discarded_at_once() -> None:
    """Each in its place."""
    splitter = FrameSplitter(10)

    assert splitter.feed(b"data: too large\n\ndata: a\n\ndata: too large as well\n\n") == b"data: a\n\n"
    assert [one[:2] for one in splitter.discards] == [(0, 17), (9, 25)]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_must_be_positive(limit: int) -> None:
    """`None` switches the limit off; a limit of zero would discard every frame."""
    with pytest.raises(ValueError, match="max_frame_size"):
        FrameSplitter(limit)


def test_an_oversized_frame_among_others_is_taken_out_of_its_chunk() -> None:
    """What stands before and after it stays, extra blank lines go, and its place is known."""
    splitter = FrameSplitter(10)

    assert splitter.feed(b"data: 1\n\n\n\ndata: 22222\n\ndata: 3\n\n") == b"data: 1\n\ndata: 3\n\n"
    assert splitter.discards == [Discard(9, 13, b"data: 22222\n")]


def test_an_oversized_frame_may_end_on_a_cut() -> None:
    """The blank line that ends the discarding may straddle chunks, with empty ones in between."""
    splitter = FrameSplitter(4)

    out = [splitter.feed(chunk) for chunk in (b"data: x", b"yz", b"", b"\n", b"", b"\ndata", b": long\n", b"\n:\n\n")]

    assert out == [b"", b"", b"", b"", b"", b"", b"", b":\n\n"]
    assert splitter.discarded_bytes == len("data: xyz\n\n") + len("data: long\n\n")


def test_at_the_end_of_the_stream_the_beginning_of_a_frame_is_no_frame() -> None:
    """9.2.6: it is dropped, and its memory is freed."""
    splitter = FrameSplitter(None)
    splitter.feed(b"data: whole\n\ndata: cut" + b"x" * 1000)
    splitter.close()

    assert splitter.pending == b""
