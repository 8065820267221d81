"""The loop that ends a command, in the shells that sandboxes have, with real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

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


def start(command: str, token: str) -> subprocess.Popen[bytes]:
    """Runs a command as a sandbox does: a shell in a session of its own, the marker in its environment."""
    return subprocess.Popen(
        ["bash", "-c", command],
        env={**os.environ, MARKER: token},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end(shell: list[str], token: str, evidence: Evidence = Evidence.OUTPUT, timeout: float = 5) -> tuple[str, int]:
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
def test_everything_that_carries_the_marker_is_ended(shell: list[str], token: str, name: str) -> None:
    """Whatever it does against it."""
    started = start(COMMANDS[name], token)
    eventually(lambda: marked(token))
    group = started.pid
    time.sleep(0.1)  # children come and go; more of them makes it harder, not easier

    assert end(shell, token) == ("sse-bridge:gone", 0)
    started.wait(5)
    assert not marked(token)
    assert not [process.pid for process in psutil.process_iter() if _lives_in(process, group)]


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


@pytest.mark.parametrize("timeout", [1, 0.1])
def test_what_is_dead_when_the_time_is_up_is_gone(shell: list[str], token: str, timeout: float) -> None:
    """However short the time: the end gets its look, too, and who was only asked so far is made to end."""
    started = start(COMMANDS["one that will not be asked"], token)
    eventually(lambda: marked(token))

    assert end(shell, token, timeout=timeout) == ("sse-bridge:gone", 0)
    started.wait(5)


def test_a_command_that_starts_late_is_caught(shell: list[str], token: str) -> None:
    """Without an answer from the platform there is no telling when it starts: the loop looks as long as it may."""
    looking = subprocess.Popen([*shell, "-c", script(token, Evidence.NONE, 4)], stdout=subprocess.PIPE, text=True)
    time.sleep(0.7)
    late = start("exec sleep 300", token)
    output, _ = looking.communicate(timeout=30)

    assert output.strip() == "sse-bridge:gone"
    late.wait(5)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [(Evidence.OUTPUT, "gone"), (Evidence.ANSWERED, "gone"), (Evidence.NONE, "left")],
)
def test_a_command_that_is_over_is_gone_only_if_it_is_known_to_have_started(
    shell: list[str], token: str, evidence: Evidence, expected: str
) -> None:
    """What was never seen may still come."""
    assert end(shell, token, evidence, timeout=2)[0] == f"sse-bridge:{expected}"


def test_nobody_else_is_touched(shell: list[str], token: str) -> None:
    """Not those with another marker, nor those that only speak of it."""
    other = secrets.token_hex(12)
    bystanders = [
        start("exec sleep 300", other),
        subprocess.Popen(["sleep", "300"]),
        subprocess.Popen(["bash", "-c", f"sleep 300; echo {MARKER}={token}"]),
        subprocess.Popen(["sleep", "300"], env={**os.environ, MARKER: token[:-1]}),
    ]
    try:
        target = start("exec sleep 300", token)
        eventually(lambda: marked(token))
        assert end(shell, token) == ("sse-bridge:gone", 0)
        target.wait(5)
        assert [process.poll() for process in bystanders] == [None] * 4
    finally:
        for process in bystanders:
            psutil.Process(process.pid).kill()
            process.wait()


def test_what_cannot_be_ended_is_not_said_to_be_gone(shell: list[str], token: str) -> None:
    """`gone` is said of what was seen to be gone; here the loop's `kill` does nothing."""
    sleeper = start("exec sleep 300", token)
    eventually(lambda: marked(token))
    powerless = "kill() { :; }; " + script(token, Evidence.OUTPUT, 2)
    done = subprocess.run([*shell, "-c", powerless], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode) == ("sse-bridge:left", 1)
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()


def test_without_a_clock_looks_are_counted(shell: list[str], token: str) -> None:
    """Some sandboxes hide /proc/uptime."""
    clockless = script(token, Evidence.NONE, 2).replace("/proc/uptime", "/proc/no-such-file")
    done = subprocess.run([*shell, "-c", clockless], capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout.strip(), done.returncode, done.stderr) == ("sse-bridge:left", 1, "")


def test_a_zombie_counts_as_gone(shell: list[str], token: str) -> None:
    """An agent that is slow to reap its children does not make us wait."""
    zombie = start("exit 0", token)
    eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)

    assert end(shell, token) == ("sse-bridge:gone", 0)
    zombie.wait()
