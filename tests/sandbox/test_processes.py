"""Commands as processes: `sse_bridge.sandbox.processes`. On asyncio and on trio."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import anyio
import pytest
from anyio.abc import Process
from anyio.lowlevel import checkpoint

from sse_bridge.sandbox.processes import MARKER, CannotStart, Outcome, end_all, group_is_left, kill_all, running
from tests.sandbox.helpers import is_running, number_soon_in, soon

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.environ["PATH"]}


class Reader:
    """Takes what a pipe delivers."""

    def __init__(self) -> None:
        self.data = b""

    async def take(self, piece: bytes) -> None:
        self.data += piece


async def run(command: str, cwd: Path, *, timeout: float | None = None) -> tuple[Outcome, bytes, bytes]:
    out, err = Reader(), Reader()
    async with (
        running(command, cwd=cwd, env=ENV, timeout=timeout) as started,
        anyio.create_task_group() as pumps,
    ):
        pumps.start_soon(started.stdout.pump, out.take)
        pumps.start_soon(started.stderr.pump, err.take)
        outcome = await started.ended()
        pumps.cancel_scope.cancel()
    return outcome, out.data, err.data


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def touch(path: Path) -> None:
    path.touch()


def mkdir(path: Path) -> None:
    path.mkdir()


async def test_stdout_and_stderr_stay_apart(tmp_path: Path) -> None:
    """Two pipes, and the exit code of the command."""
    outcome, out, err = await run("echo out; echo err >&2; exit 7", tmp_path)

    assert (outcome.exit_code, out, err) == (7, b"out\n", b"err\n")
    assert not outcome.timed_out


async def test_a_signal_is_told_as_a_shell_tells_it(tmp_path: Path) -> None:
    """128 and the signal's number."""
    assert (await run("kill -KILL $$", tmp_path))[0].exit_code == 137
    assert (await run("kill -TERM $$", tmp_path))[0].exit_code == 143


async def test_the_timeout_kills_the_group(tmp_path: Path) -> None:
    """Children of the shell die with it, and what was printed until then is delivered."""
    command = "sleep 1000 & echo $! > child; trap '' TERM; echo begun; wait"
    outcome, out, _ = await run(command, tmp_path, timeout=0.3)

    assert (outcome.exit_code, outcome.timed_out, out) == (-1, True, b"begun\n")
    assert outcome.duration_ms >= 300
    child = await number_soon_in(tmp_path / "child")
    await soon(lambda: not is_running(child))


async def test_a_busy_command_does_not_starve_its_timeout(tmp_path: Path) -> None:
    """Reading a pipe that is always full gives way to others."""
    outcome, out, _ = await run("yes", tmp_path, timeout=0.2)

    assert outcome.timed_out
    assert out.startswith(b"y\ny\n")


async def test_stdin_is_empty(tmp_path: Path) -> None:
    """Who reads finds the end."""
    assert (await run("cat; echo done", tmp_path))[1] == b"done\n"


async def test_a_child_in_the_background_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """The command's end is the end, although a child keeps the pipe; it lives on, and may print."""
    async with running("(sleep 1000) & echo $!; echo $! > child", cwd=tmp_path, env=ENV, timeout=None) as started:
        reader = Reader()
        async with anyio.create_task_group() as pumps:
            pumps.start_soon(started.stdout.pump, reader.take)
            pumps.start_soon(started.stderr.pump, reader.take)
            begun = time.monotonic()
            outcome = await started.ended()

            child = await number_soon_in(tmp_path / "child")
            assert outcome.exit_code == 0
            assert reader.data == f"{child}\n".encode()
            assert time.monotonic() - begun < 5
            assert is_running(child)
            assert group_is_left(started.process)
            await end_all("nobody", {started.process})
    assert not is_running(child)


async def test_a_child_that_prints_on_into_nothing_is_not_stopped(tmp_path: Path) -> None:
    """After the end its output is read and dropped, so it neither blocks nor gets a SIGPIPE."""
    command = "(while [ ! -e enough ]; do head -c 300000 /dev/zero; echo x >> rounds; done; echo yes > ended) &"
    async with (
        running(command, cwd=tmp_path, env=ENV, timeout=None) as started,
        anyio.create_task_group() as pumps,
    ):
        reader = Reader()
        pumps.start_soon(started.stdout.pump, reader.take)
        pumps.start_soon(started.stderr.pump, reader.take)
        await started.ended()
        delivered, rounds = len(reader.data), size_of(tmp_path / "rounds")
        await soon(lambda: size_of(tmp_path / "rounds") > rounds + 10)
        touch(tmp_path / "enough")
    # The block has ended because the pipes have: the child came to its end by itself.
    assert size_of(tmp_path / "ended")
    assert len(reader.data) == delivered


