"""A port that stands for other ports: for a Redis that fails over, and for workers that are replaced.

It reads what passes, so a test can hold a command back, or lose the answer to it.
"""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tests.support.cutting_proxy import LOOK, accepting, reset

__all__ = ["Switch", "switch"]

_MOST: Final = 65536


class Switch:
    """Hands each new connection on to one of several ports, by chance."""

    def __init__(self, *targets: int) -> None:
        self.port = 0
        #: Where new connections go. Those that are open stay where they are.
        self.targets = list(targets)
        #: Set while a command is held back.
        self.is_holding = threading.Event()
        self._dice = random.Random(1)
        self._turn = 0
        self._held: bytes | None = None
        self._go_on = threading.Event()
        self._swallowed: bytes | None = None
        self._lost = threading.Semaphore(0)

    def turn(self, *targets: int) -> None:
        """Cuts all connections; new ones go elsewhere."""
        self.targets = list(targets)
        self._turn += 1

    def hold(self, what: bytes) -> None:
        """Holds back the next command that contains `what`, until `release`."""
        self._go_on.clear()
        self._held = what

    def release(self) -> None:
        """Lets the command pass."""
        self.is_holding.clear()
        self._go_on.set()

    def lose_answer(self, what: bytes) -> None:
        """Lets the next command that contains `what` pass, and cuts its connection in place of the answer. Waits."""
        self._swallowed = what
        assert self._lost.acquire(timeout=20), f"no {what!r} came"

    def handle(self, client: socket.socket) -> None:
        """Serves one connection."""
        turn, is_lost = self._turn, False
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target())) as server:
            while self._turn == turn:
                readable, _, _ = select.select([client, server], [], [], LOOK)
                if client in readable:
                    if not (asked := client.recv(_MOST)):
                        return
                    self._wait(asked)
                    is_lost = is_lost or self._is_to_be_lost(asked)
                    server.sendall(asked)
                if server in readable:
                    if not (answer := server.recv(_MOST)):
                        return
                    if is_lost:
                        break
                    client.sendall(answer)
            reset(client, server)
        if is_lost:
            self._lost.release()

    def _target(self) -> int:
        if not self.targets:
            raise ConnectionRefusedError
        return self._dice.choice(self.targets)

    def _wait(self, asked: bytes) -> None:
        if self._held is not None and self._held in asked:
            self._held = None
            self.is_holding.set()
            self._go_on.wait()

    def _is_to_be_lost(self, asked: bytes) -> bool:
        if self._swallowed is None or self._swallowed not in asked:
            return False
        self._swallowed = None
        return True


@contextmanager
def switch(*targets: int) -> Iterator[Switch]:
    """A switch that is served."""
    made = Switch(*targets)
    with accepting(made.handle) as made.port:
        try:
            yield made
        finally:
            made.release()
            made.turn()
