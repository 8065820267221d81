"""`failures`: which objects are errors that end a run, and which are data.

The kind of fault: an error of a shape that was not thought of becomes an empty line, and the run goes on to
`upstream_ended`; or data that merely look like one end a run whose output goes on.
"""

from __future__ import annotations

from typing import Any

import pytest

from sse_bridge.wire.events import Event
from sse_bridge.wire.failures import failure_body
from sse_bridge.wire.objects import write_json
from sse_bridge.wire.shapes import EVENT_STREAM, EXEC, Failure, Shape, read


def meaning(body: dict[str, Any], name: str = "message", shape: Shape = EXEC) -> object:
    return read(Event(name, write_json(body).decode()), shape)


INNER = {"code": "SANDBOX_LOST", "message": "It is gone."}


@pytest.mark.parametrize("shape", [EXEC, EVENT_STREAM], ids=["exec", "event_stream"])
@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        # inside `error`
        ({"error": {"message": "Sandbox was terminated", "code": 502}}, "502", "Sandbox was terminated"),
        ({"error": INNER}, "SANDBOX_LOST", "It is gone."),
        ({"ok": False, "error": INNER, "request_id": "r"}, "SANDBOX_LOST", "It is gone."),
        ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded_error", "Overloaded"),
        ({"error": {"status": "UNAVAILABLE", "message": "m"}}, "UNAVAILABLE", "m"),
        ({"error": {"code": None, "detail": "d"}}, "upstream_error", "d"),
        ({"error": {"code": True, "status": 503}, "message": "outer"}, "503", "outer"),
        ({"error": {"what": "?"}}, "upstream_error", "The upstream reported an error."),
        # a text under `error`
        ({"error": "it broke"}, "upstream_error", "it broke"),
        ({"error": "rate_limited"}, "rate_limited", "rate_limited"),
        ({"error": "VM_LOST", "detail": "gone", "request_id": "r"}, "VM_LOST", "gone"),
        ({"error": "invalid_grant", "error_description": "The grant is old."}, "invalid_grant", "The grant is old."),
        ({"ok": False, "error": "no"}, "no", "no"),
        ({"statusCode": 500, "message": "boom", "error": "Internal Server Error"}, "500", "boom"),
        ({"error": True, "message": "boom"}, "upstream_error", "boom"),
        ({"error": ["first", "second"]}, "upstream_error", "first"),
        # several
        ({"errors": [{"message": "e1", "code": "X"}, {"message": "e2"}]}, "X", "e1"),
        ({"errors": ["e1"], "data": None}, "upstream_error", "e1"),
        ({"errors": {"name": ["is missing"]}}, "upstream_error", "is missing"),
        ({"errors": {"name": "is missing"}}, "upstream_error", "is missing"),
        # flat
        ({"code": 429, "message": "Too many requests"}, "429", "Too many requests"),
        ({"code": "503", "message": "busy"}, "503", "busy"),
        ({"status": 503, "message": "busy"}, "503", "busy"),
        ({"status": "error", "message": "busy"}, "upstream_error", "busy"),
        ({"success": False, "message": "no"}, "upstream_error", "no"),
        ({"ok": False, "code": 7}, "7", "The upstream reported an error."),
        # RFC 9457
        ({"type": "about:blank", "title": "Busy", "status": 503}, "503", "Busy"),
        ({"type": "https://e.org/p", "title": "Busy", "status": 503, "detail": "d", "balance": 3}, "503", "d"),
        ({"title": "Busy", "status": 503, "instance": "/x"}, "503", "Busy"),
    ],
)
def test_an_error_ends_the_run_with_its_code_and_message(
    body: dict[str, Any], code: str, message: str, shape: Shape
) -> None:
    """Unnamed, and in an event that is called an error."""
    for name in ("message", "error"):
        said = meaning(body, name, shape)

        assert isinstance(said, Failure)
        assert (said.body["code"], said.body["message"]) == (code, message)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": "VM_LOST", "detail": "gone", "sandbox_id": "s"}, "VM_LOST", "gone"),
        ({"message": "gone", "code": "VM_LOST"}, "VM_LOST", "gone"),
        ({"detail": "Not Found"}, "upstream_error", "Not Found"),
        ({"detail": [{"loc": ["body"], "msg": "is missing", "type": "missing"}]}, "upstream_error", "is missing"),
        ({"id": 1, "jsonrpc": "2.0", "error": {"code": -32000, "message": "m"}}, "-32000", "m"),
        ({"choices": [], "error": INNER}, "SANDBOX_LOST", "It is gone."),
        ({"success": False, "errors": [{"code": 1000, "message": "m"}], "messages": [], "result": None}, "1000", "m"),
        (
            {"errorDetail": {"code": 125, "message": "m"}, "error": "no such container"},
            "upstream_error",
            "no such container",
        ),
        (
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "m", "code": 404},
            "404",
            "m",
        ),
        ({"code": 5, "message": "sandbox not found", "details": []}, "5", "sandbox not found"),
        ({"code": 429, "message": "m", "data": {}}, "429", "m"),
        ({"code": 429.0, "message": "m", "data": []}, "429", "m"),
        ({"code": "429 Too Many Requests", "message": "m", "data": []}, "429 Too Many Requests", "m"),
        ({"event": "error", "message": "Sandbox died", "code": 500}, "500", "Sandbox died"),
        ({"errorMessage": "m", "errorType": "Runtime.Exit"}, "Runtime.Exit", "m"),
        ({"error": "it broke", "traceback": "t"}, "upstream_error", "it broke"),
        ({"status": "error", "error": "it broke", "traceback": "t"}, "upstream_error", "it broke"),
        ({"data": {"error": {"message": "m", "code": 502}}}, "502", "m"),
    ],
)  # fmt: skip
def test_weaker_words_are_an_error_only_in_a_commands_stream(body: dict[str, Any], code: str, message: str) -> None:
    """There an unnamed object has no other use. In other streams each event may be about something else."""
    said = meaning(body)

    assert isinstance(said, Failure)
    assert (said.body["code"], said.body["message"]) == (code, message)
    assert not isinstance(meaning(body, shape=EVENT_STREAM), Failure)


