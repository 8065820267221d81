"""Shell commands as processes of this machine: starting them, reading what they print, ending them for good.

Knows no HTTP. Every process carries the name of its sandbox in its environment, and hands it to its children, so
that one which left its process group (`setsid`) can be found again where there is a `/proc`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import anyio
from anyio.abc import Process
from anyio.lowlevel import checkpoint

__all__ = ["MARKER", "CannotStart", "Command", "Outcome", "Pipe", "end_all", "group_is_left", "kill_all", "running"]

#: The environment variable that says to which sandbox a process belongs.
MARKER: Final = "SSE_BRIDGE_SANDBOX"

#: Bytes. What a pipe holds by default on Linux, so one read empties it.
_PIECE: Final = 64 * 1024
#: Seconds that a command's children get to print after it has ended, as in `command > >(tee log)`.
_GRACE: Final = 0.2
#: Seconds for killed processes to be gone. A bound for what should take milliseconds.
_REAP: Final = 5.0
#: Seconds between two searches for processes that are left.
_SEARCH: Final = 0.01

_PROC: Final = Path("/proc")


class CannotStart(Exception):
    """A command did not become a process.

    Args:
        reason: in words.
        culprit: which argument of `running` is to blame.
    """

    def __init__(self, reason: str, culprit: str) -> None:
        super().__init__(reason)
        self.culprit = culprit


class Outcome(NamedTuple):
    """How a command ended."""

    #: As a shell says it: 128 + N after signal N. -1 where the command ran out of time.
    exit_code: int
    timed_out: bool
    duration_ms: int


class Pipe:
    """A process's stdout or stderr: the end that we read, and until the process has it, the end that it writes.

    Nothing is read unless somebody takes it, so the kernel holds back the process of a slow reader.
    """

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        self._open = [self._reader, self.writer]
        os.set_blocking(self._reader, False)
        self._left: int | None = None  # bytes still to be delivered; `None` while there is no end to them
        self._waiting = anyio.CancelScope()
        #: Set when everything that is to be delivered has been delivered.
        self.delivered = anyio.Event()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._open:
            os.close(end)

    def close_writer(self) -> None:
        """Leaves the writing end to the process: when the last process has closed it, `pump` sees the end."""
        self._open.remove(self.writer)
        os.close(self.writer)

    async def pump(self, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        """Hands over what is printed, piece by piece, until nobody is left who could print.

        After `stop` it goes on reading, but for nobody: a child in the background must neither wait for ever on
        a full pipe nor be ended by a closed one.
        """
        while piece := await self._next():
            await deliver(piece)
            await checkpoint()  # neither the read nor the delivery needs to wait in a burst, and others want to run
        self.delivered.set()
        await self._discard()

    def stop(self) -> None:
        """Makes what is in the pipe at this moment the last that is delivered."""
        unread = fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4))
        (self._left,) = struct.unpack("i", unread)
        self._waiting.cancel()

    async def _next(self) -> bytes:
        while self._left != 0:
            piece = self._read(_PIECE if self._left is None else min(self._left, _PIECE))
            if piece is None:
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self._reader)
                continue
            if self._left is not None:
                self._left -= len(piece)
            return piece
        return b""

    async def _discard(self) -> None:
        while (piece := self._read(_PIECE)) != b"":
            await (anyio.wait_readable(self._reader) if piece is None else checkpoint())

    def _read(self, size: int) -> bytes | None:
        """What is there, nothing at the end, or `None` where one has to wait."""
        try:
            return os.read(self._reader, size)
        except BlockingIOError:
            return None


class Command:
    """A command that runs, since the loop's clock said `started`. Somebody has to `pump` both of its pipes."""

    def __init__(self, process: Process, stdout: Pipe, stderr: Pipe, *, started: float, timeout: float | None) -> None:
        self.process = process
        self.stdout = stdout
        self.stderr = stderr
        self._timeout = timeout
        self._started = started

    def kill(self) -> None:
        """Kills the command with its process group; `ended` tells when it is gone."""
        _kill_group(self.process)

    async def ended(self) -> Outcome:
        """Waits for the command's end, or brings it about when its time is over, and for its output's delivery.

        Children that keep the pipes open do not delay that beyond a short grace, but a slow reader does: what
        was printed is never dropped.
        """
        with anyio.move_on_after(self._timeout) as limit:
            await self.process.wait()
        if limit.cancelled_caught:
            self.kill()
        code = await self.process.wait()
        duration_ms = round((anyio.current_time() - self._started) * 1000)
        await self._deliver_rest()
        if limit.cancelled_caught:
            return Outcome(-1, True, duration_ms)
        return Outcome(code if code >= 0 else 128 - code, False, duration_ms)

    async def _deliver_rest(self) -> None:
        pipes = (self.stdout, self.stderr)
        with anyio.move_on_after(_GRACE):
            for pipe in pipes:
                await pipe.delivered.wait()
        for pipe in pipes:
            pipe.stop()
        for pipe in pipes:
            await pipe.delivered.wait()


