"""The loop that ends a command (`end.sh`), in the shells that sandboxes have, against real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from sse_bridge.upstream.miosa import cancel
from sse_bridge.upstream.miosa.cancel import MARKER, Evidence, script
from tests.support.skipping import skip
from tests.support.waiting import eventually

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Runs a test with each shell."""
    found = SHELLS[request.param]
    if shutil.which(found[0]) is None:
        skip(f"{found[0]} is missing; `make system` as root installs it")
    return found


@pytest.fixture
def token() -> Iterator[str]:
    """The value of a marker. Processes that still carry it in the end are killed."""
    made = secrets.token_hex(12)
    yield made
    for process in marked(made):
        process.kill()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the pause between looks, for tests in which their number counts."""
    monkeypatch.setattr(cancel, "PAUSE", 0.02)


Start = Callable[[str, str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command as a sandbox does: in a shell with its own session, with the marker in its environment.

    After the test, the process group of each command is killed.
    """
    started: list[subprocess.Popen[bytes]] = []

    def run(command: str, token: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["bash", "-c", command],
            env={**os.environ, MARKER: token},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def marked(token: str) -> list[psutil.Process]:
    """The processes that carry the marker, except zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(shell: list[str], token: str, evidence: Evidence = Evidence.OUTPUT, timeout: float = 1) -> tuple[str, int]:
    """Runs the loop, and returns its output and exit code. Fails if the loop exceeds its time."""
    started = time.monotonic()
    done = subprocess.run(
        [*shell, "-c", script(token, evidence, timeout)], capture_output=True, text=True, timeout=30, check=False
    )
    assert time.monotonic() - started < timeout + 2  # plus a last look at the processes of a busy machine
    assert done.stderr == ""
    return done.stdout.strip(), done.returncode


#: Commands, and the processes that each of them consists of once it runs. `env -i` hides one of them from `marked`.
COMMANDS = {
    "a sleep": ("exec sleep 300", ["sleep"]),
    "a shell with a child": ("sleep 300; echo", ["bash", "sleep"]),
    "one that ignores SIGTERM": ("trap '' TERM; while :; do sleep 0.2; done", ["bash", "sleep"]),
    "background children": ("sleep 300 & sleep 301 & sleep 302; echo", ["bash", "sleep", "sleep", "sleep"]),
    "a child in its own session": ("setsid sleep 300 & sleep 301; echo", ["bash", "sleep", "sleep"]),
    "a child without its environment": ("env -i sleep 300 & sleep 301; echo", ["bash", "sleep", "sleep"]),
    "background children that ignore SIGTERM": (
        "(trap '' TERM; setsid sleep 300; echo) & disown; sleep 301; echo",
        ["bash", "bash", "sleep", "sleep"],
    ),
    "one that forks all the time": ("while :; do (sleep 0.05 &) ; sleep 0.01; done", ["bash", "sleep"]),
}


def start_all(start: Start, token: str, *names: str) -> list[subprocess.Popen[bytes]]:
    """Starts commands, and returns once each of them consists of all its processes."""
    started = []
    for name in names:
        command, expected = COMMANDS[name]
        process = start(command, token)
        eventually(lambda: not Counter(expected) - Counter(_family(process)))  # noqa: B023 (called at once)
        started.append(process)
    return started


def _family(started: subprocess.Popen[bytes]) -> list[str]:
    """The names of a command's processes."""
    names = []
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(started.pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                names.append(process.name())
    return names


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.usefixtures("quick")
def test_every_process_of_a_command_is_ended(start: Start, token: str, name: str) -> None:
    """The command may resist: ignore signals, leave its session, drop its environment, fork."""
    (started,) = start_all(start, token, name)

    assert end(["sh"], token) == ("sse-bridge:gone", 0)
    _assert_over(started)
    assert not marked(token)


def test_one_loop_ends_all_commands_in_every_shell(start: Start, shell: list[str], token: str) -> None:
    """All commands run at the same time."""
    started = start_all(start, token, *COMMANDS)

    assert end(shell, token, timeout=1.5) == ("sse-bridge:gone", 0)
    for process in started:
        _assert_over(process)
    assert not marked(token)


def _assert_over(started: subprocess.Popen[bytes]) -> None:
    started.wait(5)
    assert not [process.pid for process in psutil.process_iter() if _lives_in(process, started.pid)]


def _lives_in(process: psutil.Process, group: int) -> bool:
    """Whether it belongs to the process group and is alive. It may exit while we ask."""
    try:
        return _group(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def test_a_process_killed_when_the_time_is_up_is_gone(start: Start, shell: list[str], token: str) -> None:
    """Even in a short time, a process that ignores SIGTERM gets its SIGKILL, and the looks that confirm its end."""
    (started,) = start_all(start, token, "one that ignores SIGTERM")

    assert end(shell, token, timeout=0.1) == ("sse-bridge:gone", 0)
    started.wait(5)


@pytest.mark.usefixtures("quick")
def test_a_command_that_starts_late_is_caught(start: Start, shell: list[str], token: str) -> None:
    """Before the platform answers, the command may start at any time, so the loop keeps looking."""
    pausing = 'sleep() { echo looked; command sleep "$1"; }; ' + script(token, Evidence.NONE, 5)
    looking = subprocess.Popen([*shell, "-c", pausing], stdout=subprocess.PIPE, text=True)
    assert looking.stdout is not None
    for _ in range(3):
        assert looking.stdout.readline() == "looked\n"
    late = start("exec sleep 300", token)
    output, _ = looking.communicate(timeout=30)

    assert output.split()[-1] == "sse-bridge:gone"
    late.wait(5)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [(Evidence.OUTPUT, "gone"), (Evidence.ANSWERED, "gone"), (Evidence.NONE, "left")],
)
@pytest.mark.usefixtures("quick")
def test_a_command_that_was_never_seen_is_gone_only_if_it_has_started(
    shell: list[str], token: str, evidence: Evidence, expected: str
) -> None:
    """Without evidence of its start, it may still come."""
    assert end(shell, token, evidence, timeout=0.4 if expected == "left" else 2)[0] == f"sse-bridge:{expected}"


@pytest.mark.usefixtures("quick")
def test_other_processes_are_left_alone(start: Start, shell: list[str], token: str) -> None:
    """They carry another marker, or only mention this one."""
    bystanders = [
        start("exec sleep 300", secrets.token_hex(12)),
        start("exec sleep 300", token[:-1]),
        start(f"unset {MARKER}; exec sleep 300", ""),
        start(f"sleep 300; echo {MARKER}={token}", ""),
    ]
    target = start("exec sleep 300", token)
    eventually(lambda: marked(token))

    assert end(shell, token) == ("sse-bridge:gone", 0)
    target.wait(5)
    assert [process.poll() for process in bystanders] == [None] * 4


def test_a_process_that_survives_is_not_reported_as_gone(start: Start, shell: list[str], token: str) -> None:
    """Here the loop's `kill` has no effect."""
    sleeper = start("exec sleep 300", token)
    eventually(lambda: marked(token))
    powerless = "kill() { :; }; " + script(token, Evidence.OUTPUT, 0.3)
    done = subprocess.run([*shell, "-c", powerless], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode) == ("sse-bridge:left", 1)
    assert sleeper.poll() is None


def test_without_grep_a_command_is_not_reported_as_gone(start: Start, shell: list[str], token: str) -> None:
    """Without it the loop is blind."""
    sleeper = start("exec sleep 300", token)
    blind = "grep() { return 127; }; " + script(token, Evidence.OUTPUT, 0.3)
    done = subprocess.run([*shell, "-c", blind], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode) == ("sse-bridge:left", 1)
    assert sleeper.poll() is None


def test_comments_are_not_sent(token: str) -> None:
    """They explain the loop to maintainers, and would only make the request longer."""
    assert not [line for line in script(token, Evidence.NONE, 1).splitlines() if line.lstrip().startswith("#")]


@pytest.mark.usefixtures("quick")
def test_without_a_clock_each_look_counts_as_a_tenth_of_a_second(shell: list[str], token: str) -> None:
    """Some sandboxes hide /proc/uptime."""
    clockless = script(token, Evidence.NONE, 1).replace("/proc/uptime", "/proc/no-such-file")
    done = subprocess.run([*shell, "-c", clockless], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode, done.stderr) == ("sse-bridge:left", 1, "")


def test_a_zombie_counts_as_gone(start: Start, shell: list[str], token: str) -> None:
    """An agent may be slow to reap its children."""
    zombie = start("exit 0", token)
    eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)

    assert end(shell, token) == ("sse-bridge:gone", 0)
    zombie.wait()
