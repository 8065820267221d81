"""A TCP connection over loopback: both ends, and the ASGI scope of a request on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Connection", "connected"]


@dataclass(frozen=True)
class Connection:
    server: socket.socket
    client: socket.socket
    #: The keys of an ASGI scope that identify the connection, taken while it was open.
    scope: dict[str, Any]

    def is_open(self) -> bool:
        """Whether the client still sees it as open."""
        self.client.setblocking(False)
        try:
            return self.client.recv(1) != b""
        except BlockingIOError:
            return True

    def fill(self) -> int:
        """Writes until the kernel's buffers are full. Returns the number of bytes."""
        self.server.setblocking(False)
        written = 0
        try:
            while True:
                written += self.server.send(b"x" * 65536)
        except BlockingIOError:
            return written

    def read(self, size: int) -> None:
        """Reads exactly `size` bytes on the client's side."""
        self.client.setblocking(True)
        while size:
            size -= len(self.client.recv(min(size, 2**20)))


@contextmanager
def connected(host: str = "127.0.0.1") -> Iterator[Connection]:
    """Connects to itself at a loopback address; closes both ends with the context."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
    with client, server:
        scope = {"http_version": "1.1", "client": server.getpeername(), "server": server.getsockname()}
        yield Connection(server, client, scope)
