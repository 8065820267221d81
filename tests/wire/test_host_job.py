"""`HOST_JOB`: the name of an event alone says what it is, and its text is a chunk that was cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sse_bridge.wire.dialects import NAMED, TYPED
from sse_bridge.wire.events import Event
from sse_bridge.wire.ids import FrameIds
from sse_bridge.wire.pipeline import Pipeline
from sse_bridge.wire.shapes import EXEC, HOST_JOB, Exit, Failure, Other, Output, read
from tests.support.frames import frame, objects


def typed(*upstream: str, limit: int | None = None) -> list[Any]:
    """The objects that a page gets from these frames."""
    made = Pipeline(TYPED, HOST_JOB, FrameIds(None), limit)
    return objects(b"".join(made.feed(one.encode()) for one in upstream) + made.flush())


def chunk(data: object, stream: str = "stdout", **more: object) -> str:
    return frame("exec_chunk", {"stream": stream, "data": data, **more})


def test_a_job_from_its_first_chunk_to_its_result() -> None:
    """Chunks become lines, wherever they were cut, and streams are kept apart."""
    result = frame("exec_result", {"exit_code": 3, "elapsed_ms": 42})
    page = typed(chunk("on"), chunk("oops\n", "stderr"), chunk("e\ntwo\nth"), chunk("ree"), result)

    assert [(one["type"], one.get("line"), one.get("code")) for one in page] == [
        ("stderr", "oops", None),
        ("stdout", "one", None),
        ("stdout", "two", None),
        ("stdout", "three", None),
        ("exit", None, 3),
    ]
    assert page[-1] == {"type": "exit", "code": 3, "elapsed_ms": 42}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"stream": "stderr", "data": "a\n"}, ("stderr", "a\n")),
        ({"data": "a\n"}, ("stdout", "a\n")),  # the platform's default
        ({"data": "a\n", "type": "stderr"}, ("stdout", "a\n")),  # a `type` says nothing
        ({"data": "a\n", "type": "exec_result", "exit_code": 0}, ("stdout", "a\n")),
        ({"data": "a\n", "channel": "stderr"}, ("stdout", "a\n")),
        ({"stream": "stdout", "data": None}, ("stdout", "")),  # the field is nullable
        ({"stream": "stderr", "data": None}, ("stderr", "")),
        ({"stream": "stdout", "data": 7}, ("stdout", '{"stream": "stdout", "data": 7}')),
        ("cut off", ("stdout", "cut off")),
    ],
)
def test_a_chunk_is_output_whatever_it_holds(payload: object, expected: tuple[str, str]) -> None:
    """Its own word for the stream counts, and nothing else does."""
    meaning = read(Event("exec_chunk", payload if isinstance(payload, str) else json.dumps(payload)), HOST_JOB)

    assert isinstance(meaning, Output)
    assert (meaning.stream, meaning.text) == expected


def test_an_empty_chunk_is_dropped() -> None:
    """It is no empty line."""
    assert typed(chunk(None), chunk("")) == []


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("", {"type": "exec_result", "exit_code": 0}),
        ("message", {"exit_code": 0}),
        ("", {"exit_code": None}),
        ("", {"type": "exec_chunk", "data": "a"}),
        ("", {"error": {"code": "X", "message": "m"}}),
        ("status_change", {"exit_code": 0, "data": "a"}),
        ("timeout", {}),
    ],
)
def test_an_event_of_another_name_is_data(name: str, body: dict[str, Any]) -> None:
    """What its object holds never ends a run."""
    rest = {key: value for key, value in body.items() if key != "type"}
    assert read(Event(name or "message", json.dumps(body)), HOST_JOB) == Other(name or "message", rest)


@pytest.mark.parametrize(("name", "kind"), [("message", "message"), ("", "message"), ("notice", "notice")])
def test_a_text_under_another_name_is_data(name: str, kind: str) -> None:
    """So is JSON that a browser refuses, and an object that holds an ending."""
    for text in ("words", "[1]", '{"exit_code":0,"x":NaN}'):
        assert read(Event(name, text), HOST_JOB) == Other(kind, {"data": text})


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('{"exit_code":0,"elapsed_ms":42}', {"code": 0, "elapsed_ms": 42}),
        ('{"exit_code":137,"type":"exec_error"}', {"code": 137}),
        ('{"exit_code":null,"elapsed_ms":null}', {"code": None, "exit_code": None, "elapsed_ms": None}),
        ('{"exit_code":5,"elapsed_ms":NaN}', {"code": 5}),
    ],
)
def test_a_result_is_the_exit(text: str, body: dict[str, Any]) -> None:
    """Its code may be missing, and may stand beside what JSON lacks."""
    assert read(Event("exec_result", text), HOST_JOB) == Exit(body)


def test_a_timeout_is_an_exit_that_says_so() -> None:
    """As in a sandbox: the platform has ended the job."""
    timeout = {"reason": "timeout", "job_id": "j"}
    body = {"code": -1, "reason": "timeout", "job_id": "j", "timed_out": True}
    assert read(Event("exec_error", json.dumps(timeout)), HOST_JOB) == Exit(body)
    assert typed(frame("exec_error", timeout)) == [{"type": "exit", **body}]
    assert isinstance(read(Event("exec_error", json.dumps(timeout)), EXEC), Failure)


@pytest.mark.parametrize("reason", ["host_disconnected", "no such file", None, ["timeout"]])
def test_any_other_reason_is_an_error_with_its_words(reason: object) -> None:
    """Words that are missing are replaced."""
    meaning = read(Event("exec_error", json.dumps({"reason": reason})), HOST_JOB)

    assert isinstance(meaning, Failure)
    message = reason if isinstance(reason, str) else "The upstream reported an error."
    assert meaning.body == {"code": "upstream_error", "message": message, "reason": reason}


def test_an_ending_that_is_too_large_keeps_what_it_says() -> None:
    """The code of a result, and the reason of an error."""
    padding = "x" * 500
    for body, expected in (
        ({"exit_code": 4, "x": padding}, {"type": "exit", "code": 4}),
        ({"reason": "timeout", "x": padding}, {"type": "exit", "code": -1, "timed_out": True}),
    ):
        name = "exec_result" if "exit_code" in body else "exec_error"
        gap, ending = typed(frame(name, body), limit=200)
        assert (gap["type"], ending) == ("gap", expected)


def test_a_name_that_pages_take_for_the_end_is_the_end() -> None:
    """A page would stop there, so the run has to."""
    assert read(Event("exit", '{"exit_code":0}'), HOST_JOB) == Exit({"code": 0})
    assert read(Event("error", '{"message":"m"}'), HOST_JOB) == Failure({"code": "upstream_error", "message": "m"})


def test_plain_frames_are_read_alike_on_every_path() -> None:
    """The bulk path knows one kind of frame, in streams of all shapes (see `plain`)."""
    plain = 'event: stderr\ndata: {"line":"a"}\n\n'
    for dialect in (TYPED, NAMED):
        fast, slow = (Pipeline(dialect, HOST_JOB, FrameIds(None), None) for _ in range(2))
        assert fast.feed(plain.encode()) == slow.feed(b": x\n" + plain.encode()) != b""
