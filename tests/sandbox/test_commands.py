"""Commands over HTTP: `sse_bridge.sandbox.commands`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sse_bridge.sandbox.capture import MAX_OUTPUT
from sse_bridge.sandbox.commands import MAX_COMMAND, MAX_STDIN
from sse_bridge.sandbox.state import READY_AFTER
from tests.sandbox.helpers import Box, eventually, is_running


def post(box: Box, command: str, **options: object) -> httpx.Response:
    return box.http.post(f"{box.path}/commands", json={"command": command, **options})


def run(box: Box, command: str, **options: object) -> dict[str, Any]:
    response = post(box, command, **options)
    assert response.status_code == 200
    data: dict[str, Any] = response.json()["data"]
    return data


def start(box: Box, command: str, **options: object) -> dict[str, Any]:
    response = post(box, command, detached=True, **options)
    assert response.status_code == 201
    data: dict[str, Any] = response.json()["data"]
    return data


def look(box: Box, command: str) -> dict[str, Any]:
    data: dict[str, Any] = box.data(f"commands/{command}")
    return data


def logs(box: Box, command: str, **query: int) -> str:
    text: str = box.data(f"commands/{command}/logs", **query)
    return text


def kill(box: Box, command: str) -> dict[str, Any]:
    data: dict[str, Any] = box.http.post(f"{box.path}/commands/{command}/kill").raise_for_status().json()["data"]
    return data


def error_of(response: httpx.Response) -> tuple[int, str, dict[str, Any]]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["details"]


def test_a_command_is_answered_with_its_output(shared_box: Box) -> None:
    """Its exit code, whether it timed out, and how long it took."""
    answer = run(shared_box, "echo out; echo err >&2; exit 3")

    assert answer.pop("duration_ms") >= 0
    assert answer == {"stdout": "out\n", "stderr": "err\n", "exit_code": 3, "timed_out": False}


def test_its_input_is_given(shared_box: Box) -> None:
    """As bytes of UTF-8, a NUL included; the command finds the end behind it. Without one, it finds the end at once."""
    assert run(shared_box, "cat; echo -n .", stdin="é\0\n")["stdout"] == "é\0\n."
    assert run(shared_box, "wc -c", stdin="x" * MAX_STDIN)["stdout"].strip() == str(MAX_STDIN)
    for nothing in ("", None):
        assert run(shared_box, "cat; echo -n .", stdin=nothing)["stdout"] == "."


def test_its_folder_may_be_relative_to_the_workspace(box: Box) -> None:
    """Or absolute; it is the workspace if left out."""
    box.exec("mkdir -p a/b; touch a/b/here")

    for cwd in ("a/b", "./a/b", "/workspace/a/b"):
        assert run(box, "ls", cwd=cwd)["stdout"] == "here\n"
    assert run(box, "ls")["stdout"] == "a\n"


def test_its_environment_can_be_set(shared_box: Box) -> None:
    """As that of `exec`."""
    assert run(shared_box, "echo $A", env={"A": "1"})["stdout"] == "1\n"


def test_a_timeout_ends_it(shared_box: Box) -> None:
    """The answer says so, and holds what was printed."""
    answer = run(shared_box, "echo begun; sleep 1000", timeout_seconds=1)

    assert (answer["stdout"], answer["exit_code"], answer["timed_out"]) == ("begun\n", -1, True)


def test_a_minute_is_the_default(shared_box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands that are waited for. A detached one runs on."""
    monkeypatch.setattr("sse_bridge.sandbox.commands._TIMEOUT", 0.05)
    started = start(shared_box, "sleep 1000")

    assert run(shared_box, "sleep 1000")["timed_out"] is True
    assert look(shared_box, started["id"])["status"] == "running"
    kill(shared_box, started["id"])


def test_output_beyond_the_limit_is_cut(shared_box: Box) -> None:
    """Of each stream; the answer names the one."""
    answer = run(shared_box, f"echo out; head -c {MAX_OUTPUT + 1} /dev/zero | tr '\\0' x >&2")

    assert (answer["stdout"], len(answer["stderr"])) == ("out\n", MAX_OUTPUT)
    assert ("stdout_truncated" in answer, answer["stderr_truncated"]) == (False, True)


