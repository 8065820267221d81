"""`shapes`: every known upstream shape has one meaning."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sse_bridge.wire.events import Event
from sse_bridge.wire.shapes import EVENT_STREAM, EXEC, Exit, Failure, Other, Output, read
from tests.support.frames import frame, typed


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        # the stream: in the event's name, in the body, nowhere
        (frame("stdout", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("stderr", {"line": "a"}), {"type": "stderr", "line": "a"}),
        (frame("output", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("log", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("", {"line": "a"}), {"type": "stdout", "line": "a"}),
        (frame("message", {"type": "stderr", "line": "a"}), {"type": "stderr", "line": "a"}),
        (frame("", {"stream": "stderr", "line": "a"}), {"type": "stderr", "line": "a", "stream": "stderr"}),
        (frame("", {"stream": ["stderr"], "line": "a"}), {"type": "stdout", "line": "a", "stream": ["stderr"]}),
        (frame("stdout", {"type": "exit", "line": "a", "code": 3}), {"type": "stdout", "line": "a", "code": 3}),
        (frame("", {"type": ["exit"], "line": "a"}), {"type": "stdout", "line": "a"}),
        # the text: with its line feed, with none, not a string, absent, not JSON
        (frame("stdout", {"line": "a\n"}), {"type": "stdout", "line": "a"}),
        (frame("stdout", {"line": "a\r"}), {"type": "stdout", "line": "a\r"}),
        (frame("stdout", {"line": ""}), {"type": "stdout", "line": ""}),
        (frame("stdout", {}), {"type": "stdout", "line": "{}"}),
        (frame("", {}), {"type": "message"}),
        (frame("stdout", {"line": None}), {"type": "stdout", "line": '{"line": null}'}),
        (frame("stdout", {"line": 42}), {"type": "stdout", "line": "42"}),
        (frame("stdout", "plain words"), {"type": "stdout", "line": "plain words"}),
        (frame("stderr", "null"), {"type": "stderr", "line": "null"}),
        (frame("stdout", '["a"]'), {"type": "stdout", "line": '["a"]'}),
        (frame("stdout", '{"line": NaN}'), {"type": "stdout", "line": '{"line": NaN}'}),
        (frame("stdout", '{"line": "a", "t": 1e999}'), {"type": "stdout", "line": '{"line": "a", "t": 1e999}'}),
        (frame("stdout", '{"a":' * 150 + "0" + "}" * 150), {"type": "stdout", "line": '{"a":' * 150 + "0" + "}" * 150}),
        (frame("stdout", "[" * 100_000), {"type": "stdout", "line": "[" * 100_000}),
        (frame("stdout", {"line": "a", "ts": 1.5, "partial": True}),
         {"type": "stdout", "line": "a", "ts": 1.5, "partial": True}),
        # the exit
        (frame("exit", {"exit_code": 0}), {"type": "exit", "code": 0}),
        (frame("exit", {"exitCode": 3}), {"type": "exit", "code": 3}),
        (frame("exit", {"code": "4"}), {"type": "exit", "code": 4}),
        (frame("exit", {"exit_code": 5.0}), {"type": "exit", "code": 5}),
        (frame("exit", {"exit_code": None}), {"type": "exit", "code": None, "exit_code": None}),
        (frame("exit", {"exit_code": True}), {"type": "exit", "code": None, "exit_code": True}),
        (frame("exit", {"exit_code": "bad", "code": 7}), {"type": "exit", "code": 7, "exit_code": "bad"}),
        (frame("exit", "6"), {"type": "exit", "code": 6}),
        (frame("exit", "bye"), {"type": "exit", "code": None, "exit_code": "bye"}),
        (frame("", {"exit_code": 0}), {"type": "exit", "code": 0}),
        (frame("", {"code": 9}), {"type": "message", "code": 9}),
        (frame("", {"exit_code": None}), {"type": "exit", "code": None, "exit_code": None}),
        (frame("message", {"exitCode": None}), {"type": "exit", "code": None, "exitCode": None}),
        (frame("", {"exit_code": "oops"}), {"type": "exit", "code": None, "exit_code": "oops"}),
        (frame("", {"type": None, "exit_code": None, "status": ["failed"]}),
         {"type": "exit", "code": None, "exit_code": None, "status": ["failed"]}),
        (frame("", {"type": "exit", "code": 3}), {"type": "exit", "code": 3}),
        # what only looks like one: a word that may be anything, text, something that goes on, a type of its own
        (frame("", {"code": None}), {"type": "message", "code": None}),
        (frame("", {"code": "E_OOM"}), {"type": "message", "code": "E_OOM"}),
        (frame("", {"exit": "left"}), {"type": "message", "exit": "left"}),
        (frame("", {"line": "a", "exit_code": None}), {"type": "stdout", "line": "a", "exit_code": None}),
        (frame("", {"line": None, "exit_code": None}), {"type": "message", "line": None, "exit_code": None}),
        (frame("", {"status": "running", "exit_code": None}),
         {"type": "message", "status": "running", "exit_code": None}),
        (frame("", {"state": "queued", "exitCode": None}),
         {"type": "message", "state": "queued", "exitCode": None}),
        (frame("", {"type": "job", "exit_code": None}), {"type": "job", "exit_code": None}),
        (frame("job", {"exit_code": None}), {"type": "job", "exit_code": None}),
        (frame("", {"type": "exit", "exit_code": -1, "timed_out": True}),
         {"type": "exit", "code": -1, "timed_out": True}),
        (frame("timeout", {}), {"type": "exit", "code": -1, "timed_out": True}),
        (frame("", {"type": "timeout"}), {"type": "exit", "code": -1, "timed_out": True}),
        (frame("timeout", "too long"), {"type": "exit", "code": -1, "timed_out": True, "line": "too long"}),
        # errors
        (frame("error", {"code": "oom", "message": "killed"}), {"type": "error", "code": "oom", "message": "killed"}),
        (frame("error", "boom"), {"type": "error", "code": "upstream_error", "message": "boom"}),
        (frame("error", {}), {"type": "error", "code": "upstream_error", "message": "The upstream reported an error."}),
        (frame("error", {"error": "VM_LOST", "detail": "gone"}),
         {"type": "error", "code": "VM_LOST", "message": "gone", "error": "VM_LOST", "detail": "gone"}),
        (frame("error", {"error": {"code": 500, "message": "no"}}),
         {"type": "error", "code": "500", "message": "no", "error": {"code": 500, "message": "no"}}),
        (frame("error", {"error": "it broke"}),
         {"type": "error", "code": "upstream_error", "message": "it broke", "error": "it broke"}),
        (frame("error", {"reason": "r", "line": "l"}),
         {"type": "error", "code": "upstream_error", "message": "r", "reason": "r", "line": "l"}),
        (frame("error", {"code": 0, "message": "", "detail": "d", "reason": "r"}),
         {"type": "error", "code": "0", "message": "d", "detail": "d", "reason": "r"}),
        (frame("error", {"message": ["x"], "output": "o"}),
         {"type": "error", "code": "upstream_error", "message": "o", "output": "o"}),
        # numbers
        (frame("exit", {"exit_code": "+5"}), {"type": "exit", "code": 5}),
        (frame("exit", {"exit_code": "-15"}), {"type": "exit", "code": -15}),
        (frame("exit", {"exit_code": 1.5}), {"type": "exit", "code": None, "exit_code": 1.5}),
        (frame("exit", {"exit_code": "9" * 18}), {"type": "exit", "code": 10**18 - 1}),
        (frame("exit", {"exit_code": "9" * 19}), {"type": "exit", "code": None, "exit_code": "9" * 19}),
        (frame("exit", {"exit_code": 1, "code": 2, "exit": 3}), {"type": "exit", "code": 1, "exit": 3}),
        (frame("exit", {"exitCode": 1, "exit": 3}), {"type": "exit", "code": 1, "exit": 3}),
        (frame("", {"exit": 3}), {"type": "message", "exit": 3}),
        (frame("", {"exit_code": False}), {"type": "exit", "code": None, "exit_code": False}),
        (frame("", {"exit": True}), {"type": "message", "exit": True}),
        (frame("timeout", {"exit_code": 137}), {"type": "exit", "code": 137, "timed_out": True}),
        (frame("timed_out", {"exit_code": None, "code": 9}),
         {"type": "exit", "code": 9, "exit_code": None, "timed_out": True}),
        # which text, and how deep
        (frame("", {"data": 1, "line": "a"}), {"type": "stdout", "line": "a", "data": 1}),
        (frame("", {"output": "o\n", "line": 1}), {"type": "stdout", "line": "o"}),
        (frame("", {"data": "d\n", "output": "o"}), {"type": "stdout", "line": "d", "output": "o"}),
        (frame("stdout", {"line": {"a": ["é"]}}), {"type": "stdout", "line": '{"a": ["\\u00e9"]}'}),
        (frame("stdout", {"": 1}), {"type": "stdout", "line": '{"": 1}'}),
        (frame("deep", '{"a":' * 99 + "0" + "}" * 99), {"type": "deep", **json.loads('{"a":' * 99 + "0" + "}" * 99)}),
        (frame("deep", '{"a":' * 101 + "0" + "}" * 101),
         {"type": "stdout", "line": '{"a":' * 101 + "0" + "}" * 101}),
        # whatever else: kept under its own name
        (frame("started", {"pid": 3}), {"type": "started", "pid": 3}),
        (frame("", {"type": "gap", "dropped": 2, "bytes": 9}), {"type": "gap", "dropped": 2, "bytes": 9}),
        (frame("", {"type": "status_change", "data": {"status": "online"}}),
         {"type": "status_change", "data": {"status": "online"}}),
    ],
)  # fmt: skip
def test_each_upstream_shape_has_one_meaning(upstream: str, expected: dict[str, Any]) -> None:
    """One upstream frame, one object, and `type` is always ours."""
    assert typed(upstream) == [expected]


@pytest.mark.parametrize("key", ["state", "status"])
@pytest.mark.parametrize("value", ["queued", "pending", "starting", "running"])
def test_a_snapshot_of_running_work_is_not_an_exit(key: str, value: str) -> None:
    """Its exit code is null because there is none yet; a number counts in any state."""
    assert typed(frame("", {key: value, "exit_code": None}))[0]["type"] == "message"
    assert typed(frame("", {key: value, "exit_code": 0}))[0]["type"] == "exit"
    assert typed(frame("", {key: "stopped", "exit_code": None}))[0]["type"] == "exit"


@pytest.mark.parametrize("name", ["heartbeat", "ping", "keepalive"])
def test_named_heartbeats_are_no_output(name: str) -> None:
    """A heartbeat is skipped, be it a comment, a named event, or a body's type."""
    assert typed(frame(name, {}), frame(name, {"line": "no"}), frame("", {"type": name}), ": heartbeat\n\n") == []


