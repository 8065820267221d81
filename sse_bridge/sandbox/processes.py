"""Shell commands as processes of this machine: starting them, reading what they print, ending them with all children.

Independent of HTTP. Every process carries the name of its sandbox in its environment, and its children inherit it. So a
child that left the process group (`setsid`) can be found again, on systems with `/proc`.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol

import anyio
from anyio.abc import Process

from .pipes import Pipe

__all__ = [
    "KILLED",
    "MARKER",
    "CannotStart",
    "Command",
    "Observer",
    "Outcome",
    "end_all",
    "freeze",
    "group_is_left",
    "kill_all",
    "running",
    "thaw",
]

#: The environment variable that names a process's sandbox.
MARKER: Final = "SSE_BRIDGE_SANDBOX"
#: The exit code of a process that SIGKILL ended, as in a shell.
KILLED: Final = 137

#: Seconds that a command's children have to print after it has ended, as in `command > >(tee log)`.
_LATE_OUTPUT: Final = 0.2
#: Seconds that killed processes have to disappear, which should take milliseconds.
_REAP_TIMEOUT: Final = 5.0
#: Seconds between two searches for remaining processes.
_SEARCH_INTERVAL: Final = 0.01
#: Searches for processes to suspend. One is enough, unless a process forks meanwhile.
_MAX_SEARCHES: Final = 100

_PROC: Final = Path("/proc")

#: How entering a folder fails for which the request is to blame.
_WRONG_FOLDER: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
)


class CannotStart(Exception):
    """The start of a command failed.

    Args:
        reason: for people.
        culprit: the argument of `running` that is to blame.
    """

    def __init__(self, reason: str, culprit: str) -> None:
        super().__init__(reason)
        self.culprit = culprit


class Outcome(NamedTuple):
    """How a command ended."""

    #: As in a shell: 128 + N after signal N. -1 if the timeout ended the command.
    exit_code: int
    timed_out: bool
    duration_ms: int
    #: It was killed because it printed too much.
    over_limit: bool = False


class Observer(Protocol):
    """Is told what a command does, while others read its output. It cannot hold the command back."""

    def printed(self, stream: str, piece: bytes) -> None:
        """Takes a piece of `stdout` or `stderr`, before it is delivered."""

    def ended(self, outcome: Outcome) -> None:
        """Takes the end, after all output."""


class Command:
    """A running command. The caller has to `pump` both of its pipes.

    Args:
        started: a time of the event loop's clock.
        timeout: seconds after which `ended` kills it, or `None`.
        max_output: bytes of both streams beyond which it is killed, or `None`.
    """

    def __init__(
        self,
        process: Process,
        stdout: Pipe,
        stderr: Pipe,
        *,
        started: float,
        timeout: float | None,
        max_output: int | None = None,
    ) -> None:
        self.process = process
        self.stdout = stdout
        self.stderr = stderr
        self._timeout = timeout
        self._started = started
        self._observer: Observer | None = None
        self._max_output = max_output
        self._printed = 0
        for stream, pipe in (("stdout", stdout), ("stderr", stderr)):
            pipe.tap = partial(self._note, stream)

    def observe(self, observer: Observer) -> None:
        """Tells `observer` of all that follows. Call it before the pipes are pumped."""
        self._observer = observer

    def _note(self, stream: str, piece: bytes) -> None:
        self._printed += len(piece)
        if self._is_over_limit:
            self.kill()
        if self._observer is not None:
            self._observer.printed(stream, piece)

    @property
    def _is_over_limit(self) -> bool:
        return self._max_output is not None and self._printed > self._max_output

    def kill(self) -> None:
        """Kills the command with its process group; await `ended` to know that it is gone."""
        _signal_group(self.process, signal.SIGKILL)

    async def terminate(self, grace: float) -> None:
        """Asks the process group to end with SIGTERM, and kills what is left of it after `grace` seconds."""
        _signal_group(self.process, signal.SIGTERM)
        try:
            with anyio.move_on_after(grace):
                await self._group_gone()
        finally:
            self.kill()

    async def _group_gone(self) -> None:
        await self.process.wait()
        while True:
            if not group_is_left(self.process):
                return
            await anyio.sleep(_SEARCH_INTERVAL)

    async def ended(self) -> Outcome:
        """Waits until the command has ended, which its timeout may enforce, and its output is delivered.

        Children that keep the pipes open delay this by `_LATE_OUTPUT` at most. A slow client delays it as long as it
        takes: all output printed before the end is delivered.
        """
        with anyio.move_on_after(self._timeout) as limit:
            await self.process.wait()
        if limit.cancelled_caught:
            self.kill()
        code = await self.process.wait()
        duration_ms = round((anyio.current_time() - self._started) * 1000)
        await self._deliver_rest()
        code = -1 if limit.cancelled_caught else code if code >= 0 else 128 - code
        outcome = Outcome(code, limit.cancelled_caught, duration_ms, self._is_over_limit)
        if self._observer is not None:
            self._observer.ended(outcome)
        return outcome

    async def _deliver_rest(self) -> None:
        pipes = (self.stdout, self.stderr)
        with anyio.move_on_after(_LATE_OUTPUT):
            for pipe in pipes:
                await pipe.delivered.wait()
        for pipe in pipes:
            pipe.stop()
        for pipe in pipes:
            await pipe.delivered.wait()


@asynccontextmanager
async def running(
    command: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float | None,
    stdin: bytes | None = None,
    max_output: int | None = None,
) -> AsyncIterator[Command]:
    """Runs a shell command. Leaving the context by an exception, cancellation included, kills it.

    Args:
        command: a command line for the shell.
        cwd: the folder to run it in.
        env: the whole environment of the command.
        timeout: seconds after which `Command.ended` kills it, or `None`.
        stdin: what it can read from its standard input; `None` for nothing.
        max_output: bytes of both streams beyond which it is killed, or `None`.

    Raises:
        CannotStart: the folder cannot be entered, or command and environment are too long.
    """
    with Pipe() as stdout, Pipe() as stderr:
        started = anyio.current_time()
        with _input(stdin) as source, _start_errors():
            process = await anyio.open_process(
                [_shell(), "-c", command],
                stdin=source,
                stdout=stdout.writer,
                stderr=stderr.writer,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        stdout.close_writer()
        stderr.close_writer()
        try:
            yield Command(process, stdout, stderr, started=started, timeout=timeout, max_output=max_output)
        except BaseException:
            _signal_group(process, signal.SIGKILL)
            raise
        finally:
            with anyio.move_on_after(_REAP_TIMEOUT, shield=True):
                await process.wait()


@contextmanager
def _input(data: bytes | None) -> Iterator[int | IO[bytes]]:
    """A file rather than a pipe: a pipe that is full would have to be written while the command runs."""
    if data is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


@contextmanager
def _start_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _WRONG_FOLDER:
            raise CannotStart("cwd is not a folder that can be entered", "cwd") from error
        if error.errno == errno.E2BIG:
            raise CannotStart("command and environment are too long", "command") from error
        raise


def _shell() -> str:
    """Bash if it is installed, as on the platform."""
    return shutil.which("bash", path="/bin:/usr/bin") or shutil.which("bash") or "/bin/sh"


def _signal_group(process: Process, number: int) -> None:
    """Sends a signal to the members of the process group that `process` leads or led.

    The kernel reuses a group's number only when the group is empty. So once the leader is reaped, a process with that
    number is a stranger, and the group has ended.
    """
    if process.returncode is not None and _finds(os.kill, process.pid):
        return
    with suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
        os.killpg(process.pid, number)


def group_is_left(process: Process) -> bool:
    """Whether the process group that `process` led still has members, after `process` itself has ended."""
    return _finds(os.killpg, process.pid)


def _finds(send: Callable[[int, int], None], number: int) -> bool:
    """Whether a process or group with that number exists. A refused permission means that it does."""
    try:
        send(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def kill_all(name: str, processes: Collection[Process]) -> int:
    """Kills the groups of `processes`, and every process that carries `name` in its environment.

    Returns:
        How many processes carried the name; 0 on systems without `/proc`.
    """
    return len(_signal_all(name, processes, signal.SIGKILL))


def freeze(name: str, processes: Collection[Process]) -> None:
    """Suspends the groups of `processes`, and every process that carries `name`, until a search finds no more of them.

    On systems without `/proc`, a process that left its group runs on.
    """
    known: set[int] = set()
    for _ in range(_MAX_SEARCHES):
        found = _signal_all(name, processes, signal.SIGSTOP)
        if found <= known:
            return
        known |= found


def thaw(name: str, processes: Collection[Process]) -> None:
    """Lets go on what `freeze` suspended."""
    _signal_all(name, processes, signal.SIGCONT)


def _signal_all(name: str, processes: Collection[Process], number: int) -> set[int]:
    """Signals the groups, and all that carry the name; returns the latter."""
    for process in tuple(processes):
        _signal_group(process, number)
    pids = set(_carriers(name))
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return pids


async def end_all(name: str, processes: Collection[Process]) -> None:
    """Repeats `kill_all` until two searches in a row find the name gone. Gives up after a few seconds."""
    searches_in_vain = 0
    with anyio.move_on_after(_REAP_TIMEOUT, shield=True):
        # A single search can miss a child that is forked meanwhile; in practice, two in a row find it.
        while searches_in_vain < 2:
            searches_in_vain = 0 if kill_all(name, processes) else searches_in_vain + 1
            await anyio.sleep(_SEARCH_INTERVAL)
        for process in tuple(processes):
            await process.wait()


def _carriers(name: str) -> Iterator[int]:
    """The processes that carry `name`, except killed ones: a zombie's environment is empty."""
    entry = f"\0{MARKER}={name}\0".encode()
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # the process has ended meanwhile, or belongs to another user
            if entry in b"\0" + (folder / "environ").read_bytes():
                yield int(folder.name)
