"""A proxy that cuts connections at random byte positions, or when a test says so, as tunnels and laptop lids do."""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["LOOK", "CuttingProxy", "accepting", "cutting_proxy", "hands_on", "reset"]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset and discards buffered data
LOOK = 0.02  # seconds after which a silent connection sees that it is to be cut


class CuttingProxy:
    """Forwards bytes to a port of this machine, and cuts each connection after a random number of them."""

    def __init__(self, port: int, cuts: int, most: int, seed: int) -> None:
        self._port = port
        self._rng = random.Random(seed)
        self._most = most
        #: Cuts to come; after the last one, connections live on.
        self.cuts_left = cuts
        self._cuts_now = 0

    def cut(self) -> None:
        """Cuts all open connections now."""
        self._cuts_now += 1

    def handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server, suppress(OSError):
            left = self._rng.randint(0, self._most) if self.cuts_left else None
            cuts_before = self._cuts_now
            while self._cuts_now == cuts_before:
                readable, _, _ = select.select([client, server], [], [], LOOK)
                if client in readable and not hands_on(client, server):
                    return
                if server in readable:
                    chunk = server.recv(65536 if left is None else max(1, min(65536, left)))
                    if not chunk:
                        return
                    client.sendall(chunk)
                    if left is not None:
                        left -= len(chunk)
                        if left <= 0:
                            self.cuts_left -= 1
                            break
            reset(client, server)


def reset(*ends: socket.socket) -> None:
    """Has each connection end with a reset, without what is still under way, when it is closed."""
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def hands_on(client: socket.socket, server: socket.socket) -> bool:
    """Hands on what the client asks; says whether the client is still there."""
    asked = client.recv(65536)
    server.sendall(asked)
    return bool(asked)


@contextmanager
def accepting(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accepts connections, and handles each in a thread of its own; yields the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=handle, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def cutting_proxy(port: int, *, cuts: int, most: int, seed: int = 20261123) -> Iterator[tuple[str, CuttingProxy]]:
    """Serves a proxy; yields its URL and the proxy.

    Args:
        port: the port to forward to.
        cuts: number of connections to cut.
        most: bytes after which a connection is cut at the latest.
    """
    proxy = CuttingProxy(port, cuts, most, seed)
    with accepting(proxy.handle) as own:
        yield f"http://127.0.0.1:{own}", proxy
