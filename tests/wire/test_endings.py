"""`shapes`: only facts end a run, and what a script printed is output whatever it looks like.

The kinds of fault: an exit or an error that was written otherwise than expected is read as a line, or as nothing; data
that share a word with an exit end the run; output without the expected key becomes an empty line.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.dialects import TYPED, VERBATIM
from sse_bridge.wire.events import Event
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.shapes import EVENT_STREAM, EXEC, Exit, Failure, Other, Output, Shape, read
from tests.support.frames import frame, objects, typed

SHAPES = pytest.mark.parametrize("shape", [EXEC, EVENT_STREAM], ids=["exec", "event_stream"])
OUTPUTS = ["stdout", "stderr", "output", "chunk", "exec_chunk", "log", "sandbox.exec.stdout", "sandbox.exec.stderr"]


def followed(*frames: str) -> list[Any]:
    """What a page gets of an event stream that is no command's."""
    made = Pipeline(TYPED, EVENT_STREAM, FrameIds(None), None)
    return objects(b"".join(made.feed(one.encode()) for one in frames))


# -- exits


@pytest.mark.parametrize("before", [0, 5000])
@pytest.mark.parametrize("field", ["database: 4", "data2", "data-x:5"])
def test_only_a_data_field_carries_the_ending_of_verbatim_frames(field: str, before: int) -> None:
    """Another may begin with the same letters. Of a large chunk, only the end is kept."""
    made = Pipeline(VERBATIM, EVENT_STREAM, FrameIds(None), None)
    made.feed(
        b"data: x\n\n" * before
        + f'event: error\ndata: {{"error":"disk full"}}\n{field}\n\nevent: log\n{field}\n\n'.encode()
    )

    assert isinstance(made.ending, Failure)


@SHAPES
@pytest.mark.parametrize(
    "name", ["", "message", "complete", "done", "exec_result", "ping", "error", "exit", "sandbox.exec.completed"]
)
@pytest.mark.parametrize("key", ["exit_code", "exitCode"])
@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("0", 0),
        ("3", 3),
        ("-15", -15),
        ("3.0", 3),
        ('"3"', 3),
        ('" 3 "', 3),
        ('"3.0"', 3),
        ("9007199254740993", 2**53 + 1),
        ("1e2", 100),
    ],
)  # fmt: skip
def test_an_exit_code_says_exit_whatever_the_event_is_called(
    name: str, key: str, value: str, code: int, shape: Shape
) -> None:
    """In a body, too, whose `type` is something else."""
    for text in (f'{{"{key}":{value}}}', f'{{"ms":12,"{key}":{value},"type":"whatever"}}'):
        said = read(Event(name or "message", text), shape)

        assert isinstance(said, Exit)
        assert said.body["code"] == code


@pytest.mark.parametrize(
    "value", ["null", "true", "false", '"3.5"', "3.5", '"three"', "[3]", '{"code":3}', "1e999", '""']
)
def test_what_is_no_number_is_no_exit_code(value: str) -> None:
    """The exit of a killed process lacks a number, if the event is unnamed or is called an exit."""
    text = f'{{"exit_code":{value}}}'

    for name in ("message", "exit"):
        assert read(Event(name, text), EXEC) == Exit(_without_infinity({"code": None, "exit_code": json.loads(value)}))
    assert isinstance(read(Event("complete", text), EXEC), Other | Output)


def _without_infinity(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value != float("inf")}


@pytest.mark.parametrize(("text", "code"), [("6", 6), (" 6 ", 6), ('"6"', 6), ("6.0", 6), ("-9", -9), ("bye", None)])
def test_a_plain_exit_may_be_a_number(text: str, code: int | None) -> None:
    """Under the event's name, text is the code."""
    (said,) = typed(frame("exit", text))

    assert (said["type"], said["code"]) == ("exit", code)


NEIGHBOURS = [
    '"cpu":NaN',
    '"cpu":Infinity',
    '"cpu":-Infinity',
    '"cpu":1e999',
    '"n":' + "9" * 5000,
    '"a":1,"a":2',
    '"x":"\\ud800"',
    '"x":"\\udc00\\ud800"',
    '"x":' + "[" * 150 + "]" * 150,
    '"x":' + '{"y":' * 20_000 + "0" + "}" * 20_000,
    '"x":"raw\ttab"',
    '"x":"\\q"',
    '"x":"\\u12"',
    '"x":undefined',
    '"x":{"exit_code":7}',
    '"x":"\\"exit_code\\":7"',
    '"x":0x10',
    '"x":"' + "y" * 70_000 + '"',
    '"exit":7,"code":8',
]


