"""A balancer in front of workers that come and go. It cuts each connection after a random time."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

__all__ = ["Balancer", "balancer"]


class Balancer:
    """Hands connections on to any of some ports of this machine.

    Args:
        ports: of the workers; change them when workers change.
        cuts: between how many seconds each connection is cut.
    """

    def __init__(self, ports: Sequence[int], cuts: tuple[float, float], seed: int) -> None:
        self.ports = list(ports)
        self.cuts = 0
        self.url = ""
        self._between = cuts
        self._dice = random.Random(seed)

    def handle(self, client: socket.socket) -> None:
        with (
            client,
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._dice.choice(self.ports))) as server,
        ):
            until = time.monotonic() + self._dice.uniform(*self._between)
            while (left := until - time.monotonic()) > 0:
                for source in select.select([client, server], [], [], left)[0]:
                    chunk = source.recv(65536)
                    if not chunk:
                        return
                    (server if source is client else client).sendall(chunk)
            self.cuts += 1


@contextmanager
def balancer(ports: Sequence[int], cuts: tuple[float, float], seed: int = 20261127) -> Iterator[Balancer]:
    """Serves a balancer until the context ends."""
    made = Balancer(ports, cuts, seed)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=made.handle, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
