"""An upstream that does byte for byte what a test wants, in a thread, so that any event loop can talk to it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One request and the ways to answer it."""

    def __init__(self, raw: socket.socket, request: Request) -> None:
        self._raw = raw
        self.request = request

    def send(self, data: bytes) -> None:
        self._raw.sendall(data)

    def head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.head(status, content_length=str(len(body)), **headers)
        self.send(body)

    def stream(self) -> None:
        self.head(200, content_type="text/event-stream", transfer_encoding="chunked")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def wait_until_left(self) -> None:
        """Returns when the other side has closed the connection."""
        with suppress(OSError):
            while self._raw.recv(4096):
                pass


@dataclass
class RawUpstream:
    url: str
    requests: list[Request] = field(default_factory=list)
    #: Released whenever a connection was closed by the client.
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


Handler = Callable[[Connection], None]


@contextmanager
def serve_raw(*handlers: Handler) -> Iterator[RawUpstream]:
    """Each handler answers one request, in turn, and the last one all that follow; then the connection is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = RawUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve(raw: socket.socket) -> None:
            with raw:
                raw.settimeout(20)
                request = _read(raw)
                if request is not None:
                    upstream.requests.append(request)
                    handler = handlers[min(len(upstream.requests), len(handlers)) - 1]
                    with suppress(OSError):
                        handler(Connection(raw, request))
            upstream.left.release()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield upstream
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _read(raw: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = raw.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip(" ") for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += raw.recv(65536)
    method, path, _ = first.split(" ")
    return Request(method, path, headers, body)


def dead_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