@SHAPES
@pytest.mark.parametrize("name", ["exit", "", "complete"])
@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=range(len(NEIGHBOURS)))
def test_an_exit_code_survives_its_neighbours(neighbour: str, name: str, shape: Shape) -> None:
    """On either side."""
    for text in (f'{{"exit_code":3,{neighbour}}}', f'{{{neighbour},"exit_code":3}}'):
        said = read(Event(name or "message", text), shape)

        assert isinstance(said, Exit)
        assert said.body["code"] == 3


@pytest.mark.parametrize("odd", [b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_an_exit_code_survives_bytes_that_are_no_text(odd: bytes) -> None:
    """In a string, in a key, and where JSON has no place for them."""
    for data in (b'{"exit_code":3,"x":"%b"}', b'{"%b":1,"exit_code":3}', b'{"exit_code":3,"x":%b}'):
        (said,) = typed(b"event: exit\ndata: " + data % odd + b"\n\n")
        assert said["code"] == 3
        (said,) = typed(b"data: " + data % odd + b"\n\n")
        assert said["code"] == 3


def test_a_named_exit_counts_even_if_its_object_is_broken() -> None:
    """An unnamed one is text."""
    broken = '{"exit_code":3,"x":'

    assert typed(frame("exit", broken)) == [{"type": "exit", "code": 3}]
    assert typed(frame("", broken)) == [{"type": "stdout", "line": broken}]
    assert typed(frame("error", '{"message":"lost","code":"X",')) == [{"type": "error", "code": "X", "message": "lost"}]
    assert typed(frame("timeout", '{"x":NaN}')) == [{"type": "exit", "code": -1, "timed_out": True}]


@SHAPES
@pytest.mark.parametrize(
    "data",
    [
        '{"type":"exit","data":{"exit_code":3}}',
        '{"type":"exit","data":{"status":3}}',
        '{"type":"exit","data":[{"exit_code":3}]}',
        '{"type":"exit","data":"{\\"exit_code\\":3}"}',
        '{"type":"exit","data":3}',
        '{"type":"exit","data":"3"}',
        '{"type":"exit","data":{},"result":{"code":3}}',
        '{"type":"exit","data":{"result":{"exit_code":3}}}',
        '{"type":"exit","status":3}',
        '{"type":"exit","exit_status":"3"}',
        '{"type":"exit","returncode":3.0,"exit_code":null}',
        '[{"exit_code":3}]',
        "[3]",
        '"{\\"exit_code\\":3}"',
        '"3',
        '\ufeff{"exit_code":3}',
        '\ufeff {"exit_code":3,"cpu":NaN}',
        "\ufeff3",
    ],
)
def test_an_event_that_is_called_an_exit_has_its_code_found(data: str, shape: Shape) -> None:
    """The kind of fault: the code is there, somewhere else than in frames seen so far, and the page gets null."""
    for name in ("exit", "exec_result", "message") if "type" in data else ("exit", "exec_result"):
        said = read(Event(name, data), shape)

        assert isinstance(said, Exit)
        assert said.body["code"] == 3


@pytest.mark.parametrize(
    "body",
    [{"data": {"x": 1}}, {"status": "failed"}, {"data": "gone"}, {"data": [{"exit_code": 3}, 4]}, {"result": "[" * 9}],
)
def test_an_exit_without_a_code_stays_one(body: dict[str, Any]) -> None:
    """All that it holds arrives."""
    assert read(Event("exit", json.dumps(body)), EXEC) == Exit({"code": None, **body})


@pytest.mark.parametrize("name", ["message", "complete"])
@pytest.mark.parametrize("body", [{"status": 3}, {"returncode": 3}, {"result": {"exit_code": 3}}])
def test_only_an_event_that_is_called_an_exit_is_searched(name: str, body: dict[str, Any]) -> None:
    """Elsewhere these words may mean anything."""
    assert not isinstance(read(Event(name, json.dumps(body)), EXEC), Exit)


# -- exits that are none


@SHAPES
@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("exit", {"exit_code": None, "error": "agent disconnected"}, "agent disconnected"),
        ("exit", {"error": "agent disconnected"}, "agent disconnected"),
        ("exit", {"data": {"exit_code": None, "error": "agent disconnected"}}, "agent disconnected"),
        ("exit", {"data": {"error": "agent disconnected"}}, "agent disconnected"),
        ("exec_result", {"result": [{"error": {"message": "agent disconnected"}}]}, "agent disconnected"),
        ("exec_result", {"code": "?", "error": "no sandbox"}, "no sandbox"),
        ("message", {"error": "Sandbox was terminated", "exitCode": None}, "Sandbox was terminated"),
        ("message", {"type": "exit", "error": "lost it"}, "lost it"),
        ("timeout", {"exit_code": -2, "error": {"code": "X", "message": "m"}}, "m"),
        ("timed_out", {"exit_code": "-2", "error": "lost it"}, "lost it"),
        ("timeout", {"code": -2, "exit_code": None, "message": "lost it"}, "lost it"),
    ],
)
def test_an_exit_that_names_an_error_instead_of_a_code_is_an_error(
    name: str, body: dict[str, Any], message: str, shape: Shape
) -> None:
    """The kind of fault: the upstream says in words that it lost the command, and the command is not looked for."""
    said = read(Event(name, json.dumps(body)), shape)

    assert isinstance(said, Failure)
    assert said.body["message"] == message


