"""A client for the local sandbox that returns raw bytes, and ways to look at processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import httpx

__all__ = [
    "KEY",
    "Box",
    "eventually",
    "frame",
    "is_running",
    "lines_of",
    "number_in",
    "number_soon_in",
    "pieces_of",
    "soon",
]

KEY: Final = "msk_test_key"

#: Seconds to wait for an expected event. Most take milliseconds.
_TIMEOUT: Final = 10.0
#: Seconds between two looks.
_PAUSE: Final = 0.005


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until `condition` holds; fails after a generous time."""
    deadline = time.monotonic() + _TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(_PAUSE)


async def soon(condition: Callable[[], bool]) -> None:
    """`eventually`, in an async test."""
    for _ in range(round(_TIMEOUT / _PAUSE)):
        if condition():
            return
        await anyio.sleep(_PAUSE)
    raise AssertionError("it did not happen in time")


def number_in(path: Path) -> int | None:
    """The number that a command writes to a file with `echo`, or `None` before it has."""
    content = path.read_text() if path.exists() else ""
    return int(content) if content.endswith("\n") else None


async def number_soon_in(path: Path) -> int:
    """Waits for the number in a file, and returns it."""
    await soon(lambda: number_in(path) is not None)
    return number_in(path) or 0


def is_running(pid: int) -> bool:
    """Whether a process exists; a zombie counts as ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between opening and reading
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def frame(event: str, data: Mapping[str, object]) -> bytes:
    """One frame of `exec/stream`, by the obvious and slow way."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def pieces_of(stream: bytes, event: str = "stdout") -> list[str]:
    """The texts that came before their line ended, or with its end, of one kind in a whole stream."""
    head = f"event: {event}\ndata: ".encode()
    bodies = [json.loads(each.removeprefix(head)) for each in stream.split(b"\n\n") if each.startswith(head)]
    return [body["data"] for body in bodies if "data" in body]


def lines_of(stream: bytes, event: str = "stdout") -> list[str]:
    """The lines of one kind in a whole stream."""
    head = f"event: {event}\ndata: ".encode()
    frames = stream.split(b"\n\n")
    return [json.loads(each.removeprefix(head))["line"] for each in frames if each.startswith(head)]


class Box:
    """One sandbox of a served application, over plain HTTP."""

    def __init__(self, http: httpx.Client, **body: object) -> None:
        self.http = http
        self.id = http.post("/sandboxes", json=body).raise_for_status().json()["data"]["id"]
        self.path = f"/sandboxes/{self.id}"

    def exec(self, command: str, **options: object) -> dict[str, object]:
        """The answer of `exec`."""
        response = self.http.post(f"{self.path}/exec", json={"command": command, **options})
        data: dict[str, object] = response.raise_for_status().json()["data"]
        return data

    def stream(self, command: str, **options: object) -> bytes:
        """The whole body of `exec/stream`."""
        response = self.http.post(f"{self.path}/exec/stream", json={"command": command, **options})
        return response.raise_for_status().content

    def write(self, path: str, content: str) -> None:
        """Writes text to a file."""
        self.http.post(f"{self.path}/fs/write", json={"path": path, "content": content}).raise_for_status()

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or `None` if it is missing."""
        response = self.http.get(f"{self.path}/fs/download", params={"path": path})
        return response.content if response.is_success else None

    def pid(self, path: str) -> int:
        """Waits for the process id that a command writes to a file."""
        eventually(lambda: (self.read(path) or b"").endswith(b"\n"))
        return int(self.read(path) or b"0")

    def data(self, path: str, **query: int) -> Any:
        """What a route of the sandbox answers."""
        return self.http.get(f"{self.path}/{path}", params=query).raise_for_status().json()["data"]

    def assert_refused(self, *routes: tuple[str, str]) -> None:
        """Each method and path is refused, because the sandbox does not run."""
        for method, path in routes:
            refusal = self.http.request(method, f"{self.path}/{path}", json={"command": "true"})
            assert (refusal.status_code, refusal.json()["error"]["code"]) == (409, "SANDBOX_NOT_RUNNING")

    def destroy(self) -> None:
        """Destroys the sandbox, which may be gone already."""
        self.http.delete(self.path)
