"""The C twin: it says what Python says, for every input."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge import speedups
from sse_bridge.wire import events
from sse_bridge.wire.dialects import NAMED, TYPED, VERBATIM, Dialect
from sse_bridge.wire.frames import count_alike
from sse_bridge.wire.ids import Parts
from sse_bridge.wire.mapping import LineMapper
from sse_bridge.wire.shapes import EXEC
from tests.support import twins
from tests.support.frames import pipeline, upstreams

RUN = "Zk3vQ0x9bTnWf2Rq"
PREFIX = f"id: {RUN}.".encode()
OUT = b'event: stdout\ndata: {"line":"a"}\n\n'
ERR = OUT.replace(b"stdout", b"stderr")
ODD = b'event: stdout\ndata: {"line":"a","n":1}\n\n'

prefixes = st.sampled_from([None, PREFIX])
numbers = st.sampled_from([0, 1, 9, 98, 999, 10**18 - 2, 10**18]) | st.integers(0, 10**18)
limits = st.sampled_from([None, 1000, len(OUT), len(OUT) - 1, 10])
befores = st.sampled_from([b"", OUT, b"x" * 5000])
#: What a text may hold, and what it may not.
tokens = st.sampled_from(
    [
        *(
            b"x",
            b"a text that is longer than a stride ",
            b"\x7f",
            b"\x00",
            b"\x1f",
            b"\n",
            b"\n\n",
            b'"',
            b'"}',
            b'"}\n\n',
        ),
        *(
            b"\\",
            b"\\n",
            b"\\r",
            b"\\t",
            b"\\/",
            b"\\x",
            b"\\u",
            b"\\u000",
            b"\\u000a",
            b"\\u000D",
            b"\\u001b",
            b"\\uD83d",
        ),
        *(
            "é€😀".encode(),
            b"\xc3",
            b"\xe2\x82",
            b"\xf0\x9f\x98",
            b"\xc0\x80",
            b"\xc1\xbf",
            b"\xe0\x80\x80",
            b"\xe0\xa0\x80",
        ),
        *(
            b"\xed\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xf0\x80\x80\x80",
            b"\xf4\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf5",
            b"\xff",
        ),
        *(b"event: stdout\n", b'data: {"line":"', OUT, ERR, ODD),
    ]
)
streams = st.one_of(
    upstreams.map(b"".join),
    st.binary(max_size=60),
    st.lists(tokens, max_size=6).map(b"".join),
    st.lists(st.lists(tokens, max_size=3).map(lambda of: OUT.replace(b"a", b"".join(of))), max_size=4).map(b"".join),
)


HEADS = [dialect.mapper(EXEC, numbered=True).heads for dialect in (TYPED, NAMED)]


@pytest.fixture
def c() -> Any:
    """The extension."""
    return twins.compiled()


def test_frames_are_mapped_as_python_maps_them(c: Any) -> None:
    """Wherever it begins, it maps the same frames and stops at the same one."""

    @given(streams, st.integers(0, 80), st.sampled_from([*HEADS, {}]), prefixes, numbers, befores)
    def check(
        frames: bytes, start: int, heads: dict[bytes, bytes], prefix: bytes | None, first: int, before: bytes
    ) -> None:
        call = frames, min(start, len(frames)), heads, prefix, first, before
        assert c.map_frames(*call) == twins.map_frames(*call)

    check()


@pytest.mark.parametrize("twin", ["C", "model"])
def test_frames_are_counted_as_python_counts_them(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alike or not."""

    @given(streams | st.lists(st.sampled_from([OUT, ERR, b"a:b\n\n", b"a:\n\n", b"\n"])).map(b"".join))
    def check(frames: bytes) -> None:
        counts = []
        for way in (twin, "none"):
            twins.use(way, monkeypatch)
            counts.append(count_alike(frames + b"\n\n"))
        assert counts[0] == counts[1]

    check()


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """A stream in pieces: of these sizes, and what is left."""
    places = [*itertools.accumulate(sizes, initial=0), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(places)]


def text_frame(text: bytes) -> bytes:
    return b'event: stdout\ndata: {"line":"%b"}\n\n' % text


