"""The log of causes: it names them at DEBUG, and leaves out what HTTP clients quote of requests and responses."""

from __future__ import annotations

import logging

import pytest

from sse_bridge.causes import cleared, log_cause


def failure(*messages: str) -> Exception:
    """An exception with the first message, caused by one with the second, and so on."""
    cause: Exception | None = None
    for message in reversed(messages):
        error = ValueError(message)
        if cause is not None:
            error.__cause__ = cause
        cause = error
    assert cause is not None
    return cause


def logged(caplog: pytest.LogCaptureFixture, error: Exception) -> str:
    with caplog.at_level(logging.DEBUG, "sse_bridge"):
        log_cause(error, "run %s failed", "abc")
    return caplog.text


def test_all_causes_are_named_and_cleared(caplog: pytest.LogCaptureFixture) -> None:
    """Of members of groups, too: connections that were tried at the same time fail in one."""
    error = failure("first", "second Bearer secret")
    assert error.__cause__ is not None
    error.__cause__.__context__ = ExceptionGroup("third", [failure("fourth", "fifth Bearer secret")])
    text = logged(caplog, error)

    assert "run abc failed" in text
    assert all(message in text for message in ("first", "second", "third", "fourth", "fifth"))
    assert "secret" not in text
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def test_a_circle_of_causes_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    """Python allows them."""
    error = failure("first", "second")
    assert error.__cause__ is not None
    error.__cause__.__cause__ = error

    assert "second" in logged(caplog, error)


def test_above_debug_there_is_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """The exception keeps its message."""
    error = failure("Bearer secret")
    with caplog.at_level(logging.INFO, "sse_bridge"):
        log_cause(error, "run failed")

    assert not caplog.records
    assert str(error) == "Bearer secret"


@pytest.mark.parametrize(
    ("message", "rest"),
    [
        ("illegal header line: bytearray(b'X-Key: secret')", "illegal header line: <bytes>"),
        ('Illegal header value b"it\'s a secret"', "Illegal header value <bytes>"),
        (r"illegal chunk header: b'sec\'ret secret'", "illegal chunk header: <bytes>"),
        (
            "GET https://user:secret@h.example:8443/a/secret?ticket=secret failed",
            "GET https://h.example:8443/... failed",
        ),
        ("no route to http://h.example", "no route to http://h.example/..."),
        ("for url '/events?ticket=secret&x=secret'", "for url '/events?...'"),
        ("Authorization: Bearer secret", "Authorization: Bearer ..."),
        ("[Errno 111] Connect call failed ('127.0.0.1', 80)", "[Errno 111] Connect call failed ('127.0.0.1', 80)"),
    ],
)
def test_what_was_sent_and_received_is_left_out(caplog: pytest.LogCaptureFixture, message: str, rest: str) -> None:
    """Keys, tickets in URLs, and output that a parser choked on."""
    text = logged(caplog, failure("The connection broke.", message))

    assert f"ValueError: {rest}\n" in text
    assert "secret" not in text


@pytest.mark.parametrize("secret", ["msk_live_0123", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJhbGciOi"])
@pytest.mark.parametrize("around", ["{}", "unknown key {}.", "key={}", r"\n{}\n"])
def test_keys_and_tokens_are_cleared_wherever_they_stand(secret: str, around: str) -> None:
    """Whole, or cut short by an upstream that quotes them."""
    assert secret[:8] not in cleared(around.format(secret))
