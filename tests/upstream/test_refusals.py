"""Refusals: each status has its answer, every envelope is read, and the upstream's own words stay behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.upstream.refusals import refusal

SECRET = "the upstream's own words"


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (202, 502, "upstream_rejected"),
        (204, 204, "upstream_finished"),
        (301, 502, "upstream_rejected"),
        (400, 502, "upstream_rejected"),
        (401, 502, "upstream_unauthorized"),
        (402, 502, "upstream_credits"),
        (403, 502, "upstream_unauthorized"),
        (404, 404, "not_found"),
        (406, 502, "upstream_rejected"),
        (408, 502, "upstream_rejected"),
        (409, 503, "not_ready"),
        (410, 404, "not_found"),
        (413, 502, "upstream_rejected"),
        (421, 502, "upstream_rejected"),
        (422, 502, "upstream_rejected"),
        (429, 503, "busy"),
        (500, 502, "upstream_failed"),
        (502, 502, "upstream_failed"),
        (503, 502, "upstream_failed"),
        (504, 502, "upstream_failed"),
        (529, 502, "upstream_failed"),
    ],
)
def test_each_status_has_its_answer(status: int, ours: int, code: str) -> None:
    """The status, code and waiting time that a viewer gets depend on the upstream's status alone."""
    error = refusal(status, {}, SECRET.encode())

    assert (error.status, error.code, error.upstream_status) == (ours, code, status)
    assert (error.retry_after is not None) == (ours == 503)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait"),
    [
        (429, {}, {}, None),
        (429, {"retry-after": "7"}, {"error": "rate_limited"}, 7.0),
        (429, {"retry-after": "0"}, {"error": "runtime_busy"}, 0.0),
        (429, {}, {"error": {"code": "RUNTIME_BUSY", "retry_after_ms": 1500}}, 1.5),
        (503, {"retry-after": "0"}, {"error": "feed_stale"}, 0.0),
        (503, {"retry-after": "7"}, {}, 7.0),
        (503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, {}, 0.0),
        (503, {}, {"error": {"code": "RESTORE_TRANSIENT", "retry_after_ms": 2500}}, 2.5),
        (529, {"retry-after": "7"}, {}, 7.0),
        (529, {}, {"retry_after": 7}, 7.0),
    ],
)
def test_an_upstream_that_has_too_much_to_do_is_busy(
    status: int, headers: dict[str, str], body: Any, wait: float | None
) -> None:
    """The kind of fault: a refusal that passes was told as a failure, and its time to wait was lost."""
    error = refusal(status, headers, json.dumps(body).encode())

    assert (error.status, error.code, error.is_busy) == (503, "busy", True)
    assert (error.wait, error.retry_after) == (wait, 2.0 if wait is None else wait)
    assert error.started_nothing == error.is_temporary == (status == 429)  # a proxy may have passed on the others


@pytest.mark.parametrize("said", ["soon", "", "-", "tomorrow", "7 seconds", "nan", "inf"])
@pytest.mark.parametrize("status", [503, 529])
def test_an_overload_without_a_time_to_wait_is_a_failure(status: int, said: str) -> None:
    """Asking again may take any time."""
    error = refusal(status, {"retry-after": said}, b"")

    assert (error.status, error.code, error.retry_after) == (502, "upstream_failed", None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"ok": False, "error": {"code": "SANDBOX_NOT_RUNNING"}}, "SANDBOX_NOT_RUNNING"),
        ({"error": "sandbox_not_running"}, "SANDBOX_NOT_RUNNING"),
        ({"code": "SandboxNotRunning", "message": "Stopped."}, "SANDBOX_NOT_RUNNING"),
        ({"errors": [{"code": "INVALID_ID"}]}, "INVALID_ID"),
        ({"detail": {"code": "vm.stopped"}}, "VM_STOPPED"),
        ({"error": "The sandbox is not running"}, None),
        ({"error": {"code": 7}}, None),
        ([], None),
        ("<html>", None),
    ],
)
def test_the_upstreams_own_code_is_for_programs(body: Any, code: str | None) -> None:
    """In one spelling, whichever envelope it came in. Its words stay behind."""
    error = refusal(400, {"x-request-id": "req_1"}, json.dumps(body).encode())

    assert (error.upstream_code, error.request_id) == (code, "req_1")
    assert (error.code, error.status) == ("upstream_rejected", 502)