ERROR = {"code": "STREAM_LOST", "message": "The agent is gone.", "retryable": True, "request_id": "r"}


@SHAPES
@pytest.mark.parametrize("name", ["exit", "", "complete"])
@pytest.mark.parametrize(
    "body",
    [
        {"exit_code": -2, "error": ERROR},
        {"exit_code": -2},
        {"exitCode": "-2"},
        {"exit_code": -2.0, "timed_out": True},
        {"exit_code": 0, "error": ERROR},
        {"exit_code": -1, "error": ERROR},
        {"exit_code": None, "error": ERROR},
    ],
)
def test_the_failure_of_a_stream_is_an_error(name: str, body: dict[str, Any], shape: Shape) -> None:
    """The command may run on, so it has to be looked for and ended."""
    if name == "complete" and body["exit_code" if "exit_code" in body else "exitCode"] is None:
        return
    said = read(Event(name or "message", json.dumps(body)), shape)

    assert isinstance(said, Failure)
    if "error" in body:
        assert (said.body["code"], said.body["message"]) == (ERROR["code"], ERROR["message"])


@SHAPES
def test_a_failure_is_seen_behind_many_members_that_no_browser_would_read(shape: Shape) -> None:
    """All that is kept of them leaves room for the error."""
    members = "".join(f'"key{number}":"{"x" * 90}",' for number in range(200))
    said = read(Event("exit", f'{{"cpu":NaN,{members}"exit_code":0,"error":{json.dumps(ERROR)}}}'), shape)

    assert isinstance(said, Failure)
    assert (said.body["code"], said.body["message"]) == (ERROR["code"], ERROR["message"])


@pytest.mark.parametrize(
    "body",
    [
        {"exit_code": 1, "error": "exit status 1"},
        {"exit_code": 0, "error": None},
        {"exit_code": 0, "error": {}},
        {"error": " "},
    ],
)
def test_an_exit_with_a_word_about_it_is_an_exit(body: dict[str, Any]) -> None:
    """Runners add the text of their own error to any code but zero."""
    assert isinstance(read(Event("exit", json.dumps(body)), EXEC), Exit)


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("exit", {"exit_code": -1, "timed_out": True}, -1),
        ("", {"exit_code": -1, "timed_out": True}, -1),
        ("timeout", {}, -1),
        ("timed_out", {"exit_code": 124}, 124),
        ("timeout", {"error": ERROR}, -1),
    ],
)
def test_a_timeout_is_an_exit(name: str, body: dict[str, Any], code: int) -> None:
    """The platform has ended the command."""
    (said,) = typed(frame(name, body))

    assert (said["type"], said["code"], said["timed_out"]) == ("exit", code, True)


@SHAPES
@pytest.mark.parametrize(
    "body", [{"code": 200, "data": {"x": 1}}, {"code": 0}, {"code": 7}, {"exit": 0}, {"exit": "left"}, {"status": 0}]
)
def test_a_code_alone_is_no_exit(body: dict[str, Any], shape: Shape) -> None:
    """Only in an event that is called an exit. Elsewhere it may be anything, and it is no empty line either."""
    said = read(Event("message", json.dumps(body)), shape)

    assert said == Other("message", body)


# -- output


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    "printed",
    [
        '{"exit_code":7}',
        '{"exitCode": 0, "ok": true}',
        '{"error":{"code":"X","message":"m"}}',
        '{"type":"exit","code":3}',
        '{"type":"error","message_":"m"}',
        '{"level":"info","msg":"hi"}',
        '{"cpu_percent":1.5,"mem_mb":128}',
        '{"loss":NaN,"step":3}',
        '{"a":' * 150 + "0" + "}" * 150,
        '{"line":null}',
        '{"data":{"x":1}}',
        "{}",
        '{"stream":"stderr","n":1}',
        "[1,2]",
        "null",
        "7",
        '"x"',
        "{broken",
        "[DONE]",
        "words",
    ],
)  # fmt: skip
def test_what_a_script_printed_is_shown_as_it_stands(name: str, printed: str) -> None:
    """Whatever its keys are, it ends nothing and is no empty line."""
    stream = "stderr" if name.endswith("stderr") else "stdout"

    assert typed(frame(name, printed)) == followed(frame(name, printed)) == [{"type": stream, "line": printed}]


