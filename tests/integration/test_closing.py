"""Responses whose connection is closed behind them, as HTTP/1.0 and `Connection: close` ask for, on every server.

The fault: a server's closing was taken for the client's leaving, and cut short by it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.command_lines import ServerProcess, server_process
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.waiting import eventually

#: Seconds in which a connection must be closed. One that is forgotten stays open until its keep-alive ends (5 s).
PROMPT = 3.0

REQUESTS = {
    "HTTP 1.0": "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "close": "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "POST, close": "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}",
}


#: By which the tests find their own processes.
MARK = f"sleep {new_mark()}"


@pytest.fixture(
    params=[
        "hypercorn-trio",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("hypercorn", "uvicorn", "granian", "gunicorn", "gunicorn-uvicorn", "daphne")
        ),
    ],
    scope="module",
)
def server(
    request: pytest.FixtureRequest, sandbox: LocalSandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    settings: dict[str, Any] = {
        **sandbox.settings,
        "commands": {
            "short": "echo one; echo two",
            "long": "seq 20000",
            "slow": "echo one; sleep 1; echo two",
            "endless": MARK,
        },
        "options": {"cancel_timeout": 2.0, "grace": 0},
    }
    with server_process(request.param, tmp_path_factory.mktemp("server"), **settings) as process:
        yield process


def ask(server: ServerProcess, kind: str, path: str) -> tuple[bytes, float]:
    """The whole answer, and the seconds from its last byte to the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(REQUESTS[kind].format(path=path).encode())
        content, last = b"", time.monotonic()
        while chunk := connection.recv(65536):
            content, last = content + chunk, time.monotonic()
        return content, time.monotonic() - last


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("run", ["short", "long", "slow"])
def test_the_connection_of_a_stream_is_closed_behind_its_end(server: ServerProcess, kind: str, run: str) -> None:
    """At once, and behind all of it."""
    content, seconds = ask(server, kind, f"/run-sse/?run={run}")

    assert b'"type":"exit","code":0' in content
    if b"transfer-encoding: chunked" in content.lower():
        assert content.endswith(b"\r\n0\r\n\r\n")
    assert seconds < PROMPT


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_connection_of_a_refusal_is_closed_behind_it(server: ServerProcess, kind: str) -> None:
    content, seconds = ask(server, kind, "/run-sse/aaaaaaaaaaaaaaaaaaaaaa")

    assert b" 404 " in content or b" 405 " in content
    assert seconds < PROMPT


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_client_that_leaves_is_still_noticed(server: ServerProcess, kind: str) -> None:
    """Its command ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(REQUESTS[kind].format(path="/run-sse/?run=endless").encode())
        eventually(lambda: running(MARK))
    eventually(lambda: not running(MARK))