@pytest.mark.parametrize(
    ("body", "status", "code", "is_temporary"),
    [
        ({"ok": False, "error": {"code": "SANDBOX_NOT_RUNNING", "retryable": False}}, 409, "not_running", False),
        ({"error": {"code": "SANDBOX_NOT_RUNNING"}}, 409, "not_running", False),
        ({"error": "sandbox_not_running"}, 409, "not_running", False),
        ({"error": "not_running"}, 409, "not_running", False),
        ({"code": "COMPUTER_NOT_RUNNING", "message": "Stopped."}, 409, "not_running", False),
        ({"error": {"code": "SANDBOX_DESTROYED"}}, 409, "not_running", False),
        ({"error": {"code": "RESOURCE_CONFLICT", "retryable": False}}, 409, "not_running", False),
        ({"error": {"code": "SANDBOX_STARTING"}}, 503, "not_ready", True),
        ({"error": {"code": "SANDBOX_NOT_COMMAND_READY", "retryable": True}}, 503, "not_ready", True),
        ({"error": {"code": "SANDBOX_STARTING", "retryable": False}}, 503, "not_ready", True),
        ({"error": "sandbox_starting"}, 503, "not_ready", True),
        ({"error": {"code": "SANDBOX_BUSY", "retryable": True, "retry_after_ms": 200}}, 503, "not_ready", True),
        ({"error": {"code": "SANDBOX_ODD"}}, 503, "not_ready", False),
        ({"error": "The sandbox is not running"}, 503, "not_ready", False),
        ({}, 503, "not_ready", False),
    ],
)
def test_a_conflict_passes_or_does_not(body: Any, status: int, code: str, is_temporary: bool) -> None:
    """The kind of fault: a sandbox that is gone for good was told as one that gets ready. Unknown codes may pass."""
    error = refusal(409, {}, json.dumps(body).encode())

    assert (error.status, error.code, error.is_temporary) == (status, code, is_temporary)
    assert (error.retry_after is not None) == (status == 503)
    assert error.started_nothing


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"code": "SANDBOX_NOT_RUNNING", "retryable": False}]},
        {"errors": [{"code": "SANDBOX_NOT_RUNNING"}, {"code": "SANDBOX_STARTING"}]},
        {"errors": {"code": "SANDBOX_NOT_RUNNING"}},
        {"error": {"errors": [{"code": "SANDBOX_NOT_RUNNING"}]}},
        {"detail": {"code": "SANDBOX_NOT_RUNNING", "message": "Stopped."}},
        {"detail": {"error": {"code": "SANDBOX_NOT_RUNNING"}}},
        {"detail": {"error": "sandbox_not_running"}},
        {"detail": [{"code": "SANDBOX_NOT_RUNNING"}]},
        {"detail": {"retryable": False}},
        {"code": 409, "detail": {"code": "SANDBOX_NOT_RUNNING"}},
        {"code": None, "error": "sandbox_not_running"},
        {"error": "Conflict", "errors": [{"code": "SANDBOX_NOT_RUNNING"}]},
        [{"code": "SANDBOX_NOT_RUNNING"}],
        {"code": "SandboxNotRunning"},
        {"error": "sandboxNotRunning"},
        {"error": {"code": "VMNotRunning"}},
        {"code": "sandbox-not-running"},
        {"code": "sandbox.destroyed"},
        {"code": "sandbox/not-running"},
        {"code": "sandbox:stopped"},
        {"code": "Sandbox Not Running"},
        {"code": "NotRunning"},
    ],
)
def test_a_conflict_is_read_in_every_envelope_and_spelling(body: Any) -> None:
    """The kind of fault: the code stood elsewhere, or was spelled as other platforms do, and counted as missing. The
    page then asked again and again for a sandbox that was gone.
    """
    error = refusal(409, {}, json.dumps(body).encode())

    assert (error.status, error.code, error.is_temporary) == (409, "not_running", False)


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"code": "SandboxStarting"}]},
        {"detail": {"code": "sandbox-starting", "retryable": False}},
        {"detail": {"code": "SANDBOX_BUSY", "retryable": True}},
        {"errors": [{"code": "sandbox.not.command.ready"}]},
    ],
)
def test_a_conflict_that_passes_is_read_in_every_envelope_too(body: Any) -> None:
    """The other side of the same rule."""
    assert refusal(409, {}, json.dumps(body).encode()).is_temporary


def test_a_wait_is_a_day_at_the_most() -> None:
    """Timers of browsers overflow, and then they ask at once."""
    assert refusal(429, {"retry-after": "1e300"}, b"").retry_after == 86_400


def test_only_a_refusal_proves_that_nothing_was_started() -> None:
    """A 202 is an acceptance, and proxies answer 408, 460 and 499 to requests that they have passed on."""
    refused = {status for status in range(100, 1000) if refusal(status, {}, b"").started_nothing}

    assert refused >= {400, 401, 402, 403, 404, 406, 409, 413, 422, 429}  # `docs/miosa.md` §6
    assert refused <= set(range(400, 452)) - {408, 418, 419, 420, 424, 427}


