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
    """Collects what a pipe delivers."""

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
    """Each has its own pipe; the outcome holds the exit code."""
    outcome, out, err = await run("echo out; echo err >&2; exit 7", tmp_path)

    assert (outcome.exit_code, out, err) == (7, b"out\n", b"err\n")
    assert not outcome.timed_out


async def test_a_signal_is_an_exit_code_above_128(tmp_path: Path) -> None:
    """128 + N for signal N, as in a shell."""
    assert (await run("kill -KILL $$", tmp_path))[0].exit_code == 137
    assert (await run("kill -TERM $$", tmp_path))[0].exit_code == 143


async def test_the_timeout_kills_the_group(tmp_path: Path) -> None:
    """The shell's children die with it, and the output printed before is delivered."""
    command = "sleep 1000 & echo $! > child; trap '' TERM; echo begun; wait"
    outcome, out, _ = await run(command, tmp_path, timeout=0.3)

    assert (outcome.exit_code, outcome.timed_out, out) == (-1, True, b"begun\n")
    assert outcome.duration_ms >= 300
    child = await number_soon_in(tmp_path / "child")
    await soon(lambda: not is_running(child))


async def test_a_busy_command_does_not_starve_its_timeout(tmp_path: Path) -> None:
    """Reading a pipe that is always full lets other tasks run."""
    outcome, out, _ = await run("yes", tmp_path, timeout=0.2)

    assert outcome.timed_out
    assert out.startswith(b"y\ny\n")


async def test_stdin_is_empty(tmp_path: Path) -> None:
    """A command that reads it finds its end at once."""
    assert (await run("cat; echo done", tmp_path))[1] == b"done\n"


async def test_a_child_in_the_background_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """`ended` returns with the command, although a child keeps the pipe open; the child lives on."""
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
            await end_all("unused", {started.process})
    assert not is_running(child)


async def test_a_child_may_print_on_after_the_end(tmp_path: Path) -> None:
    """Its output is read and dropped, which spares it a full pipe and a SIGPIPE."""
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
    # The block has ended because the pipes have: the child ended by itself.
    assert size_of(tmp_path / "ended")
    assert len(reader.data) == delivered


async def test_a_slow_reader_gets_all_output_after_the_end(tmp_path: Path) -> None:
    """The short time after the end bounds the children that print late, rather than the reader."""
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
        with anyio.move_on_after(0.5):  # longer than the time for late output
            await started.ended()
            raise AssertionError("ended before its output was delivered")
        release.set()
        await started.ended()
        assert len(taken.data) == 100 + size
        started.kill()


async def test_leaving_by_cancellation_kills(tmp_path: Path) -> None:
    """A command ends with the task that waits for it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "echo $$ > pid; trap '' TERM; sleep 1000", tmp_path)
        pid = await number_soon_in(tmp_path / "pid")
        assert is_running(pid)
        tasks.cancel_scope.cancel()
    assert not is_running(pid)


async def test_every_process_that_carries_the_name_is_ended(tmp_path: Path) -> None:
    """Even one that left its group and session. Processes with a longer name live on."""
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


async def test_an_empty_group_is_not_left(tmp_path: Path) -> None:
    """Its leader can be forgotten."""
    async with running("true", cwd=tmp_path, env=ENV, timeout=None) as started:
        await started.process.wait()

    assert not group_is_left(started.process)


@pytest.mark.parametrize(
    ("command", "cwd", "culprit"),
    [("true", "missing", "cwd"), ("true", "file", "cwd"), ("x" * 200_000, ".", "command")],
)
async def test_a_command_that_cannot_start_names_the_culprit(
    tmp_path: Path, command: str, cwd: str, culprit: str
) -> None:
    """Its pipes are closed: a leaked one would be a warning, and warnings are errors here."""
    touch(tmp_path / "file")

    with pytest.raises(CannotStart) as refusal:
        async with running(command, cwd=tmp_path / cwd, env=ENV, timeout=None):
            await checkpoint()

    assert refusal.value.culprit == culprit


async def test_the_environment_is_the_callers(tmp_path: Path) -> None:
    """The server's own variables stay out."""
    env: Mapping[str, str] = {**ENV, "GIVEN": "1"}
    reader = Reader()
    async with running("env", cwd=tmp_path, env=env, timeout=None) as started, anyio.create_task_group() as pumps:
        pumps.start_soon(started.stdout.pump, reader.take)
        pumps.start_soon(started.stderr.pump, reader.take)
        await started.ended()

    names = {line.split("=")[0] for line in reader.data.decode().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "GIVEN"}


async def test_a_process_with_a_reused_number_is_not_killed(tmp_path: Path) -> None:
    """If a reaped leader's number belongs to a live process, the number was reused and the group has ended."""
    async with running("sleep 1000", cwd=tmp_path, env=ENV, timeout=None) as innocent:
        kill_all("unused", {cast(Process, Reaped(innocent.process.pid))})
        await soon(lambda: True)
        assert is_running(innocent.process.pid)
        assert innocent.process.returncode is None
        innocent.kill()


async def test_a_process_of_another_user_counts_as_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused signal shows that the number is in use."""

    def refuse(number: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)

    assert group_is_left(cast(Process, Reaped(1)))
    assert kill_all("unused", {cast(Process, Reaped(1))}) == 0


async def test_other_errors_of_the_system_are_raised_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only errors that the request caused become `CannotStart`."""

    async def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(anyio, "open_process", fail)
    with pytest.raises(OSError, match="no more processes"):
        async with running("true", cwd=tmp_path, env=ENV, timeout=None):
            await checkpoint()


class Reaped:
    """A process that has ended and was reaped, with any number."""

    returncode = 0

    def __init__(self, pid: int) -> None:
        self.pid = pid
