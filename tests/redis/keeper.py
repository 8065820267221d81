"""A real Redis, or Valkey, on a free port, which the tests stop, start, and look into."""

from __future__ import annotations

import hashlib
import os
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.programs import end, find, free_port, is_listening
from tests.support.waiting import eventually

__all__ = ["SEAL", "Keeper", "away", "keeper", "numbers_in", "run_name"]

#: The server; `make test-valkey` names another.
_SERVER: Final = os.environ.get("SSE_BRIDGE_REDIS_SERVER", "redis-server")

#: The last id that a stream can have. Redis takes no entry behind it.
SEAL: Final = b"18446744073709551615-18446744073709551615"


def run_name(token: str) -> str:
    """What a run is called in Redis."""
    digest = hashlib.blake2b(token.encode(), digest_size=16).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


class Keeper:
    """The server, and one connection of the tests' own.

    Args:
        folder: for its files.
        options: of `redis-server`. Without any it keeps nothing on disk.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def start(self) -> None:
        """Starts it, with what is on its disk."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find(_SERVER), *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        process = self._process
        eventually(lambda: process.poll() is not None or is_listening(self.port), 20)
        assert process.poll() is None, (self._folder / "redis.log").read_text()
        self._client = redis.Redis(port=self.port, socket_timeout=20)

    def stop(self) -> None:
        """Stops it. What it held is lost."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            end(self._process)
            self._process = None

    def kill(self, lost: int | None = None) -> None:
        """`kill -9`, as in a power cut: the last `lost` bytes of its file never reached the disk."""
        assert self._process is not None
        self._process.kill()
        self.stop()
        if lost is not None:
            (file,) = (self._folder / "appendonlydir").glob("*.incr.aof")
            os.truncate(file, file.stat().st_size - lost)

    def ask(self, *command: Any) -> Any:
        """The answer to one command, as redis-py shapes it."""
        return self._client.execute_command(*command)


def numbers_in(redis: Keeper, key: str) -> list[int]:
    """The numbers of the frames of a stream, as its entries say."""
    numbers: list[int] = []
    for id, fields in redis.ask("XRANGE", key, "-", "+"):
        last = int(id.partition(b"-")[0])
        assert fields[b"b"].count(b"\n\n") == last - int(fields[b"f"]) + 1
        numbers += range(int(fields[b"f"]), last + 1)
    return numbers


@contextmanager
def away(keeper: Keeper) -> Iterator[None]:
    """No Redis; then an empty one."""
    keeper.stop()
    try:
        yield
    finally:
        keeper.start()


@contextmanager
def keeper(folder: Path, *options: str) -> Iterator[Keeper]:
    """A running Redis, as `Keeper` says. Skips the test where `redis-server` is missing."""
    made = Keeper(folder, *options)
    try:
        made.start()
        yield made
    finally:
        made.stop()