async def test_what_a_slow_reader_has_not_taken_at_the_end_is_not_lost(tmp_path: Path) -> None:
    """The short grace after the end is for children that print late, not for the reader."""
    size = 60_000
    taken = Reader()
    release = anyio.Event()

    async def slow(piece: bytes) -> None:
        await release.wait()
        await taken.take(piece)

    command = f"head -c 100 /dev/zero; sleep 0.05; head -c {size} /dev/zero; sleep 1000 & echo $! > child"
    async with running(command, cwd=tmp_path, env=ENV, timeout=None) as started, anyio.create_task_group() as tasks:
        tasks.start_soon(started.stdout.pump, slow)
        tasks.start_soon(started.stderr.pump, taken.take)
        await started.process.wait()
        with anyio.move_on_after(0.5):  # longer than the grace
            await started.ended()
            raise AssertionError("it cannot have been delivered")
        release.set()
        await started.ended()
        assert len(taken.data) == 100 + size
        started.kill()


async def test_leaving_by_cancellation_kills(tmp_path: Path) -> None:
    """Nobody waits for the command any more, so it has to go."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "echo $$ > pid; trap '' TERM; sleep 1000", tmp_path)
        pid = await number_soon_in(tmp_path / "pid")
        assert is_running(pid)
        tasks.cancel_scope.cancel()
    assert not is_running(pid)


async def test_whoever_carries_the_name_is_found(tmp_path: Path) -> None:
    """A child that left the group and the session is ended, too; others are not."""
    for folder in ("1", "11"):
        mkdir(tmp_path / folder)
    command = "setsid sh -c 'trap \"\" TERM; echo $$ > child; sleep 1000' >/dev/null 2>&1 & sleep 1000"

    async def start(name: str, folder: Path) -> None:
        async with running(command, cwd=folder, env={**ENV, MARKER: name}, timeout=None) as started:
            await started.process.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start, "box1", tmp_path / "1")
        tasks.start_soon(start, "box11", tmp_path / "11")
        first, other = await number_soon_in(tmp_path / "1" / "child"), await number_soon_in(tmp_path / "11" / "child")

        await end_all("box1", set())

        assert not is_running(first)
        assert is_running(other)
        await end_all("box11", set())
    assert not is_running(other)


async def test_a_group_without_anybody_is_not_left(tmp_path: Path) -> None:
    """It can be forgotten."""
    async with running("true", cwd=tmp_path, env=ENV, timeout=None) as started:
        await started.process.wait()

    assert not group_is_left(started.process)


@pytest.mark.parametrize(
    ("command", "cwd", "culprit"),
    [("true", "missing", "cwd"), ("true", "file", "cwd"), ("x" * 200_000, ".", "command")],
)
async def test_what_cannot_start_says_why(tmp_path: Path, command: str, cwd: str, culprit: str) -> None:
    """No process, no pipe is left (warnings are errors here), and the culprit is named."""
    touch(tmp_path / "file")

    with pytest.raises(CannotStart) as refusal:
        async with running(command, cwd=tmp_path / cwd, env=ENV, timeout=None):
            await checkpoint()

    assert refusal.value.culprit == culprit


async def test_the_environment_is_only_what_was_given(tmp_path: Path) -> None:
    """Nothing of the server's own leaks in."""
    env: Mapping[str, str] = {**ENV, "GIVEN": "1"}
    reader = Reader()
    async with running("env", cwd=tmp_path, env=env, timeout=None) as started, anyio.create_task_group() as pumps:
        pumps.start_soon(started.stdout.pump, reader.take)
        pumps.start_soon(started.stderr.pump, reader.take)
        await started.ended()

    names = {line.split("=")[0] for line in reader.data.decode().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "GIVEN"}


async def test_a_number_that_was_given_to_somebody_else_is_not_killed(tmp_path: Path) -> None:
    """A leader that was reaped, and a process of its number: the group is over, the number is another's."""
    async with running("sleep 1000", cwd=tmp_path, env=ENV, timeout=None) as innocent:
        kill_all("nobody", {cast(Process, Reaped(innocent.process.pid))})
        await soon(lambda: True)
        assert is_running(innocent.process.pid)
        assert innocent.process.returncode is None
        innocent.kill()


async def test_what_may_not_be_signalled_counts_as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user has the number."""

    def refuse(number: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)

    assert group_is_left(cast(Process, Reaped(1)))
    assert kill_all("nobody", {cast(Process, Reaped(1))}) == 0


async def test_a_machine_that_has_no_room_is_not_the_callers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the request is not to blame for is passed on as it is."""

    async def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(anyio, "open_process", fail)
    with pytest.raises(OSError, match="no more processes"):
        async with running("true", cwd=tmp_path, env=ENV, timeout=None):
            await checkpoint()


class Reaped:
    """A process that has been led to its end, of any number."""

    returncode = 0

    def __init__(self, pid: int) -> None:
        self.pid = pid
