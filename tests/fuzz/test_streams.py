"""Half a million event streams of a broken or hostile upstream, in every dialect."""

from __future__ import annotations

import json
import random
from typing import Final

import pytest

from sse_bridge.wire import events
from sse_bridge.wire.dialects import DIALECTS, Dialect
from sse_bridge.wire.ids import FrameIds, read_place
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.shapes import EVENT_STREAM, EXEC, HOST_JOB, Shape
from tests.support.mutations import Mutator, cut, inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

RUN: Final = "Zk3vQ0x9bTnWf2Rq"
#: As many for each of the three shapes.
INPUTS, SECONDS = 250_000, 120

STREAMS = Mutator(
    [
        b'event: stdout\ndata: {"line":"a"}\n\n' * 3 + b'event: exit\ndata: {"exit_code":0}\n\n',
        b'event: stderr\ndata: {"line":"\\u001b[31mred\\u001b[0m\\r"}\n\n'
        b'event: exit\ndata: {"exit_code":-2,"error":{}}\n\n',
        b'event: stdout\ndata: {"text":"one\\ntwo"}\n\n: running\n\nevent: stdout\ndata: {"data":"\\nthree"}\n\n',
        b'data: {"type":"output","output":"x","stream":"stderr"}\n\ndata: {"error":{"code":"E","message":"m"}}\n\n',
        b"id: 7\r\nevent: log\r\ndata: a\r\ndata: b\r\n\r\nretry: 5\r\n\r\ndata: [DONE]\r\n\r\n",
        b'event: error\ndata: {"ok":false,"error":"busy"}\n\nevent: exit\ndata: 3\n\n',
        b'data: {"exit_code":1,"cpu":NaN}\n\n' + b'event: stdout\ndata: {"line":"' + b"x" * 90 + b'"}\n\n',
        b'event: exit\ndata: {"pad":"' + b"y" * 300 + b'","exit_code":5}\n\n',
    ],
    [
        *(
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"\r\r",
            b"\xef\xbb\xbf",
            b"\x00",
            b":",
            b": c\n",
            b"data",
            b"data:",
            b"id: 9\n",
        ),
        *(
            b'"',
            b"\\",
            b"\\u",
            b"\\n",
            b"\\ud800",
            b"\xff",
            b"\xe2\x80\xa8",
            b"{",
            b"}",
            b"[" * 300,
            b",",
            b"1e999",
            b"null",
        ),
        *(b"event: exit\n", b"event: stdout\n", b"event: error\n", b"event: timeout\n", b"event: output\n"),
        *(b'"exit_code":0', b'"code":429', b'"error":{}', b'"text":"t"', b'"line":1', b'"data":"p"', b'"type":"exit"'),
        *(b'event: stdout\ndata: {"line":"b"}\n\n', b'event: exit\ndata: {"exit_code":7}\n\n', b"retry: 10\n"),
    ],
)


@pytest.mark.parametrize("shape", [EXEC, EVENT_STREAM, HOST_JOB], ids=["exec", "event_stream", "host_job"])
def test_every_stream_becomes_frames_that_browsers_read(shape: Shape) -> None:
    """Whatever arrives, and however it is cut: whole frames, numbered without a hole, the same for every cut, and at
    most one terminal frame, as the last.
    """
    names = sorted(DIALECTS)
    for rng in inputs(INPUTS, seconds=SECONDS):
        stream, dialect = STREAMS.make(rng), DIALECTS[rng.choice(names)]
        limit = rng.choice([None, None, 120])
        whole = made(dialect, shape, limit, [stream])
        pieces = cut(rng, stream)
        assert made(dialect, shape, limit, pieces) == whole, (pieces, dialect, limit)
        check(whole, dialect, stream)
        assert_flushes_are_harmless(rng, dialect, shape, stream, pieces)


def made(dialect: Dialect, shape: Shape, limit: int | None, pieces: list[bytes]) -> tuple[bytes, int, bool, bool]:
    pipeline = Pipeline(dialect, shape, FrameIds(RUN), limit)
    out = b"".join(map(pipeline.feed, pieces))
    out += pipeline.fail("lost", "It broke.")
    state = pipeline.next, pipeline.finished, pipeline.exited
    pipeline.close()
    return out, *state


def check(whole: tuple[bytes, int, bool, bool], dialect: Dialect, stream: bytes) -> None:
    out, following, _, _ = whole
    assert b"\r" not in out, stream
    assert not out or out.endswith(b"\n\n"), stream
    found = list(events.parse(out))
    numbers = [place.number for event in found if (place := read_place(event.id or "")) is not None]
    assert numbers == list(range(1, following)), stream
    if dialect.has_own_frames:
        kinds = [kind_of(event) for event in found]
        assert kinds[-1] in ("exit", "error"), (stream, kinds)
        assert not {"exit", "error"} & {*kinds[:-1]}, (stream, kinds)


def kind_of(event: events.Event) -> str:
    body = json.loads(event.data or "null")
    assert isinstance(body, dict)
    return str(body.get("type", event.type))


def assert_flushes_are_harmless(
    rng: random.Random, dialect: Dialect, shape: Shape, stream: bytes, pieces: list[bytes]
) -> None:
    """An unfinished line may be shown at any time. The run's end is the same, and the text as well.

    Two streams of the upstream that are one for the page, such as `output` and `stdout`, may take turns differently.
    """
    if not dialect.has_own_frames:
        return
    plain, flushed = (Pipeline(dialect, shape, FrameIds(None), None) for _ in range(2))
    texts: list[dict[str, str]] = []
    for pipeline, does_flush in ((plain, False), (flushed, True)):
        out = b""
        for piece in pieces:
            out += pipeline.feed(piece)
            if does_flush and rng.random() < 0.5:
                out += pipeline.flush()
        texts.append(text_of(out + pipeline.fail("lost", "It broke.")))
    if b"output" in stream or b'"stream"' in stream:
        texts = [{kind: "".join(sorted(text.replace("\n", ""))) for kind, text in one.items()} for one in texts]
    assert texts[0] == texts[1], stream
    assert plain.exited == flushed.exited, stream


def text_of(out: bytes) -> dict[str, str]:
    """The text of each stream, with partial lines joined to what continues them."""
    text = {"stdout": "", "stderr": ""}
    for event in events.parse(out):
        body = json.loads(event.data or "null")
        kind = body.get("type", event.type)
        if kind in text:
            text[kind] += body["line"] + ("" if body.get("partial") is True else "\n")
    return text
