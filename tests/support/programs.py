"""Debian's programs as child processes that listen on a port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.skipping import skip
from tests.support.waiting import eventually

__all__ = ["PATH", "banner_of", "end", "find", "free_port", "has_ipv6", "is_listening", "listening"]

#: Debian keeps servers where an ordinary user's `PATH` does not look.
PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def find(program: str) -> str:
    """The path of a program. Skips the test where it is missing."""
    path = shutil.which(program, path=PATH)
    if path is None:
        skip(f"there is no {program}; `make test` or `make test-matrix` as root installs it")
    assert path is not None
    return path


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def banner_of(process: subprocess.Popen[Any], *words: str) -> str:
    """What a server prints at its start, up to the line with the last of these words; by default up to `Ctrl-C`."""
    assert process.stdout is not None
    banner = ""
    while not all(word in banner for word in words or ("Ctrl-C",)):
        line = process.stdout.readline()
        assert line, banner
        banner += line if isinstance(line, str) else line.decode()
    return banner


def is_listening(port: int) -> bool:
    """Whether a server accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def end(process: subprocess.Popen[Any], patience: float = 5) -> None:
    """Ends a process by SIGTERM, and after `patience` seconds by SIGKILL. Returns when it is gone."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def listening(command: Sequence[str], port: int, folder: Path, user: str | None = None) -> Iterator[None]:
    """Runs a program in a folder of its own until the context ends; enters once it listens.

    Args:
        command: the program and its arguments.
        port: where it will listen.
        folder: its working directory, its home, and the place of its log.
        user: the user that it runs as; `None` for the user that runs the tests.
    """
    program = find(command[0])
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            env={**os.environ, "PATH": PATH, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=user,
            extra_groups=None if user is None else [],
        )
    try:
        eventually(lambda: process.poll() is not None or is_listening(port), 20)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        end(process)
