"""Clients of event streams as processes: each prints what it receives, as `data: ...`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.programs import end, find
from tests.support.skipping import skip
from tests.support.waiting import eventually

__all__ = ["CLIENTS", "Client", "Following", "following"]

_FOLDER: Final = Path(__file__).parent / "clients"


@dataclass(frozen=True)
class Client:
    """A client by its command line.

    Args:
        title: as the page calls it.
        command: `{url}` is filled in; `{browser}` stands for the path of `browser`.
        comes_back: whether it comes back by itself after a cut.
        place: arguments that name the place to resume from. A browser's page finds it in its query.
        browser: the program that shows the page. It is told to close its tab; other clients are ended.
        refusal: what it learns of a refusal.
        is_http2: whether it is tried behind a proxy with HTTP/2.
    """

    title: str
    command: tuple[str, ...]
    comes_back: bool = True
    place: tuple[str, ...] = ()
    browser: str = ""
    refusal: str = "status"
    is_http2: bool = False
    is_quick: bool = False


def _browser(title: str, program: str, *command: str, **options: Any) -> Client:
    return Client(title, command, browser=program, refusal="closes", **options)


def _chromium(title: str, **options: Any) -> Client:
    return _browser(title, "chromium", "node", "browser.mjs", "chrome", "{browser}", "{url}", **options)


def _firefox(title: str, **options: Any) -> Client:
    return _browser(title, "firefox-esr", "node", "browser.mjs", "firefox", "{browser}", "{url}", **options)


def _webkit(title: str, **options: Any) -> Client:
    return _browser(title, "WebKitWebDriver", "{python}", "webkit.py", "{browser}", "{url}", **options)


def _python(title: str, file: str, **options: Any) -> Client:
    return Client(title, ("{python}", file, "{url}"), comes_back=False, place=("{place}",), **options)


def _curl(title: str, **options: Any) -> Client:
    command = ("curl", "-sNk", "-w", "\\nstatus: %{{http_code}}\\n", "{url}")
    return Client(title, command, comes_back=False, place=("-H", "Last-Event-ID: {place}"), **options)


CLIENTS: Final = {
    "chromium": _chromium("Chromium"),
    "chromium-h2": _chromium("Chromium, HTTP/2", is_http2=True),
    "firefox": _firefox("Firefox"),
    "firefox-h2": _firefox("Firefox, HTTP/2", is_http2=True),
    "webkit": _webkit("WebKitGTK"),
    "webkit-h2": _webkit("WebKitGTK, HTTP/2", is_http2=True, comes_back=False),  # goes on waiting after a cut
    "node": Client("Node: `eventsource`", ("node", "eventsource.mjs", "{url}")),
    "httpx-sse": _python("httpx-sse", "httpx_sync.py", is_quick=True),
    "httpx-sse-async": _python("httpx-sse, async", "httpx_async.py"),
    "aiohttp-sse-client": _python("aiohttp-sse-client", "aiohttp_client.py", refusal="closes"),
    "curl": _curl("curl `-N`"),
    "curl-h2": _curl("curl `-N`, HTTP/2", is_http2=True),
}


class Following:
    """A client while it runs."""

    def __init__(self, client: Client, process: subprocess.Popen[str]) -> None:
        self._client = client
        self._process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def until(self, piece: str) -> None:
        """Waits until the client has shown it."""
        with suppress(AssertionError):  # what it has shown says more
            eventually(lambda: any(piece in line for line in self.lines) or self._has_ended(), 30)
        assert any(piece in line for line in self.lines), self.lines

    def _has_ended(self) -> bool:
        """Whether all that the client has printed was read."""
        return self._process.poll() is not None and not self._thread.is_alive()

    def code(self) -> int:
        """Waits for its end. Returns its exit code."""
        code = self._process.wait(30)
        self._thread.join()
        return code

    def leave(self) -> None:
        """Closes the tab, or ends the program."""
        if self._client.browser:
            assert self._process.stdin is not None
            self._process.stdin.write("leave\n")
            self._process.stdin.flush()
        else:
            self._process.terminate()

    def end(self) -> None:
        """Ends the program. A browser's script ends the browser when its input ends, or else at SIGTERM."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if self._client.browser:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        end(self._process, 10)
        self._thread.join(10)
        self._process.stdout.close()

    @property
    def last_id(self) -> str:
        """The id of the last event."""
        return [line.removeprefix("id: ") for line in self.lines if line.startswith("id: ")][-1]

    def objects(self) -> list[dict[str, Any]]:
        """The messages so far."""
        return [json.loads(line.removeprefix("data: ")) for line in self.lines if line.startswith("data: ")]


@contextmanager
def following(client: Client, url: str, place: str = "") -> Iterator[Following]:
    """Starts a client; ends it with the context."""
    browser = find(client.browser) if client.browser else ""
    if client.command[0] == "node" and not (_FOLDER / "node_modules").is_dir():
        skip("the npm packages of tests/matrix/clients are missing; `make test-matrix` installs them with npm")
    parts = [*client.command, *(client.place if place else ())]
    program, *arguments = (part.format(python=sys.executable, browser=browser, url=url, place=place) for part in parts)
    process = subprocess.Popen(
        [find(program), *arguments],
        cwd=_FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    made = Following(client, process)
    try:
        yield made
    finally:
        made.end()
