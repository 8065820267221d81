"""A local sandbox on a real server, and helpers that use its API."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import psutil
from starlette.types import ASGIApp

from sse_bridge import Miosa
from sse_bridge.sandbox import create_app
from tests.support.servers import serve

__all__ = ["KEY", "LocalSandbox", "local_sandbox", "new_mark", "running"]

KEY: Final = "msk_test_0123456789abcdef"


@dataclass(frozen=True)
class LocalSandbox:
    """One sandbox on a running server."""

    url: str
    id: str

    @property
    def settings(self) -> dict[str, Any]:
        """How a bridge in another process reaches the sandbox; see `bridge_process` and `server_process`."""
        return {"url": self.url, "key": KEY, "sandbox": self.id}

    def miosa(self, key: str = KEY) -> Miosa:
        return Miosa(self.url, key)

    def another(self, **body: Any) -> LocalSandbox:
        """A new sandbox on the same server."""
        url = f"{self.url}/api/v1/sandboxes"
        answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {KEY}"}).raise_for_status()
        return LocalSandbox(self.url, answer.json()["data"]["id"])

    def write(self, path: str, content: str) -> None:
        self._post("fs/write", {"path": path, "content_base64": _base64(content)})

    def run(self, command: str) -> dict[str, Any]:
        result: dict[str, Any] = self._post("exec", {"command": command})["data"]
        return result

    def processes(self) -> list[dict[str, Any]]:
        """What `GET .../processes` lists."""
        url = f"{self.url}/api/v1/sandboxes/{self.id}/processes"
        answer = httpx.get(url, headers={"Authorization": f"Bearer {KEY}"}).raise_for_status()
        listed: list[dict[str, Any]] = answer.json()["data"]
        return listed

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        url = f"{self.url}/api/v1/sandboxes/{self.id}/{path}"
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {KEY}"}).raise_for_status().json()


@contextmanager
def local_sandbox(around: Callable[[ASGIApp], ASGIApp] | None = None, **body: Any) -> Iterator[LocalSandbox]:
    """Serves the local sandbox's API and creates a sandbox with `body` as the request.

    Args:
        around: wraps the application, to see its requests.
    """
    app: ASGIApp = create_app(key=KEY)
    with serve(app if around is None else around(app)) as served:
        answer = httpx.post(
            f"{served.url}/api/v1/sandboxes", json=body, headers={"Authorization": f"Bearer {KEY}"}
        ).raise_for_status()
        yield LocalSandbox(served.url, answer.json()["data"]["id"])


def new_mark() -> str:
    """A number of seconds to sleep, by which a test finds its own processes (see `running`)."""
    return f"300.{uuid.uuid4().int % 10**12:012}"


def running(mark: str) -> list[psutil.Process]:
    """The processes of this machine with `mark` in their command line, except zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _base64(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()