@asynccontextmanager
async def running(command: str, *, cwd: Path, env: Mapping[str, str], timeout: float | None) -> AsyncIterator[Command]:
    """Runs a shell command. Leaving the context by an exception, cancellation included, kills it.

    Args:
        command: a command line for the shell.
        cwd: the folder to run it in.
        env: the whole environment; nothing of ours is added.
        timeout: seconds after which `Command.ended` kills it, or `None`.

    Raises:
        CannotStart: there is no such folder, or the command is too long.
    """
    with Pipe() as stdout, Pipe() as stderr:
        started = anyio.current_time()
        with _start_errors():
            process = await anyio.open_process(
                [_shell(), "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=stdout.writer,
                stderr=stderr.writer,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        stdout.close_writer()
        stderr.close_writer()
        try:
            yield Command(process, stdout, stderr, started=started, timeout=timeout)
        except BaseException:
            _kill_group(process)
            raise
        finally:
            with anyio.move_on_after(_REAP, shield=True):
                await process.wait()


@contextmanager
def _start_errors() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise CannotStart("cwd is not a folder that can be entered", "cwd") from error
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        raise CannotStart("command and environment are too long", "command") from error


def _shell() -> str:
    """Bash where there is one, as on the platform."""
    return shutil.which("bash", path="/bin:/usr/bin") or shutil.which("bash") or "/bin/sh"


def _kill_group(process: Process) -> None:
    """Kills what is in the process group that `process` leads or led.

    As long as anybody is in the group, its number is given to no new process. So once the leader is reaped, a
    process of that number means that the group is over and the number somebody else's.
    """
    if process.returncode is not None and _finds(os.kill, process.pid):
        return
    with suppress(ProcessLookupError, PermissionError):  # macOS: the latter for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)


def group_is_left(process: Process) -> bool:
    """Whether anybody is left in the process group that `process` has led to its end."""
    return _finds(os.killpg, process.pid)


def _finds(send: Callable[[int, int], None], number: int) -> bool:
    """Whether a signal would find anybody. Not to be allowed to send one means yes."""
    try:
        send(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def kill_all(name: str, processes: Collection[Process]) -> int:
    """Kills the groups of `processes`, and whoever else carries `name` in its environment.

    Returns:
        How many of the latter there were. Without a `/proc` that is 0.
    """
    for process in tuple(processes):
        _kill_group(process)
    pids = list(_carriers(name))
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


async def end_all(name: str, processes: Collection[Process]) -> None:
    """Like `kill_all`, until nobody is found any more. Gives up after a few seconds."""
    searches_in_vain = 0
    with anyio.move_on_after(_REAP, shield=True):
        # One search can miss a child whose parent ends while it goes on. Two in a row cannot, in practice.
        while searches_in_vain < 2:
            searches_in_vain = 0 if kill_all(name, processes) else searches_in_vain + 1
            await anyio.sleep(_SEARCH)
        for process in tuple(processes):
            await process.wait()


def _carriers(name: str) -> Iterator[int]:
    """The processes that carry `name`. What is killed already has no environment any more (a zombie's is empty)."""
    entry = f"\0{MARKER}={name}\0".encode()
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or belongs to somebody else
            if entry in b"\0" + (folder / "environ").read_bytes():
                yield int(folder.name)
