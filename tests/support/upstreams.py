"""An upstream that does byte for byte what a test wants. It runs in a thread, so that any event loop can ask it."""

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

from sse_bridge.upstream.base import Stream
from sse_bridge.upstream.transport import FastTransport


@dataclass(frozen=True)
class Request:
    """A request, as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Connection:
    """One request, and the ways to answer it."""

    def __init__(self, raw: socket.socket, request: Request) -> None:
        self._raw = raw
        self.request = request
        #: Set by a handler after a complete answer, so that the connection takes another request.
        self.stays = False

    def send(self, data: bytes) -> None:
        """Writes bytes as they are."""
        self._raw.sendall(data)

    def head(self, status: int = 200, **headers: str) -> None:
        """Writes the head of an answer. Underscores in names become hyphens."""
        lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Writes a whole answer."""
        self.head(status, content_length=str(len(body)), **headers)
        self.send(body)

    def stream(self) -> None:
        """Writes the head of a chunked event stream."""
        self.head(200, content_type="text/event-stream", transfer_encoding="chunked")

    def chunk(self, data: bytes) -> None:
        """Writes one chunk of it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Writes its end."""
        self.send(b"0\r\n\r\n")

    def stay(self) -> None:
        """Writes its end, and keeps the connection for another request."""
        self.stays = True
        self.end()

    def wait_until_left(self) -> None:
        """Returns when the client has closed the connection."""
        with suppress(OSError):
            while self._raw.recv(4096):
                pass


@dataclass
class RawUpstream:
    """A server, and what has happened to it."""

    url: str
    requests: list[Request] = field(default_factory=list)
    #: How many connections it has accepted.
    accepted: int = 0
    #: Released for each accepted connection.
    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    #: Released for each complete request.
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    #: Released for each connection that ends, because the client closed it or its handler returned.
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    async def until_reached(self, times: int = 1) -> None:
        """Waits for connections."""
        await _acquire(self.reached, times)

    async def until_asked(self, times: int = 1) -> None:
        """Waits for requests."""
        await _acquire(self.asked, times)

    async def until_left(self, times: int = 1) -> None:
        """Waits for connections to end."""
        await _acquire(self.left, times)


async def _acquire(semaphore: threading.Semaphore, times: int) -> None:
    for _ in range(times):
        assert await anyio.to_thread.run_sync(lambda: semaphore.acquire(timeout=10)), "it did not happen"


Handler = Callable[[Connection], None]


@contextmanager
def serve_raw(*handlers: Handler) -> Iterator[RawUpstream]:
    """Starts a server. Each handler answers one request and closes the connection; the last one answers the rest.

    When the context ends, open connections are cut off, so that every thread ends.
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
    """A URL whose port is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def open_connections(client: httpx.AsyncClient) -> int:
    """How many connections a client has open. Fails if a request waits for one."""
    transport: Any = client._transport
    if isinstance(transport, FastTransport):
        return transport.open_connections
    assert not transport._pool._requests
    return sum(not connection.is_closed() for connection in transport._pool.connections)


def busy_connections(client: httpx.AsyncClient) -> int:
    """How many of these serve a request. The others wait for the next one, as only httpx's own transport lets them."""
    transport: Any = client._transport
    if isinstance(transport, FastTransport):
        return transport.open_connections
    idle = sum(bool(connection.is_idle()) for connection in transport._pool.connections)
    return open_connections(client) - idle


class Reader:
    """Takes the chunks of a stream, and always has room for more."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        #: Set with the first chunk.
        self.began = anyio.Event()

    def take(self, chunk: bytes) -> bool:
        """See `base.Take`."""
        self.chunks.append(chunk)
        self.began.set()
        return True

    async def room(self) -> None:
        """See `base.Room`."""


async def chunks_of(stream: Stream) -> list[bytes]:
    """All chunks of a stream."""
    reader = Reader()
    await stream.push(reader.take, reader.room)
    return reader.chunks


async def read_all(stream: Stream) -> bytes:
    """All chunks of a stream, joined."""
    return b"".join(await chunks_of(stream))