def test_json_that_a_script_logged_is_shown_as_it_stands() -> None:
    """A `message` is a log's line only where the object names its stream, or the event is called a log."""
    printed = '{"message":"hi","level":"info"}'

    for name in ("stdout", "output"):
        assert typed(frame(name, printed)) == [{"type": "stdout", "line": printed}]
    for one in (frame("log", printed), frame("", printed)):
        assert typed(one) == followed(one) == [{"type": "stdout", "line": "hi", "level": "info"}]
    for name in ("stdout", "log", "", "message"):
        said = frame(name, {"message": "hi", "stream": "stderr", "timestamp": "t"})
        assert typed(said) == [{"type": "stderr", "line": "hi", "stream": "stderr", "timestamp": "t"}]


@pytest.mark.parametrize("name", ["stdout", "output", "", "chunk"])
def test_text_is_a_chunk_of_output(name: str) -> None:
    """Of the platform's newer runners: it may hold many lines, a part of one, or no text at all."""
    assert typed(frame(name, {"text": "one\ntwo\n"})) == [{"type": "stdout", "line": one} for one in ("one", "two")]
    assert typed(frame(name, {"text": "o"}), frame(name, {"text": "ne\n"})) == [{"type": "stdout", "line": "one"}]
    assert typed(frame(name, {"text": "\n\n"})) == [{"type": "stdout", "line": ""}] * 2
    for key in ("text", "data", "output"):
        assert typed(frame(name, {key: ""}), frame(name, {key: "", "seq": 3})) == []
    assert typed(frame(name, {"line": "a", "text": "b"})) == [{"type": "stdout", "line": "a", "text": "b"}]


@pytest.mark.parametrize(
    ("name", "body", "stream"),
    [
        ("output", {"stream": "stderr", "data": "x\n"}, "stderr"),
        ("output", {"stream": "stdout", "line": "x"}, "stdout"),
        ("log", {"fd": 2, "line": "x"}, "stderr"),
        ("", {"fd": 1, "text": "x\n"}, "stdout"),
        ("", {"stream": 2.0, "line": "x"}, "stderr"),
        ("stdout", {"fd": 2.0, "text": "x\n"}, "stderr"),
        ("stdout", {"stream": "stderr ", "line": "x"}, "stderr"),
        ("output", {"stream": "\tSTDERR\n", "data": "x\n"}, "stderr"),
        ("output", {"source": "stderr", "line": "x"}, "stderr"),
        ("log", {"source": "worker-1", "fd": 2, "line": "x"}, "stderr"),
        ("", {"stream": "standard_error", "line": "x"}, "stderr"),
        ("stderr", {"stream": "standard_output", "line": "x"}, "stdout"),
        ("stderr", {"stream": 2.5, "line": "x"}, "stderr"),
        ("stderr", {"stream": " ", "line": "x"}, "stderr"),
        ("chunk", {"channel": "STDERR", "data": "x\n"}, "stderr"),
        ("stdout", {"stream": "stderr", "line": "x"}, "stderr"),
        ("stderr", {"stream": "stdout", "line": "x"}, "stdout"),
        ("stderr", {"line": "x", "type": "stdout"}, "stderr"),
        ("output", {"line": "x", "type": "stderr"}, "stderr"),
        ("whatever", {"line": "x", "stream": "err"}, "stderr"),
        ("stderr", {"line": "x", "stream": "system"}, "stderr"),
        ("", {"line": "x", "stream": "system", "fd": "2"}, "stderr"),
        ("stdout", {"line": "x", "stream": ["stderr"], "fd": None}, "stdout"),
        ("stdout", {"line": "x", "stream": True}, "stdout"),
        ("stdout", {"line": 7, "stream": "stderr"}, "stderr"),
        ("exec_chunk", '{"stream":"stderr","data":"x","t":NaN}', "stderr"),
    ],
)
def test_the_objects_own_word_for_the_stream_counts(name: str, body: object, stream: str) -> None:
    """Under every name, in every spelling of it."""
    (said,) = typed(frame(name, body))

    assert said["type"] == stream