@pytest.mark.parametrize("shape", [EXEC, EVENT_STREAM], ids=["exec", "event_stream"])
@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "ok"},
        {"code": 200, "data": {"x": 1}},
        {"code": 429},
        {"code": 0, "msg": "success"},
        {"code": "OK", "message": "done"},
        {"code": "info", "message": "listening"},
        {"code": 1001, "message": "a word of its own"},
        {"status": 404, "title": "Page", "url": "/missing", "ms": 3},
        {"type": "page", "title": "Page", "status": 404},
        {"type": "https://e.org/p", "title": "Done", "status": 200},
        {"status": "failed"},
        {"status": "error"},
        {"error": None},
        {"error": {}},
        {"error": ""},
        {"error": 0, "message": "fine"},
        {"error": "2 warnings", "step": "lint"},
        {"errors": []},
        {"errors": {}},
        {"errors": 3, "requests": 100},
        {"errors": [3]},
        {"errors": ["E501"], "warnings": [], "files": 7},
        {"errors": [[]]},
        {"data": {"x": 1}, "errors": [{"message": "partial"}]},
        {"ok": False},
        {"ok": True, "error": "none"},
        {"success": True, "errors": ["none"], "message": "m"},
        {"detail": "Step 3 of 5", "progress": 60},
        {"detail": "still", "status": "running"},
        {"detail": 3},
        {"code": "?!", "message": "m"},
        {"type": "status", "code": "SANDBOX_BOOTING", "message": "Booting"},
        {"type": "snapshot_progress", "status": "failed", "error": "disk full"},
        {"line": "a", "error": "shown beside it"},
        {"data": {"error": {"message": "m"}}, "n": 1},
        {"data": {"error": "m"}},
        {"kind": "Pod", "status": "Failure", "message": "m"},
        {"code": 0, "message": "m", "details": []},
        {"code": 17, "message": "m", "details": []},
        {"errorMessage": "", "errorType": "none"},
        {"success": False, "errors": [], "messages": []},
        {"code": 429.5, "message": "m"},
        {"code": "4290", "message": "m"},
    ],
)
def test_data_that_look_like_an_error_end_nothing(body: dict[str, Any], shape: Shape) -> None:
    """What follows them would be lost."""
    assert not isinstance(meaning(body, shape=shape), Failure)