def test_frames_without_data_dispatch_nothing() -> None:
    """9.2.6: an event needs data; an id, a name or a comment alone is skipped."""
    assert typed("id: 1\n\n", "event: stdout\n\n", ": x\n\n", "retry: 1\n\n") == []


def test_a_meaning_says_what_the_mapper_needs() -> None:
    """Output knows its stream and whether it was cut anywhere; an exit and a failure are told apart."""
    assert read(Event("stderr", '{"line":"a","n":1}'), EXEC) == Output("stderr", "a", False, {"n": 1})
    assert read(Event("stdout", '{"data":"a","n":1}'), EXEC) == Output("stdout", "a", True, {"n": 1})
    assert read(Event("exit", "3"), EXEC) == Exit({"code": 3})
    assert read(Event("error", "boom"), EXEC) == Failure({"code": "upstream_error", "message": "boom"})
    assert read(Event("started", '{"pid":3}'), EXEC) == Other("started", {"pid": 3})
    assert read(Event("ping", "{}"), EXEC) is read(Event("stdout"), EXEC) is None


def test_an_event_stream_is_read_as_a_command() -> None:
    """An event stream is read as a command's output is, but for what only a command's stream can mean."""
    exec_table, stream_table = (dataclasses.asdict(shape) for shape in (EXEC, EVENT_STREAM))
    differences = {key for key, value in exec_table.items() if value != stream_table[key]}
    assert differences == {"is_command", "end_marks", "dialect"}


def test_a_shape_decides_what_a_name_means() -> None:
    """Names, keys and states come from the table."""
    odd = dataclasses.replace(
        EXEC,
        kinds={"done": "exit"},
        text_keys=("body", "part"),
        line_key="body",
        log_keys=("note",),
        stream_keys=("pipe",),
        exit_keys=("rc",),
        sure_exit_keys=("status_of_exit",),
    )
    assert read(Event("done", '{"rc":2}'), odd) == Exit({"code": 2})
    assert read(Event("message", '{"rc":2}'), odd) == Other("message", {"rc": 2})
    assert isinstance(read(Event("x", '{"status_of_exit":2}'), odd), Exit)
    assert read(Event("x", '{"body":"a"}'), odd) == Output("stdout", "a", False, {})
    assert read(Event("x", '{"part":"a","pipe":2}'), odd) == Output("stderr", "a", True, {"pipe": 2})
    assert read(Event("message", '{"note":"a"}'), odd) == Output("stdout", "a", False, {})
    assert read(Event("message", "words"), odd) == Output("stdout", "words", False, {})