# -- whatever else


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("", {"object": "chunk", "choices": [{"delta": {"content": "Hi"}}], "error": None}, "message"),
        ("", {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}, "message"),
        ("message_start", {"type": "message_start", "message": {"id": "m"}}, "message_start"),
        ("content_block_delta", {"delta": {"type": "text_delta", "text": "Hi"}}, "content_block_delta"),
        ("", {"type": "response.output_text.delta", "delta": "Hi"}, "response.output_text.delta"),
        ("completion", {"completion": "Hi", "stop_reason": None}, "completion"),
        ("delta", {"text": "Hi"}, "delta"),
        ("notification", {"id": 1, "message": "You have mail."}, "notification"),
        ("status", {"data": "ready"}, "status"),
        ("", {"cpu_percent": 1.5, "mem_mb": 128}, "message"),
        ("", '{"loss":NaN}', "message"),
        ("metrics", '{"loss":Infinity}', "metrics"),
        ("", {}, "message"),
        ("open", "", "open"),
        ("progress", "50", "progress"),
        ("rows", "[1,2]", "rows"),
        ("", "", "message"),
        ("", {"code": 200, "data": {}}, "message"),
    ],
)
def test_events_of_other_streams_stay_events(name: str, data: object, expected: str) -> None:
    """They are no output, least of all an empty line, and end nothing. All that they hold arrives."""
    (said, line) = followed(frame(name, data), frame("stdout", {"line": "a"}))
    whole = data if isinstance(data, dict) else {"data": data}

    assert said == {**whole, "type": expected}
    assert line == {"type": "stdout", "line": "a"}


@pytest.mark.parametrize(
    "one", [frame("", "[DONE]"), frame("", " [DONE] "), frame("done", "[DONE]"), frame("ping", "x")]
)
def test_the_mark_of_an_end_is_no_output(one: str) -> None:
    """Nor is a heartbeat with text."""
    assert followed(one) == []
    assert typed(frame("ping", "words")) == []


def test_plain_text_is_a_line() -> None:
    """In a command's stream also under another name, and if it is empty."""
    assert followed(frame("", "hello")) == typed(frame("", "hello")) == [{"type": "stdout", "line": "hello"}]
    assert typed(frame("", "")) == [{"type": "stdout", "line": ""}]
    assert typed(frame("", "[DONE]")) == [{"type": "stdout", "line": "[DONE]"}]
    assert typed(frame("whatever", "hello")) == [{"type": "stdout", "line": "hello"}]
    assert typed(frame("whatever", "")) == [{"type": "whatever", "data": ""}]
    assert followed(frame("whatever", "hello")) == [{"type": "whatever", "data": "hello"}]


# -- any object


values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, {}, [], {"code": 1}, 3.0, 0.5]), st.integers(-3, 600), st.text(max_size=5)
)
OTHER_KEYS = ["type", "state", "error", "errors", "ok", "detail", "n"]
keys = st.sampled_from([*EXEC.text_keys, *EXEC.log_keys, *EXEC.stream_keys, *EXEC.exit_keys, *OTHER_KEYS])
bodies = st.dictionaries(keys, values, max_size=5)
names = st.sampled_from(["", "message", "complete", "progress", *EXEC.kinds])


@given(names, bodies, st.sampled_from([EXEC, EVENT_STREAM]))
def test_only_facts_end_a_run_and_all_output_is_shown(name: str, body: dict[str, Any], shape: Shape) -> None:
    """The rules, told without the table's help."""
    said = read(Event(name or "message", json.dumps(body)), shape)
    code = next((body[key] for key in ("exit_code", "exitCode") if _is_whole(body.get(key))), None)
    kind = shape.kinds.get(name)
    printed = [body[key] for key in EXEC.text_keys if isinstance(body.get(key), str)]

    if kind in ("stdout", "stderr", "output", "log"):
        assert isinstance(said, Output)
        assert said.text or any(text == "" for text in [*printed, body.get("message")])
        assert not printed or said.text == printed[0]
    elif code is not None and kind != "timeout":
        is_broken = code == -2 or (isinstance(body.get("error"), dict) and bool(body["error"]))
        assert isinstance(said, Failure if is_broken else Exit) or body.get("type") in shape.kinds
    elif isinstance(said, Exit):
        assert kind in ("exit", "timeout") or {"exit_code", "exitCode"} & body.keys()
    elif said is None:
        assert kind == "heartbeat"
    if name in ("", "message") and printed and isinstance(said, Exit | Failure) and "type" not in body:
        assert said.output is not None
        assert said.output.text == printed[0]


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().removeprefix("-").removeprefix("+").isdecimal() and value.isascii()
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and value % 1 == 0
