"""The upstream's words in the log: what the operator needs, and no word of what the request held."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sse_bridge.upstream.wording import for_the_log

KEY = "msk_live_0123456789"
BODY = {
    "command": "deploy --token=hunter2\n ls -l /srv/secret-place",
    "env": {"PASSWORD": "pa55-w0rd", "N": "42"},
    "cwd": "/home/ann",
    "timeout": 5,
}


def logged(message: str, json: Any = BODY, url: str = "https://h.example/sandboxes/sbx_1/exec") -> str:
    request = httpx.Request("POST", url, headers={"Authorization": f"Bearer {KEY}", "X-Tenant": "acme-inc"}, json=json)
    return for_the_log(message, request)


@pytest.mark.parametrize(
    "message",
    [
        "INVALID_TIMEOUT: 1 to 86400 seconds",
        "Missing scope sandboxes:write",
        "It is down for maintenance; see status 7.",
    ],
)
def test_the_words_of_the_upstream_stay(message: str) -> None:
    """They are what the operator needs."""
    assert logged(message) == message


@pytest.mark.parametrize(
    "quoted",
    [
        KEY,
        KEY[:12],
        KEY.upper(),
        "msk_someone_elses",
        f"Bearer {KEY}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "hunter2",
        "--token=hunter2",
        "deploy --token=hunter2\n ls -l /srv/secret-place",
        "deploy --token=hunter2 ls -l /srv/secret-place",
        "/srv/secret-pla",
        "pa55-w0rd",
        "/home/ann",
        "acme-inc",
        "u53r",
        "t1cket",
        "https://other.example/path?key=value",
    ],
)
@pytest.mark.parametrize(
    "around", ["Got {}", "'{}' is bad", "at ({}): bad", r"\n{}\n", "_{}_", "{}" + "x " * 900, "y " * 495 + "{}"]
)
def test_what_the_request_held_is_cut_out(quoted: str, around: str) -> None:
    """An upstream quotes a request whole, in parts, in other white space or letters of another case, and cut short."""
    text = logged(around.format(quoted), url="https://u53r:p@h.example/a?t=t1cket")

    for secret in (
        "0123456789", "someone", "hunter2", "secret", "w0rd", "pa55", "/home", "acme", "u53r", "t1cket", "eyj", "key=",
    ):  # fmt: skip
        assert secret not in text.lower()


@pytest.mark.parametrize("cwd", ["/space/shop", "/workspace2", "/home/workspace"])
def test_the_folder_of_every_sandbox_stays(cwd: str) -> None:
    """MIOSA documents it. The kind of fault: `--cwd /space/shop` left "inside /work..." of the reason."""
    message = "path must be inside /workspace"
    assert logged(f"INVALID_PATH: {message}, not {cwd}", {"cwd": cwd}) == f"INVALID_PATH: {message}, not ..."


@pytest.mark.parametrize("command", ["ls", "ls -l", "id", "a b c"])
def test_short_commands_are_cut_out_as_a_whole(command: str) -> None:
    """Their words are too short to tell from the upstream's own, and are left in there."""
    assert logged(f"cannot run: {command}", {"command": command}) == "cannot run: ..."
    assert logged("details are missing, idle", {"command": command}) == "details are missing, idle"


@pytest.mark.parametrize(
    "message",
    ["a\r\nERROR b", "a\tERROR b", "a\u2028ERROR b", "a\x0bERROR b", "a \x1bERROR b", "a\0 ERROR b", "a \ud800ERROR b"],
)
def test_a_message_is_one_printable_line(message: str) -> None:
    """It cannot pass for another line of the log, nor speak to a terminal."""
    assert logged(message) == "a ERROR b"


def test_a_message_has_a_bound() -> None:
    """An upstream may send any amount."""
    assert len(logged("x" * 60_000)) == 300


@pytest.mark.parametrize("json", [None, [], "word", ["hunter2"], {"a": [{"b": "hunter2"}]}, 7])
def test_any_body_can_be_looked_at(json: Any) -> None:
    """`EventStream` sends what JSON can say."""
    assert logged("no such thing", json) == "no such thing"