@pytest.mark.parametrize(
    "envelope",
    [
        {"error": {"code": "SANDBOX_STARTING", "message": SECRET, "request_id": "req_1", "retry_after_ms": 1500}},
        {"error": "SANDBOX_STARTING", "detail": SECRET, "request_id": "req_1", "retry_after": 1.5},
        {"code": "sandbox_not_command_ready", "message": SECRET, "request_id": "req_1", "retry_after": "1.5"},
        {"error": {"code": "X", "retryable": True}, "request_id": "req_1", "retry_after_ms": 1500},
        {
            "error": {"code": "SANDBOX_STARTING", "request_id": None, "retry_after_ms": None, "retryable": None},
            "request_id": "req_1",
            "retry_after": 1.5,
        },
    ],
)
def test_every_envelope_that_has_a_code_is_read(envelope: dict[str, Any]) -> None:
    """Codes compare case-insensitively, and hints stand inside or outside (`docs/miosa.md` §6)."""
    error = refusal(409, {}, json.dumps(envelope).encode())

    assert error.is_temporary
    assert error.request_id == "req_1"
    assert error.wait == error.retry_after == 1.5
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": SECRET}).encode(),
        json.dumps({"errors": [SECRET]}).encode(),
        json.dumps({"errors": {"command": [SECRET]}}).encode(),
        f"<!DOCTYPE html><html><title>{SECRET}</title>".encode(),
        SECRET.encode("utf-16"),
        b"[" * 50_000,
        b'{"retry_after_ms":' + b"9" * 60_000 + b"}",
        b"",
    ],
    ids=["text", "list", "fields", "html", "utf-16", "deep", "number", "nothing"],
)
def test_without_a_code_only_the_status_counts(body: bytes) -> None:
    """Every form of the error hides the body."""
    error = refusal(409, {"x-request-id": "req_1"}, body)

    assert not error.is_temporary
    assert (error.code, error.request_id, error.retry_after) == ("not_ready", "req_1", 2.0)
    assert SECRET not in f"{error!s} {error!r} {error.args} {vars(error)}"


@pytest.mark.parametrize(
    ("status", "body", "temporary"),
    [
        (409, {"error": {"code": "COMPUTER_NOT_RUNNING"}}, False),
        (409, {"error": {"code": "SANDBOX_STARTING", "retryable": False}}, True),
        (409, {"errors": ["starting"]}, False),
        (429, {}, True),
        (503, {"error": {"code": "SANDBOX_STARTING", "retryable": True}}, False),
        (404, {"error": {"retryable": True}}, False),
    ],
)
def test_only_a_sandbox_that_becomes_ready_is_worth_waiting_for(status: int, body: Any, temporary: bool) -> None:
    """A 503 may have started something, so it is final whatever it says."""
    assert refusal(status, {}, json.dumps(body).encode()).is_temporary is temporary


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", None),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    """Everything else is ignored (RFC 9110 10.2.3)."""
    error = refusal(429, {"retry-after": header}, b"")

    assert error.wait == seconds
    assert error.retry_after == (2.0 if seconds is None else seconds)


def test_retry_after_may_be_a_future_date() -> None:
    """The wait is the time until then."""
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)

    assert 25 < (refusal(429, {"retry-after": then}, b"").wait or 0) <= 30


@pytest.mark.parametrize("milliseconds", ["soon", [], {}, True, None, float("inf")])
def test_milliseconds_win_over_the_header_if_they_are_a_number(milliseconds: Any) -> None:
    """They are the more exact of the two."""
    body = json.dumps({"retry_after_ms": milliseconds}).encode()

    assert refusal(429, {"retry-after": "7"}, body).wait == 7
    assert refusal(429, {"retry-after": "7"}, b'{"retry_after_ms":6500}').wait == 6.5


def test_the_request_id_of_the_header_wins_if_it_is_well_formed() -> None:
    """The platform's own logs use it."""
    body = b'{"request_id":"inside"}'

    assert refusal(404, {"x-request-id": "outside"}, body).request_id == "outside"
    assert refusal(404, {"x-request-id": "not an id"}, body).request_id == "inside"


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "a\r\nSet-Cookie: x", "ü", 7, None])
def test_a_malformed_request_id_is_left_out(request_id: Any) -> None:
    """It would go into a log line and a response."""
    assert refusal(404, {}, json.dumps({"request_id": request_id}).encode()).request_id is None


@given(
    st.integers(201, 599), st.binary(max_size=100) | st.text(max_size=30).map(lambda text: json.dumps([text]).encode())
)
def test_any_body_can_be_read(status: int, body: bytes) -> None:
    """With HTML, lists or garbage, the status alone decides."""
    assert refusal(status, {}, body).code


@pytest.mark.parametrize("wait", ["inf", "nan", 10**400])
def test_a_wait_that_is_not_a_finite_time_is_ignored(wait: Any) -> None:
    """Waiting for it would last indefinitely."""
    error = refusal(429, {"retry-after": str(wait)}, b"")

    assert error.wait is None
    assert error.retry_after == 2.0