def test_characters_are_those_of_utf_8(c: Any) -> None:
    """Overlong forms, surrogates, what is above U+10FFFF, and characters that are cut off are none."""
    edges = [0x00, 0x22, 0x7F, 0x80, 0xBF, 0xC0, 0xFF]
    texts = [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    texts += [bytes(some) for some in itertools.product(range(0xC0, 256), range(0x7F, 0xC1), edges)]
    texts += [bytes(some) for some in itertools.product(range(0xEF, 0xF8), range(0x7F, 0xC1), edges, edges)]
    for text in texts:
        frame = text_frame(text)
        assert c.map_frames(frame, 0, HEADS[0], None, 1, b"") == twins.map_frames(frame, 0, HEADS[0], None, 1, b""), (
            text
        )


@pytest.mark.parametrize(
    "special",
    [
        *(bytes([byte]) for byte in [*range(0x20), *b'"\\', 0x7F, 0x80, 0xFF]),
        *(b'\\"', b"\\\\", b"\\u001b", b"\\u000a", b"\\u00", b"\\x", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"),
        *("é".encode(), "€".encode(), "😀".encode(), '\\"€\\u001b😀\\t'.encode(), b'\\"' * 20, b"\\u001b" * 9),
    ],
)
def test_what_is_not_ordinary_is_found_wherever_it_stands(c: Any, special: bytes) -> None:
    """A text is read in strides, and byte by byte in the end. It may end within one that stands across two."""
    for before, after in itertools.product(range(36), (0, 1, 40)):
        frame = text_frame(b"a" * before + special + b"b" * after)
        call = frame, 0, HEADS[0], PREFIX, 7, b""
        assert c.map_frames(*call) == twins.map_frames(*call)


@pytest.mark.parametrize("text", [b"", b"x" * 70, b"x" * 5000, b"\\u001b[1m" * 20, "\u00e9" * 30])
@pytest.mark.parametrize("first", [1, 95, 999_990, 10**18 - 5, 10**18])
def test_many_frames_are_mapped_and_counted_up(c: Any, text: bytes | str, first: int) -> None:
    """More than there is room for at first, and over every power of ten."""
    one = text_frame(text if isinstance(text, bytes) else text.encode())
    frames = (one + one.replace(b"stdout", b"stderr") * 2) * 300
    call = frames, 0, HEADS[0], PREFIX, first, b""
    assert c.map_frames(*call) == twins.map_frames(*call)
    assert c.map_frames(*call)[1] == 900


@pytest.mark.parametrize(
    "wrong",
    [
        *((), (OUT,), (OUT, 0, HEADS[0], None, 1), (OUT, 0, HEADS[0], None, 1, b"", 2)),
        *(("text", 0, HEADS[0], None, 1, b""), (bytearray(OUT), 0, HEADS[0], None, 1, b"")),
        *((OUT, 0.5, HEADS[0], None, 1, b""), (OUT, -1, HEADS[0], None, 1, b""), (OUT, 2**70, HEADS[0], None, 1, b"")),
        *((OUT, len(OUT) + 1, HEADS[0], None, 1, b""), (OUT, 0, HEADS[0], "", 1, b"")),
        *((OUT, 0, [], None, 1, b""), (OUT, 0, {1: b""}, None, 1, b""), (OUT, 0, {b"": 1}, None, 1, b"")),
        *((OUT, 0, HEADS[0], None, -1, b""), (OUT, 0, HEADS[0], None, 10**18 + 1, b"")),
        *((OUT, 0, HEADS[0], None, 2**64, b""), (OUT, 0, HEADS[0], None, 1, "text"), (OUT, 0, HEADS[0], None, 1, None)),
        (OUT, 0, {b"%d" % number: b"" for number in range(5)}, None, 1, b""),
        (OUT, 0, {b"x": b"y" * 113}, None, 1, b""),
        (OUT, 0, HEADS[0], b"y" * 113, 1, b""),
    ],
    ids=repr,
)
def test_wrong_arguments_are_errors(c: Any, wrong: tuple[Any, ...]) -> None:
    """Rather than the end of the process."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        c.map_frames(*wrong)


def test_no_call_keeps_memory(c: Any) -> None:
    """Whether it maps, stops or fails."""

    def work() -> None:
        for frames in (OUT * 50, ODD, OUT + ODD, b"", b"\n"):
            c.map_frames(frames, 0, HEADS[0], PREFIX, 5, OUT)
            c.count_alike(frames)
            c.join_chunks(b"5\r\nhello\r\n" + frames, 0)
        with suppress(ValueError):
            c.map_frames(OUT, 0, HEADS[0], PREFIX, 10**18 + 1, OUT)

    heads, counts = HEADS[0], []
    tracemalloc.start()
    try:
        work()
        before = tracemalloc.get_traced_memory()[0]
        counts.append([sys.getrefcount(of) for of in (OUT, heads, PREFIX, *heads, *heads.values())])
        for _ in range(1000):
            work()
        counts.append([sys.getrefcount(of) for of in (OUT, heads, PREFIX, *heads, *heads.values())])
        assert tracemalloc.get_traced_memory()[0] - before < 5000
    finally:
        tracemalloc.stop()
    assert counts[0] == counts[1]


# -- the pipeline with it, and without it


@pytest.mark.parametrize("dialect", [TYPED, NAMED, VERBATIM], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("twin", ["C", "model"])
def test_a_run_is_the_same_with_and_without_it(twin: str, dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, numbers, discards and state, whatever arrives, wherever it is cut, and however large frames may be."""

    @given(st.lists(streams, max_size=4), st.lists(st.integers(0, 150), max_size=4), prefixes, limits)
    def check(parts: list[bytes], cuts: list[int], prefix: bytes | None, limit: int | None) -> None:
        chunks = [*parts, *cut(b"".join(parts), cuts)]
        outcomes = []
        for way in (twin, "none"):
            twins.use(way, monkeypatch)
            made = pipeline(dialect, RUN if prefix else None, limit)
            out = [(made.feed(chunk), list(made.discards)) for chunk in chunks]
            state = made.next, made.finished, made.exited, made.unfinished, made.is_amid_frame
            outcomes.append((out, state, made.fail("lost", "It broke.")))
        assert outcomes[0] == outcomes[1]

    check()


@pytest.mark.parametrize(
    ("frames", "slow"),
    [
        (OUT * 3, []),
        (OUT + ODD + ERR, [ODD]),
        (ODD + OUT, [ODD]),
        (OUT + ODD, [ODD]),
        (OUT + ODD + b"\n" + OUT + ODD + OUT, [ODD, ODD]),
        (OUT + ODD * 3 + OUT, [ODD, ODD * 2 + OUT]),
    ],
)
@pytest.mark.parametrize("twin", ["C", "model"])
def test_one_odd_frame_leaves_the_others_to_the_twin(
    twin: str, frames: bytes, slow: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two in a row, the second goes the slow way together with all that follows it."""
    twins.use(twin, monkeypatch)
    seen: list[bytes] = []
    slow_map = LineMapper.map

    def noted(self: LineMapper, some: bytes) -> Parts:
        seen.append(some)
        return slow_map(self, some)

    monkeypatch.setattr(LineMapper, "map", noted)
    made = pipeline(TYPED, RUN).feed(frames)

    assert [some for some in seen if some] == slow
    assert [event.id for event in events.parse(made)] == [f"{RUN}.{n + 1}" for n in range(frames.count(b"data"))]


@pytest.mark.parametrize("twin", ["C", "model", "none"])
def test_an_unfinished_line_keeps_plain_ones_behind_it(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one chunk, too: the twin does not go on where the beginning of a line is held back."""
    twins.use(twin, monkeypatch)
    held = b'event: stdout\ndata: {"data":"half"}\n\n'
    assert texts_of(pipeline(TYPED).feed(OUT + held + OUT + OUT)) == ["a", "half", "a", "a"]


def texts_of(out: bytes) -> list[str]:
    return [json.loads(event.data or "")["line"] for event in events.parse(out)]


# -- the choice


def reason(*, pure: str, without: bool = False) -> str:
    """What a new process says of its choice."""
    hide = "import sys; sys.modules['sse_bridge._speedups'] = None; " if without else ""
    code = hide + "from sse_bridge import speedups as s; print(s.IN_USE, s.map_frames is not None, s.REASON)"
    environment = {**os.environ, speedups.PURE: pure}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_the_environment_chooses(c: Any) -> None:
    """Once, for all of the process."""
    assert reason(pure="1") == "False False Python, because SSE_BRIDGE_PURE is set\n"
    assert reason(pure="0") == reason(pure="") == "True True C\n"


def test_without_the_extension_python_does_the_work() -> None:
    """The package works, and says why."""
    assert reason(pure="", without=True).startswith("False False Python, because the extension cannot be imported (")
