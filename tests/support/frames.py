"""Upstream frames for tests of mapping: what platforms send, and oddities."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from sse_bridge.wire import events
from sse_bridge.wire.dialects import TYPED, Dialect
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.shapes import EXEC


def pipeline(dialect: Dialect = TYPED, run: str | None = None, limit: int | None = None) -> Pipeline:
    return Pipeline(dialect, EXEC, FrameIds(run), limit)


def typed(*upstream: str | bytes) -> list[Any]:
    """The objects that a page gets from these upstream frames, each in a chunk of its own."""
    made = pipeline()
    return objects(b"".join(made.feed(frame.encode() if isinstance(frame, str) else frame) for frame in upstream))


def objects(out: bytes) -> list[Any]:
    return [json.loads(event.data) for event in events.parse(out) if event.data is not None]


def frame(name: str, payload: object) -> str:
    data = payload if isinstance(payload, str) else json.dumps(payload)
    return (f"event: {name}\n" if name else "") + f"data: {data}\n\n"


texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\\", '"', "\\n", "a\nb", "\r", "\t", "\u2028", "\x85", '"}', '{"line":"', "\ud800", "\x7f"]),
)
bodies = st.one_of(
    texts.map(lambda text: {"line": text}),
    st.dictionaries(
        st.sampled_from(
            ["line", "data", "output", "type", "stream", "exit_code", "exitCode", "code", "partial", "error", "message"]
        ),
        texts | st.integers() | st.none() | st.floats() | st.sampled_from(["stdout", "stderr", "exit", "error", "gap"]),
        max_size=4,
    ),
)
payloads = st.one_of(
    st.builds(json.dumps, bodies, ensure_ascii=st.booleans(), separators=st.sampled_from([(",", ":"), (", ", ": ")])),
    texts,
    st.sampled_from(["{}", "null", "[1]", "3", '"x"', '{"line":"a","line":"b"}', '{"line":1e999}', "[" * 200, "NaN"]),
    st.sampled_from(['{"line":"raw\ttab"}', '{"line":"\\u000a"}', '{"line":"\\/"}', '{"line":"\\ud83d\\ude00"}']),
).map(lambda text: text.encode("utf-8", "surrogatepass"))  # lone surrogates: invalid UTF-8
heads = st.sampled_from(
    [
        b"event: stdout\n",
        b"event: stderr\n",
        b"event:stdout\n",
        b"",
        b"event: exit\n",
        b"event: error\n",
        b"event: ping\n",
        b"event: gap\n",
        b"event: \xff\n",
        b"xevent: stdout\n",
        b"id: 7\nevent: stdout\n",
        b": c\n",
        b"event: message\n",
        b"event: output\n",
        b"event: timeout\n",
    ]
)
loose_frames = st.builds(
    lambda head, colon, payload, tail: head + colon + payload.replace(b"\n", b"\ndata:") + tail + b"\n\n",
    heads,
    st.sampled_from([b"data: ", b"data:", b"data:  "]),
    payloads,
    st.sampled_from([b"", b"", b"", b"\nid: 9", b"\nevent: stderr"]),
)
plain_frames = st.builds(
    lambda kind, text: b'event: %b\ndata: {"line":"%b"}\n\n' % (kind, text),
    st.sampled_from([b"stdout", b"stderr"]),
    st.sampled_from([b"", b"x", b"a b c", "é\u2028".encode(), b'\\"', b"\\t", b"\\\\n", b"\xff", b"}"]),
)
endings = st.sampled_from([b"event: exit\ndata: 0\n\n", b"event: error\ndata: x\n\n"])
escapes = [b'\\"', b"\\\\", b"\\t", b"\\r", b"\\u001b[1m", b"\\ud83d\\ude00", b"\\ud800"]
line_ends = [b"\\n", b"\\u000d", b"\\u000A"]
no_json = [b"\\u12", b"\\x", b'"', b"\t", b"\\"]
escaped_frames = st.builds(
    lambda kind, texts: b'event: %b\ndata: {"line":"%b"}\n\n' % (kind, b"".join(texts)),
    st.sampled_from([b"stdout", b"stdout", b"stderr"]),
    st.lists(st.sampled_from([b"x", *escapes, *line_ends, *no_json]), max_size=4),
)
blank_lines = st.sampled_from([b"\n", b"\n\n"])
upstreams = st.lists(
    st.one_of(plain_frames, plain_frames, escaped_frames, escaped_frames, loose_frames, endings, blank_lines),
    max_size=8,
)