@pytest.mark.parametrize(
    ("name", "body", "is_end"),
    [
        ("agent_failed", {"error": "agent lost"}, True),
        ("failure", {"errors": ["lost"]}, True),
        ("progress", {"error": INNER}, True),
        ("progress", {"error": INNER, "step": 3}, False),
        ("warning", {"error": "disk almost full"}, False),
        ("warning", {"errors": ["disk almost full"]}, False),
        ("step_failed", {"error": "exit status 1", "step": "lint"}, False),
        ("step_failed", {"step": "lint"}, False),
        ("http", {"title": "GET /", "status": 404}, False),
        ("http", {"type": "about:blank", "title": "GET /", "status": 404, "ms": 3}, False),
    ],
)
def test_an_event_of_another_name_has_to_be_unmistakable(name: str, body: dict[str, Any], is_end: bool) -> None:
    """It is an error if it is called one and holds nothing else, or holds nothing but an error object.

    In a stream that is no command's, the name alone decides.
    """
    assert isinstance(meaning(body, name), Failure) is is_end
    assert not isinstance(meaning(body, name, EVENT_STREAM), Failure)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("sandbox.error", {"type": "sandbox.error", "id": "s", "status": "error", "ts": "2026", "error": INNER}),
        ("deployment.failed", {"id": "d", "status": "failed", "error": INNER, "ts": "t"}),
        ("tool_call", {"id": "t1", "status": "error", "error": {"message": "x"}}),
        ("request", {"method": "GET", "path": "/x", "status": 500, "error": INNER}),
        ("job_error", {"message": "m", "code": 500}),
        ("build.failed", {"ok": False, "error": "no"}),
        ("message", {"type": "task_failed", "error": INNER}),
        ("message", {"method": "GET", "path": "/favicon.ico", "status": 404, "message": "not found", "time": "t"}),
        ("message", {"success": False, "message": "login failed for bob", "timestamp": "t"}),
        ("message", {"status": "error", "message": "sensor 3 offline", "id": "s3", "time": "t"}),
        ("message", {"code": 503, "message": "offline", "sensor_id": "s3"}),
        ("message", {"error": INNER, "taskId": "t"}),
        ("message", {"errors": ["E501 line too long"], "path": "a.py"}),
        ("message", {"title": "GET /", "status": 404, "ts": 3}),
    ],
)
def test_an_error_of_something_else_ends_no_event_stream(name: str, body: dict[str, Any]) -> None:
    """The kind of fault: one event tells of an error elsewhere, and all later events of the stream are lost."""
    assert not isinstance(meaning(body, name, EVENT_STREAM), Failure)


@pytest.mark.parametrize("key", ["request_id", "requestId", "request-id", "trace_id", "correlation_id"])
def test_the_id_of_a_request_may_stand_beside_an_error(key: str) -> None:
    """It names the request that failed."""
    assert isinstance(meaning({"error": INNER, key: "r"}, shape=EVENT_STREAM), Failure)


def test_a_message_with_a_code_is_an_error_by_the_name_of_its_event_only_in_a_commands_stream() -> None:
    """Elsewhere it may be about anything."""
    body = {"message": "lost", "code": "AGENT_LOST"}

    assert isinstance(meaning(body, "stream.error"), Failure)
    assert not isinstance(meaning(body, "stream.error", EVENT_STREAM), Failure)


@pytest.mark.parametrize("name", ["stdout", "stderr", "output", "chunk", "log"])
@pytest.mark.parametrize(
    "body", [{"error": INNER}, {"ok": False, "error": "x"}, {"code": 500, "title": "t", "status": 500}]
)
def test_an_output_is_never_an_error(name: str, body: dict[str, Any]) -> None:
    """A script may print anything."""
    assert not isinstance(meaning(body, name), Failure)


def test_text_beside_an_error_is_shown_first() -> None:
    """Neither is lost."""
    said = meaning({"output": "half a li", "error": INNER})

    assert isinstance(said, Failure)
    assert said.output is not None
    assert (said.output.text, said.output.is_piece) == ("half a li", True)


def test_the_message_of_a_named_error_is_found_under_data() -> None:
    """With its code."""
    said = meaning({"type": "error", "data": {"message": "x", "code": 7}})

    assert isinstance(said, Failure)
    assert (said.body["code"], said.body["message"]) == ("7", "x")


def test_keys_of_an_error_are_kept() -> None:
    """All but those that the frame has itself."""
    assert failure_body({"type": "error", "code": "a", "message": "b", "retryable": True}, ()) == {
        "code": "a",
        "message": "b",
        "retryable": True,
    }
