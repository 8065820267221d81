"""An upstream that does byte for byte what a test wants, in a thread, so that any event loop can talk to it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import httpx

from sse_bridge.upstream.transport import FastTransport


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
        #: Set by a handler whose answer was complete: the connection takes one more request.
        self.stays = False

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

    def stay(self) -> None:
        """As `end`, and the connection can be used again."""
        self.stays = True
        self.end()

    def wait_until_left(self) -> None:
        """Returns when the other side has closed the connection."""
        with suppress(OSError):
            while self._raw.recv(4096):
                pass


@dataclass
class RawUpstream:
    url: str
    requests: list[Request] = field(default_factory=list)
    #: How many connections there were.
    accepted: int = 0
    #: Released whenever one was accepted.
    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    #: Released whenever a whole request was read.
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    #: Released whenever a connection is over: the client closed it, or its handler returned.
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def until_reached(self, times: int = 1) -> None:
        await _acquire(self.reached, times)

    async def until_asked(self, times: int = 1) -> None:
        await _acquire(self.asked, times)

    async def until_left(self, times: int = 1) -> None:
        await _acquire(self.left, times)


async def _acquire(semaphore: threading.Semaphore, times: int) -> None:
    for _ in range(times):
        assert await anyio.to_thread.run_sync(lambda: semaphore.acquire(timeout=10)), "it did not happen"


Handler = Callable[[Connection], None]


@contextmanager
def serve_raw(*handlers: Handler) -> Iterator[RawUpstream]:
    """Each handler answers one request, in turn, and the last one all that follow; then the connection is closed.

    What is still open when the context ends is cut off, so that no thread is left.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = RawUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def answer_one(raw: socket.socket) -> bool:
            request = _read(raw)
            if request is None:
                return False
            upstream.requests.append(request)
            handler = handlers[min(len(upstream.requests), len(handlers)) - 1]
            upstream.asked.release()
            connection = Connection(raw, request)
            handler(connection)
            return connection.stays

        def serve(raw: socket.socket) -> None:
            raw.settimeout(20)
            with suppress(OSError):
                while answer_one(raw):
                    pass
            upstream._open.discard(raw)
            raw.close()
            upstream.left.release()

        def accept() -> None:
            while True:
                raw, _ = listener.accept()
                if over.is_set():
                    raw.close()
                    return
                upstream.accepted += 1
                upstream._open.add(raw)
                threads.append(threading.Thread(target=serve, args=(raw,), daemon=True))
                threads[-1].start()
                upstream.reached.release()

        over = threading.Event()
        threads = [threading.Thread(target=accept, daemon=True)]
        threads[0].start()
        try:
            yield upstream
        finally:
            over.set()
            socket.create_connection(listener.getsockname()).close()  # wakes `accept`
            threads[0].join()
            for raw in list(upstream._open):
                with suppress(OSError):
                    raw.shutdown(socket.SHUT_RDWR)
            for thread in threads:
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
        chunk = raw.recv(65536)
        if not chunk:
            return None
        body += chunk
    method, path, _ = first.split(" ")
    return Request(method, path, headers, body)


def dead_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def open_connections(client: httpx.AsyncClient) -> list[Any]:
    """The connections of a client that nobody closed. No request waits for one."""
    transport: Any = client._transport
    if isinstance(transport, FastTransport):
        return list(transport._open)
    assert not transport._pool._requests
    return [connection for connection in transport._pool.connections if not connection.is_closed()]
