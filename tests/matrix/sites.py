"""A cell of the matrix while it runs, and the scripts that its viewers see."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import trustme

from tests.matrix.apps import LINES
from tests.matrix.cells import Cell
from tests.matrix.proxies import behind
from tests.matrix.tabs import Tab, opened, opened_over_http2
from tests.support.command_lines import ServerProcess, served_by
from tests.support.programs import is_listening
from tests.support.sandboxes import KEY, LocalSandbox, running

__all__ = ["Script", "Site", "assert_is_complete", "site"]

#: What a script prints on each stream.
_EXPECTED: Final = {"stdout": ["first", *(f"line {number}" for number in range(1, LINES + 1))], "stderr": ["warning"]}


class Script:
    """One run's script. It prints a line, and goes on once it is released."""

    def __init__(self, sandbox: LocalSandbox) -> None:
        self.mark = uuid.uuid4().hex
        self._sandbox = sandbox

    def release(self) -> None:
        """Lets it print the other lines and end."""
        self._sandbox.write(f"/workspace/go-{self.mark}", "")

    def is_running(self) -> bool:
        """Whether it has a process."""
        return bool(running(f"go-{self.mark}"))

    def starts(self) -> int:
        """How often it was started."""
        text: str = self._sandbox.run(f"cat /workspace/starts-{self.mark}")["stdout"]
        return text.count("started")


@dataclass(frozen=True)
class Site:
    """A cell that serves."""

    cell: Cell
    #: Where its viewers connect.
    url: str
    process: ServerProcess
    sandbox: LocalSandbox
    #: Trusts the cell's certificate, and asks for HTTP/2.
    tls: ssl.SSLContext

    @property
    def port(self) -> int:
        """The port of `url`."""
        return urlsplit(self.url).port or 0

    def script(self) -> Script:
        """A new script."""
        return Script(self.sandbox)

    def address(self, bridge: str, query: str = "", *, below: str = "", port: int | None = None) -> str:
        """Of a bridge, or of a run below it, perhaps through another port."""
        url = self.url if port is None else self.url.replace(f":{self.port}", f":{port}")
        path = f"{self.cell.prefix}/{bridge}/{below}" if below else f"{self.cell.prefix}/{bridge}{self.cell.slash}"
        return f"{url}{path}?{query}"

    def open(
        self, bridge: str, script: Script, *, port: int | None = None, place: str | None = None
    ) -> AbstractContextManager[Tab]:
        """Opens a stream of a script's run, as its viewers do."""
        address = self.address(bridge, f"mark={script.mark}", port=port)
        if self.cell.is_http2:
            return opened_over_http2(self.tls, address, place)
        return opened("GET", address, place=place)

    def ask(self, method: str, address: str) -> Tab:
        """Sends a request, over HTTP/2 where viewers use that. Returns the whole response."""
        with opened(method, address, self.tls if self.cell.is_http2 else None) as tab:
            tab.rest()
        return tab


@contextmanager
def site(
    cell: Cell, sandbox: LocalSandbox, authority: trustme.CA, leaf: trustme.LeafCert, folder: Path
) -> Iterator[Site]:
    """Serves a cell until the context ends."""
    tls = ssl.create_default_context()
    tls.set_alpn_protocols(["h2"])
    authority.configure_trust(tls)
    certificate, key = b"".join(part.bytes() for part in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
    (folder / "tls.pem").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
    command = [
        part.replace("{cert}", str(folder / "tls.pem")).replace("{key}", str(folder / "tls.key"))
        for part in cell.server.command
    ]
    settings = {
        "url": sandbox.url,
        "key": KEY,
        "sandbox": sandbox.id,
        "framework": cell.framework,
        "counts_heartbeats": bool(cell.heartbeats),
    }
    with ExitStack() as stack:
        process = stack.enter_context(served_by(command, folder / "log", settings, _is_up))
        port = process.port
        if cell.proxy is not None:
            port = stack.enter_context(behind(cell.proxy, port, certificate, key))
        url = f"http{'s' if cell.is_http2 else ''}://localhost:{port}"
        yield Site(cell, url, process, sandbox, tls)


def _is_up(process: ServerProcess) -> bool:
    return is_listening(process.port)


def assert_is_complete(objects: list[dict[str, Any]]) -> None:
    """The messages hold every line of a script once and in order, and end with its exit code."""
    for stream, expected in _EXPECTED.items():
        assert [body["line"] for body in objects if body["type"] == stream] == expected
    assert objects[-1] == {"type": "exit", "code": 3}
