"""A platform that answers as a test wants, and commands to run on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sse_bridge import Miosa, SandboxExec
from sse_bridge.upstream import reopening, retrying
from sse_bridge.upstream.base import Work
from sse_bridge.upstream.miosa import background
from sse_bridge.upstream.retrying import Backoff
from tests.support.upstreams import Connection, Handler, read_all

KEY = "msk_test_secret"


def output(connection: Connection) -> None:
    """One event, and the end."""
    connection.stream()
    connection.chunk(b"data: 1\n\n")
    connection.end()


def breaks(connection: Connection) -> None:
    """Half a head."""
    connection.send(b"HTTP/1.1 2")


def no_content(connection: Connection) -> None:
    """204."""
    connection.head(204)


def answer(status: int, body: object) -> Handler:
    """An answer in JSON."""
    return lambda connection: connection.answer(status, json.dumps(body).encode())


def streaming(*chunks: bytes, ends: bool = True) -> Handler:
    """A stream of these chunks."""

    def stream(connection: Connection) -> None:
        connection.stream()
        for chunk in chunks:
            connection.chunk(chunk)
        if ends:
            connection.end()

    return stream


def lost(*chunks: bytes) -> Handler:
    """A stream that breaks off behind these chunks."""
    return streaming(*chunks, ends=False)


def going_on(*chunks: bytes) -> Handler:
    """A stream that goes on behind these chunks until the client leaves."""

    def stream(connection: Connection) -> None:
        lost(*chunks)(connection)
        connection.wait_until_left()

    return stream


def refusing(status: int, code: str = "X", **headers: str) -> Handler:
    """A refusal in the platform's envelope. Its message holds the key, to show that messages stay behind."""
    body = json.dumps({"error": {"code": code, "message": f"words {KEY}"}}).encode()
    return lambda connection: connection.answer(status, body, **headers)


def result(stdout: str, status: int = 200, wrapped: bool = True) -> Handler:
    """The result of an exec, in an envelope or bare."""
    body = {"stdout": stdout, "stderr": "", "exit_code": 0}
    answer = json.dumps({"data": body} if wrapped else body).encode()
    return lambda connection: connection.answer(status, answer)


def work_on(url: str, command: str = "ls", **options: Any) -> Work:
    """A command on that platform."""
    return SandboxExec("sbx_1", command, **options).work(Miosa(url, KEY, tenant="t"), None)


async def read(work: Work) -> bytes:
    """Runs the command, and returns its output."""
    async with work.stream() as stream:
        return await read_all(stream)


def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform is asked again soon, for up to ten seconds."""
    monkeypatch.setattr(background, "READY_BACKOFF", Backoff(0.01, 4.0))
    monkeypatch.setattr(background, "READY_TIMEOUT", 10)
    monkeypatch.setattr(background, "BACKOFF", Backoff(0.01, 0.02))
    monkeypatch.setattr(reopening, "REOPEN_BACKOFF", Backoff(0.01, 0.02))


def recorded_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces the clock between attempts: waits take no time, and are written down here."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(retrying, "sleep", sleep)
    monkeypatch.setattr(retrying, "current_time", lambda: sum(waits))
    return waits
