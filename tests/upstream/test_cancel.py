"""The loop that ends a command, in the shells that sandboxes have, with real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
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
    found = SHELLS[request.param]
    if shutil.which(found[0]) is None:
        skip(f"there is no {found[0]}; `make system` as root installs it")
    return found


@pytest.fixture
def token() -> Iterator[str]:
    made = secrets.token_hex(12)
    yield made
    for process in marked(made):
        process.kill()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow one another faster, where it is their number that counts."""
    monkeypatch.setattr(cancel, "_INTERVAL", 0.02)


Start = Callable[[str, str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a command as a sandbox does: a shell in a session of its own, the marker in its environment.

    When the test is over, nothing is left of its process group, whoever was to end it.
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
    """The living processes that carry the marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(shell: list[str], token: str, evidence: Evidence = Evidence.OUTPUT, timeout: float = 1) -> tuple[str, int]:
    """Runs the loop, and gives its output and exit code. It must keep to its time."""
    started = time.monotonic()
    done = subprocess.run(
        [*shell, "-c", script(token, evidence, timeout)], capture_output=True, text=True, timeout=30, check=False
    )
    assert time.monotonic() - started < timeout + 2  # a last look at the processes of a busy machine
    assert done.stderr == ""
    return done.stdout.strip(), done.returncode


COMMANDS = {
    "a sleep": "exec sleep 300",
    "a shell with a child": "sleep 300; echo",
    "one that will not be asked": "trap '' TERM; while :; do sleep 0.2; done",
    "background children": "sleep 300 & sleep 301 & sleep 302",
    "a child in a session of its own": "setsid sleep 300 & sleep 301",
    "a child without its environment": "env -i sleep 300 & sleep 301",
    "children that ignore it, in the background": "(trap '' TERM; setsid sleep 300) & disown; sleep 301",
    "one that forks all the time": "while :; do (sleep 0.05 &) ; sleep 0.01; done",
}


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.usefixtures("quick")
def test_everything_that_carries_the_marker_is_ended(start: Start, token: str, name: str) -> None:
    """Whatever it does against it."""
    started = start(COMMANDS[name], token)
    eventually(lambda: marked(token))
    time.sleep(0.1)  # children come and go; more of them makes it harder, not easier

    assert end(["sh"], token) == ("sse-bridge:gone", 0)
    _assert_over(started)
    assert not marked(token)


def test_everything_is_ended_by_one_loop_in_every_shell(start: Start, shell: list[str], token: str) -> None:
    """All of it at the same time."""
    started = [start(command, token) for command in COMMANDS.values()]
    eventually(lambda: len(marked(token)) > len(COMMANDS))
    time.sleep(0.1)

    assert end(shell, token, timeout=1.5) == ("sse-bridge:gone", 0)
    for process in started:
        _assert_over(process)
    assert not marked(token)


def _assert_over(started: subprocess.Popen[bytes]) -> None:
    started.wait(5)
    assert not [process.pid for process in psutil.process_iter() if _lives_in(process, started.pid)]


def _lives_in(process: psutil.Process, group: int) -> bool:
    """Whether it belongs to the process group and is more than a zombie. Processes come and go while we ask."""
    try:
        return _group(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def test_what_is_dead_when_the_time_is_up_is_gone(start: Start, shell: list[str], token: str) -> None:
    """However short the time: the end gets its look, too, and who was only asked so far is made to end."""
    started = start(COMMANDS["one that will not be asked"], token)
    eventually(lambda: marked(token))

    assert end(shell, token, timeout=0.1) == ("sse-bridge:gone", 0)
    started.wait(5)


@pytest.mark.usefixtures("quick")
def test_a_command_that_starts_late_is_caught(start: Start, shell: list[str], token: str) -> None:
    """Without an answer from the platform there is no telling when it starts: the loop looks as long as it may."""
    looking = subprocess.Popen([*shell, "-c", script(token, Evidence.NONE, 5)], stdout=subprocess.PIPE, text=True)
    time.sleep(0.2)
    late = start("exec sleep 300", token)
    output, _ = looking.communicate(timeout=30)

    assert output.strip() == "sse-bridge:gone"
    late.wait(5)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [(Evidence.OUTPUT, "gone"), (Evidence.ANSWERED, "gone"), (Evidence.NONE, "left")],
)
@pytest.mark.usefixtures("quick")
def test_a_command_that_is_over_is_gone_only_if_it_is_known_to_have_started(
    shell: list[str], token: str, evidence: Evidence, expected: str
) -> None:
    """What was never seen may still come."""
    assert end(shell, token, evidence, timeout=0.4 if expected == "left" else 2)[0] == f"sse-bridge:{expected}"


@pytest.mark.usefixtures("quick")
def test_nobody_else_is_touched(start: Start, shell: list[str], token: str) -> None:
    """Not those with another marker, nor those that only speak of it."""
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


def test_what_cannot_be_ended_is_not_said_to_be_gone(start: Start, shell: list[str], token: str) -> None:
    """`gone` is said of what was seen to be gone; here the loop's `kill` does nothing."""
    sleeper = start("exec sleep 300", token)
    eventually(lambda: marked(token))
    powerless = "kill() { :; }; " + script(token, Evidence.OUTPUT, 0.3)
    done = subprocess.run([*shell, "-c", powerless], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode) == ("sse-bridge:left", 1)
    assert sleeper.poll() is None


@pytest.mark.usefixtures("quick")
def test_without_a_clock_looks_are_counted(shell: list[str], token: str) -> None:
    """Some sandboxes hide /proc/uptime."""
    clockless = script(token, Evidence.NONE, 1).replace("/proc/uptime", "/proc/no-such-file")
    done = subprocess.run([*shell, "-c", clockless], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode, done.stderr) == ("sse-bridge:left", 1, "")


def test_a_zombie_counts_as_gone(start: Start, shell: list[str], token: str) -> None:
    """An agent that is slow to reap its children does not make us wait."""
    zombie = start("exit 0", token)
    eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)

    assert end(shell, token) == ("sse-bridge:gone", 0)
    zombie.wait()