def test_a_child_in_the_background_does_not_hold_up_the_answer(box: Box) -> None:
    """It lives on."""
    assert run(box, "sleep 1000 & echo $! > child; echo done")["stdout"] == "done\n"
    assert is_running(box.pid("child"))


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"timeout_seconds": 601}, 422, "TIMEOUT_TOO_LONG"),
        ({"timeout_seconds": 601, "detached": True}, 422, "TIMEOUT_TOO_LONG"),
        ({"timeout_seconds": 0}, 422, "VALIDATION_ERROR"),
        ({"timeout_seconds": 0.5}, 422, "VALIDATION_ERROR"),
        ({"timeout_seconds": True}, 422, "VALIDATION_ERROR"),
        ({"stdin": "é" * (MAX_STDIN // 2 + 1)}, 422, "VALIDATION_ERROR"),
        ({"stdin": 1}, 422, "VALIDATION_ERROR"),
        ({"command": "é" * (MAX_COMMAND // 2 + 1)}, 422, "VALIDATION_ERROR"),
        ({"command": None}, 400, "MISSING_PARAM"),
        ({"command": " "}, 422, "VALIDATION_ERROR"),
        ({"detached": 1}, 422, "VALIDATION_ERROR"),
        ({"name": 1}, 422, "VALIDATION_ERROR"),
        ({"cwd": "../.."}, 400, "INVALID_PATH"),
        ({"cwd": "missing"}, 422, "VALIDATION_ERROR"),
        ({"env": []}, 422, "VALIDATION_ERROR"),
        ({"tty": "yes"}, 422, "VALIDATION_ERROR"),
        ({"user": 1}, 422, "VALIDATION_ERROR"),
    ],
)
def test_a_wrong_request_is_refused(shared_box: Box, options: dict[str, object], status: int, code: str) -> None:
    """Before anything is started; the refusal names the field."""
    before = shared_box.http.get(f"{shared_box.path}/commands").json()["data"]
    response = shared_box.http.post(f"{shared_box.path}/commands", json={"command": "true", **options})
    refusal = error_of(response)

    assert refusal[:2] == (status, code)
    assert refusal[2].get("field", "cwd") in options or code == "INVALID_PATH"
    assert response.json()["error"]["retryable"] is False
    assert shared_box.http.get(f"{shared_box.path}/commands").json()["data"] == before


@pytest.mark.parametrize("option", [{"tty": True}, {"interactive": True}, {"sudo": True}, {"user": "root"}])
def test_what_a_process_of_this_machine_cannot_have_is_refused(shared_box: Box, option: dict[str, object]) -> None:
    """A command that ran without it would do something else. Saying `false` is no wish."""
    assert error_of(post(shared_box, "true", **option)) == (422, "UNSUPPORTED_OPTION", {"field": next(iter(option))})
    assert run(shared_box, "true", tty=False, interactive=False, sudo=False, user=None)["exit_code"] == 0


def test_a_sandbox_that_starts_refuses_with_a_code_of_its_own(http: httpx.Client) -> None:
    """And with the time to wait. `exec` has another code."""
    box = Box(http, metadata={READY_AFTER: 60})
    for response in (post(box, "true"), post(box, "true", detached=True)):
        assert error_of(response)[:2] == (409, "SANDBOX_STARTING")
        assert response.json()["error"]["retryable"] is True
        assert response.headers["retry-after"] == "60"
    box.destroy()


def test_a_detached_command_runs_on(box: Box) -> None:
    """It has an id, and is found by that and in the list."""
    started = start(box, "echo $$ > me; cat; sleep 1000", stdin="input\n", name="dev", cwd="/workspace")

    assert started["id"].startswith("cmd_")
    assert (started["name"], started["status"], started["exit_code"]) == ("dev", "running", None)
    assert is_running(box.pid("me"))
    assert look(box, started["id"]) == started
    assert box.http.get(f"{box.path}/commands").json()["data"] == [started]
    assert box.http.get(f"{box.path}/processes").json()["data"] == []
    eventually(lambda: logs(box, started["id"]) == "input\n")


def test_its_end_and_its_log_can_be_read(box: Box) -> None:
    """The last 200 lines, unless the client says how many."""
    id = start(box, "seq 300; exit 3")["id"]
    eventually(lambda: look(box, id)["status"] == "exited")

    assert (look(box, id)["exit_code"], look(box, id)["timed_out"]) == (3, False)
    assert logs(box, id).split() == [str(number) for number in range(101, 301)]
    assert logs(box, id, tail=2) == "299\n300\n"
    assert box.http.get(f"{box.path}/commands/{id}/logs?tail=0").status_code == 422


def test_its_timeout_ends_it(box: Box) -> None:
    """If it has one."""
    id = start(box, "sleep 1000", timeout_seconds=1)["id"]
    eventually(lambda: look(box, id)["status"] == "exited")

    assert (look(box, id)["exit_code"], look(box, id)["timed_out"]) == (-1, True)


def test_a_kill_ends_the_whole_group(box: Box) -> None:
    """The answer is the command after its end, and comes again when the kill is repeated."""
    id = start(box, "sleep 1000 & echo $! > child; wait")["id"]
    child = box.pid("child")

    for _ in range(2):
        assert (kill(box, id)["status"], kill(box, id)["exit_code"]) == ("exited", 143)
    assert not is_running(child)


@pytest.mark.parametrize("id", ["cmd_unknown", "1"])
def test_an_unknown_one_is_not_found(shared_box: Box, id: str) -> None:
    """On every route."""
    for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/kill")):
        refusal = shared_box.http.request(method, f"{shared_box.path}/commands/{id}{path}")
        assert (refusal.status_code, refusal.json()["error"]["message"]) == (404, "command not found")


def test_it_ends_with_its_sandbox(http: httpx.Client) -> None:
    """And its routes refuse as all do."""
    box = Box(http)
    id = start(box, "echo $$ > me; sleep 1000")["id"]
    pid = box.pid("me")
    box.destroy()

    assert not is_running(pid)
    own = f"commands/{id}"
    box.assert_refused(
        ("GET", "commands"), ("POST", "commands"), ("GET", own), ("GET", f"{own}/logs"), ("POST", f"{own}/kill")
    )
