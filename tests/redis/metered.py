"""The local sandbox as the platform of several workers, which counts what they ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.sandboxes import LocalSandbox, local_sandbox

__all__ = ["Platform", "a_platform"]


class Platform:
    """A sandbox, and the calls that workers have made."""

    def __init__(self) -> None:
        self._box: LocalSandbox
        self._paths: list[str] = []
        self._holds = False

    @property
    def settings(self) -> dict[str, Any]:
        """How a worker reaches the sandbox."""
        return self._box.settings

    @property
    def starts(self) -> int:
        """How many commands were started."""
        return sum(path.endswith("/exec/stream") for path in self._paths)

    @property
    def cancels(self) -> int:
        """How often a command was asked to end."""
        return sum(path.endswith("/exec") for path in self._paths)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Answers no request to end a command meanwhile. It is lost."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False

    def counting(self, app: ASGIApp) -> ASGIApp:
        """The same application, whose requests are counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self._paths.append(scope["path"])
                if self._holds and scope["path"].endswith("/exec"):
                    while self._holds:  # noqa: ASYNC110 (another thread sets it)
                        await anyio.sleep(0.02)
                    await PlainTextResponse("lost", 504)(scope, receive, send)
                    return
            await app(scope, receive, send)

        return counted

    def attach(self, box: LocalSandbox) -> None:
        """Names the sandbox."""
        self._box = box


@contextmanager
def a_platform() -> Iterator[Platform]:
    """A served sandbox."""
    made = Platform()
    with local_sandbox(around=made.counting) as box:
        made.attach(box)
        yield made
