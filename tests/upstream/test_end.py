"""The loop that ends a command (`end.sh`), with the tools that sandboxes have, against real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from sse_bridge.upstream.miosa import cancel
from sse_bridge.upstream.miosa.cancel import MARKER, Evidence, look_for, script
from tests.support.documentation import DOCS, only_block
from tests.support.waiting import eventually
from tests.upstream.sandbox_shells import Agent, Tools, leaves, remains, tools_named, wait_for_leaves

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")


#: A program that fills its environment with zeros, as those do that set their title, and then starts a `sleep`.
OVERWRITES = """
import ctypes, os, subprocess, sys, time
stat = open("/proc/self/stat").read().rpartition(") ")[2].split()
start, end = int(stat[47]), int(stat[48])
ctypes.memset(start, 0, end - start)
subprocess.Popen(["sleep", sys.argv[1]], env=dict(os.environ) if sys.argv[2] == "kept" else {})
time.sleep(300)
"""
#: A program with a name that could be taken for other fields of /proc/*/stat.
ODD_NAME = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(15, b") S\\n1 (\\xff\\n*", 0, 0, 0)
subprocess.Popen(["sleep", sys.argv[1]], env={}).wait()
"""
#: A program that goes on after its main thread has ended. Once it has, it leaves its number in a file.
HEADLESS = """
import ctypes, os, platform, threading, time
def go_on():
    while ") Z " not in open("/proc/self/stat").read():
        time.sleep(0.01)
    open("started", "w").write(str(os.getpid()))
    os.rename("started", "pid")
    time.sleep(300)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)
"""
PYTHON = f"exec {sys.executable}"
CLEARS = f'{PYTHON} -c \'import os; os.environ.clear(); os.execv("/bin/sleep", ["sleep", "{{id}}"])\''

#: Commands that are found and ended, and the number of `sleep`s that each consists of.
ENDED = {
    "a single command": ("sleep {id}", 1),
    "a shell that waits": ("sleep {id}; :", 1),
    "one that ignores SIGTERM": ("trap '' TERM; sleep {id}; :", 1),
    "one that is stopped": ("sleep {id} & sleep 0.3; kill -STOP $!; wait", 1),
    "one that forks all the time": ("sleep {id} & while :; do (sleep 0.3 &); sleep 0.1; done", 1),
    "one with a long environment": ("export A='\n==> x <==\n' B=\"$(seq 9999)\"; exec sleep {id}", 1),
    "a pipeline": ("sleep {id} | env -i sleep {id}", 2),
    "children in the background": ("sleep {id} & sleep {id} & wait", 2),
    "a child that ignores SIGHUP": ("$(command -v nohup) sleep {id} & wait", 1),
    "a child in its own session": ("setsid sleep {id} & wait", 1),
    "an orphan": ("(sleep {id} &); sleep {id}", 2),
    "an orphan in its own session": ("(setsid sleep {id} &); sleep {id}", 2),
    "a daemon": ("(setsid sleep {id} >/dev/null 2>&1 &); sleep {id}", 2),
    "an orphan, and its shell is gone": ("sleep {id} &", 1),
    "a child without its environment": ("env -i sleep {id} & wait", 1),
    "a child as of sudo": ("env -i PATH=\"$PATH\" sh -c 'sleep {id}; :' & wait", 1),
    "a child without its environment, in its own session": ("env -i setsid sleep {id} & wait", 1),
    "a child with another command's marker": (f"{MARKER}=0123456789ab sleep {{id}} & wait", 1),
    "an orphan without its environment": ("(env -i sleep {id} &); sleep {id}", 2),
    "an orphan without its environment, in its own session": ("(env -i setsid sleep {id} &); sleep {id}", 2),
    "orphans with and without theirs, and their shell is gone": ("(env -i sleep {id} &); (sleep {id} &)", 2),
    "itself without its environment, but not its child": ("sleep {id} & exec env -i sleep {id}", 2),
    "the same, printing elsewhere": ("exec >/dev/null 2>&1; sleep {id} & exec env -i sleep {id}", 2),
    "one that clears its environment, but not its child's": (f"sleep {{id}} & {CLEARS}", 2),
    "one that overwrites its environment, but not its child's": (f"{PYTHON} overwrites.py {{id}} kept", 1),
    "one with an odd name": (f"{PYTHON} odd_name.py {{id}}", 1),
}

#: Commands that hide, at least in part; the number of their `sleep`s, and what is said of them.
HIDDEN = {
    "exec without its environment": ("exec env -i sleep {id}", 1, "unseen"),
    "exec without the marker": (f"unset {MARKER}; exec sleep {{id}}", 1, "unseen"),
    "exec with another marker": (f"{MARKER}=0123456789ab exec sleep {{id}}", 1, "unseen"),
    "one that clears its environment": (CLEARS, 1, "unseen"),
    "one with an environment as of another": (
        "exec env -i A='\n==> /proc/1/environ <==\n' $(env | grep ^SSE_BRIDGE) sleep {id}", 1, "unseen",
    ),
    "one that overwrites its environment": (f"{PYTHON} overwrites.py {{id}} lost", 1, "unseen"),
    "a shell without its environment": ("exec env -i PATH=\"$PATH\" sh -c 'sleep {id} & sleep {id}; :'", 2, "unseen"),
    "one that hides, but not its daemon": (
        "(setsid sleep {id} >/dev/null 2>&1 &); exec env -i sleep {id}", 2, "left",
    ),
    "a daemon that hides, but not its parent": ("(env -i setsid sleep {id} >/dev/null 2>&1 &); sleep {id}", 2, "left"),
}  # fmt: skip


@pytest.fixture(params=["dash", "busybox", pytest.param("bash", marks=pytest.mark.slow)])
def tools(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Runs a test with each set of tools."""
    return tools_named(request.param, tmp_path_factory.mktemp("applets"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart from what else runs in the checkout: an orphan in the command's folder may be a part of it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the pause between looks, for tests in which their number counts."""
    monkeypatch.setattr(cancel, "PAUSE", 0.02)


Start = Callable[..., Agent]


@pytest.fixture
def start(tools: Tools, tmp_path: Path) -> Iterator[Start]:
    """Starts a command as a sandbox does; afterwards all its processes are killed. Each has a folder of its own."""
    started: list[Agent] = []

    def run(command: str, marker: str | None = None, within: Iterable[str] = ()) -> Agent:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        (folder / "overwrites.py").write_text(OVERWRITES)
        (folder / "odd_name.py").write_text(ODD_NAME)
        (folder / "headless.py").write_text(HEADLESS)
        started.append(Agent(tools, command, folder, marker, within))
        return started[-1]

    yield run
    for agent in started:
        agent.close()


def test_every_process_of_a_command_is_ended(start: Start) -> None:
    """The fault: processes without the marker in their environment, and environments that the tools cannot read, were
    overlooked, and the command called gone. A command may drop it, or overwrite it, or leave its group and session.
    """
    agents = {name: start(command) for name, (command, _) in ENDED.items()}
    wait_for_leaves((agent, ENDED[name][1]) for name, agent in agents.items())
    for agent in agents.values():
        agent.tell(agent.loop())

    assert {name: agent.said() for name, agent in agents.items()} == dict.fromkeys(agents, "gone")
    assert not any(remains(agent.id) for agent in agents.values())


def test_a_command_that_hides_is_not_called_gone(start: Start) -> None:
    """The fault: a process that was never seen counted as gone. Here at least one lives on."""
    agents = {name: start(command) for name, (command, *_) in HIDDEN.items()}
    wait_for_leaves((agent, HIDDEN[name][1]) for name, agent in agents.items())
    for agent in agents.values():
        agent.tell(agent.loop())

    assert {name: agent.said() for name, agent in agents.items()} == {name: HIDDEN[name][2] for name in agents}
    assert all(remains(agent.id) for agent in agents.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "word"),
    [
        (f"{sys.executable} headless.py; :", "gone"),
        (f"{sys.executable} headless.py & wait", "gone"),
        (f"trap '' TERM; {sys.executable} headless.py; :", "gone"),
        (f"setsid {sys.executable} headless.py & wait", "gone"),
        (f"({sys.executable} headless.py &); sleep {{id}}", "gone"),
        (f"{PYTHON} headless.py", "unseen"),
    ],
)
def test_a_process_whose_main_thread_has_ended_is_not_taken_for_dead(
    start: Start, tmp_path: Path, command: str, word: str
) -> None:
    """The kind of fault: a process that shows the state of a zombie, and no environment, but runs on in other threads,
    was taken for dead, and its command called gone.
    """
    agent = start(command)
    pid = tmp_path / "0" / "pid"
    eventually(pid.exists, timeout=30)
    process = psutil.Process(int(pid.read_text()))
    assert process.status() == psutil.STATUS_ZOMBIE
    try:
        assert agent.end() == word
        assert (process.is_running() and process.num_threads() > 1) == (word != "gone")
    finally:
        if process.is_running():
            process.kill()


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("evidence", list(Evidence))
@pytest.mark.usefixtures("quick")
def test_a_command_that_was_never_seen_is_gone_only_if_the_platform_says_so(
    start: Start, evidence: Evidence, has_ended: bool, tmp_path: Path
) -> None:
    """The platform says so by ending the stream. Anything else it has sent proves only that there was a command."""
    agent = start(": > ran")
    eventually((tmp_path / "0" / "ran").exists, timeout=30)
    eventually(agent.command_is_over, timeout=30)  # else the loop sees it end
    loop = agent.loop(evidence, timeout=0.4 if evidence is Evidence.NONE else 8, has_ended=has_ended)

    assert agent.end(loop) == ("gone" if has_ended and evidence is not Evidence.NONE else "unseen")


def test_other_processes_are_left_alone(start: Start) -> None:
    """Other commands, marked or hidden, older or younger, with the same agent or another; and the agent itself."""
    target = start("(env -i sleep {id} &); sleep {id}")
    others = [
        start("sleep {id}; :", f"{MARKER}={target.token}0"),
        start("sleep {id}; :", f"{MARKER}={target.token[:-1]}"),
        start("sleep {id}; :", f"X{MARKER}={target.token}"),
        start("sleep {id}; :", f"X={MARKER}={target.token}"),
        start(f"sleep {{id}}; echo {MARKER}={target.token}"),
        start("exec env -i sleep {id}"),
        start("(env -i setsid sleep {id} &); sleep {id}"),
    ]
    wait_for_leaves([(target, 2), *((other, 1) for other in others), (others[-1], 2)])
    before = leaves()

    assert target.end() == "gone"
    assert remains(target.id) == []
    assert [leaves()[other.id] for other in others] == [before[other.id] for other in others]
    assert [other.process.poll() for other in others] == [None] * len(others)


#: A platform's agent that starts everything in its own session, group and with its own output: a service, another
#: command, the command, and the loop.
PLAIN_AGENT = """
{shell} -c 'sleep {service}; :' &
{other} {shell} -c 'sleep {id1}; :' &
{ours} {shell} -c '(env -i sleep {id2} &); sleep {id2}' &
loop=$(cat)
{shell} -c "$loop" &
wait $!
"""


def test_a_platform_that_shares_its_session_is_left_alone(tools: Tools) -> None:
    """Then group, session and output tie a command to its platform, and so to everything. Its descendants are ended;
    its orphan, which nothing tells from others, keeps it from being called gone.
    """
    token = secrets.token_hex(12)
    service, other, ours = (f"300.{secrets.randbelow(10**12):012}" for _ in range(3))
    text = PLAIN_AGENT.format(
        shell=tools.shell, service=service, id1=other, id2=ours, other=f"{MARKER}=0", ours=f"{MARKER}={token}"
    )
    with subprocess.Popen(
        ["sh", "-c", text],
        env={**os.environ, "PATH": tools.path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as agent:
        try:
            eventually(lambda: [leaves()[one] for one in (service, other, ours)] == [1, 1, 2])
            assert agent.stdin is not None
            agent.stdin.write(script(token, Evidence.OUTPUT, 8, age=60))
            agent.stdin.close()
            assert agent.stdout is not None
            assert agent.stdout.readline() == "sse-bridge:left\n"
            assert [leaves()[one] for one in (service, other)] == [1, 1]
        finally:
            for one in (service, other, ours):
                for process in remains(one):
                    process.kill()


#: Starts the agent as process 1 of its own, so that orphans are the agent's children.
AS_INIT = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")


def can_be_init() -> bool:
    """Containers seldom may."""
    return (
        shutil.which("unshare") is not None and subprocess.run([*AS_INIT, "true"], capture_output=True).returncode == 0
    )


needs_init = pytest.mark.skipif(not can_be_init(), reason="needs to make a PID namespace")


@pytest.mark.parametrize("tools", ["busybox"], indirect=True)
@needs_init
@pytest.mark.parametrize(
    ("command", "sleeps", "word"),
    [
        ("sleep {id}; :", 1, "gone"),
        ("exec >/dev/null 2>&1; sleep {id}", 1, "gone"),
        ("sleep {id} &", 1, "gone"),
        ("(setsid sleep {id} >/dev/null 2>&1 &)", 1, "gone"),
        ("exec env -i sleep {id}", 1, "unseen"),
        ("(setsid sleep {id} >/dev/null 2>&1 &); exec env -i sleep {id}", 2, "left"),
        (f"(setsid sleep {{id}} >/dev/null 2>&1 &); unset {MARKER}; exec sleep {{id}}", 2, "left"),
        ("(env -i setsid sleep {id} >/dev/null 2>&1 &); sleep {id}", 2, "left"),
    ],
)
def test_orphans_are_told_from_what_the_platform_started(start: Start, command: str, sleeps: int, word: str) -> None:
    """Where the platform is process 1, it is the parent of both."""
    agent = start(command, within=AS_INIT)
    wait_for_leaves([(agent, sleeps)])

    assert agent.end() == word


#: Put before the loop: after its first look, the number of the command's first process goes to a stranger that leads
#: a session of its own.
REUSE = """
for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in "sleep {id} "*) number=${{p#/proc/}} ;; esac; done
sleep() {{
  if [ ! "$reused" ]; then
    while [ -e "/proc/$number" ]; do command sleep 0.05; done
    (cd /; echo $((number - 1)) > /proc/sys/kernel/ns_last_pid; setsid sleep {stranger} &)
    while ! [ -e "/proc/$number" ]; do command sleep 0.05; done
    reused=1
  fi
  command sleep "$1"
}}
"""


@pytest.mark.parametrize("tools", ["busybox"], indirect=True)
@needs_init
def test_a_number_that_was_used_again_is_a_strangers(start: Start) -> None:
    """A process's number, which is also that of its group and session, is free once they are gone."""
    agent = start("sleep {id}", within=AS_INIT)
    wait_for_leaves([(agent, 1)])
    stranger = f"{agent.id}1"
    watching = "(command sleep 1.5; tr '\\0' ' ' < /proc/$number/cmdline) & "
    loop = REUSE.format(id=agent.id, stranger=stranger) + agent.loop().replace("say gone", watching + "wait; say gone")
    agent.tell(loop)
    output, _ = agent.process.communicate(timeout=60)

    assert output.split() == ["sleep", stranger, "sse-bridge:gone"]


def test_a_process_killed_when_the_time_is_up_is_gone(start: Start) -> None:
    """Even in a short time, a process that ignores SIGTERM gets its SIGKILL, and the looks that confirm its end."""
    agent = start("trap '' TERM; sleep {id}; :")
    wait_for_leaves([(agent, 1)])

    assert agent.end(agent.loop(timeout=0.1)) == "gone"


def run(tools: Tools, loop: str) -> str:
    """Runs a loop without an agent; returns its last word."""
    done = subprocess.run(
        [tools.shell, "-c", loop],
        env={**os.environ, "PATH": tools.path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()[-1].removeprefix("sse-bridge:")


@pytest.mark.usefixtures("quick")
def test_a_command_that_starts_late_is_caught(tools: Tools) -> None:
    """Before the platform answers, the command may start at any time, so the loop keeps looking."""
    token = secrets.token_hex(12)
    pausing = 'sleep() { echo looked; command sleep "$1"; }; ' + script(token, Evidence.NONE, 8)
    with subprocess.Popen(
        [tools.shell, "-c", pausing], env={**os.environ, "PATH": tools.path}, stdout=subprocess.PIPE, text=True
    ) as looking:
        assert looking.stdout is not None
        for _ in range(3):
            assert looking.stdout.readline() == "looked\n"
        with subprocess.Popen(["sleep", "300"], env={MARKER: token, "PATH": tools.path}) as late:
            output, _ = looking.communicate(timeout=30)
            assert output.split()[-1] == "sse-bridge:gone"
            late.wait(5)


def remains_but_agent(agent: Agent) -> list[psutil.Process]:
    """What is left of a command. The agent has its text as an argument."""
    return [process for process in remains(agent.id) if process.pid != agent.process.pid]


def test_a_process_that_survives_is_not_called_gone(start: Start) -> None:
    """Here the loop's `kill` has no effect."""
    agent = start("sleep {id}")
    wait_for_leaves([(agent, 1)])

    assert agent.end("kill() { :; }; " + agent.loop(timeout=0.3)) == "left"
    assert leaves()[agent.id] == 1


@pytest.mark.parametrize("tools", ["busybox"], indirect=True)
@pytest.mark.parametrize("tool", ["cat", "head", "sed", "tr"])
def test_without_a_tool_it_is_blind(start: Start, tool: str) -> None:
    """It says so, also if the platform has ended the stream, and where the command may have been seen."""
    agent = start("sleep {id}")
    wait_for_leaves([(agent, 1)])

    assert agent.end(f"{tool}() {{ return 127; }}; " + agent.loop(timeout=0.5, has_ended=True)) == "blind"


@pytest.mark.parametrize("tools", ["busybox"], indirect=True)
@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("/proc/", "/nowhere/"),  # macOS
        ("/proc/1/", "/proc/nowhere/"),  # mounted with hidepid=2
        ("/proc/self/", "/proc/1/"),  # that of another namespace
    ],
)
@pytest.mark.usefixtures("quick")
def test_without_all_of_proc_it_is_blind(start: Start, has_ended: bool, there: str, here: str) -> None:
    """What it sees it still ends, but there may be more."""
    agent = start("sleep {id}")
    wait_for_leaves([(agent, 1)])

    assert agent.end(agent.loop(has_ended=has_ended).replace(there, here)) == "blind"
    assert leaves()[agent.id] == (0 if "1" in there else 1)


@pytest.mark.usefixtures("quick")
def test_without_a_clock_each_look_counts_as_a_tenth_of_a_second(tools: Tools) -> None:
    """Some sandboxes hide /proc/uptime."""
    assert run(tools, script("none", Evidence.NONE, 1).replace("/proc/uptime", "/proc/no-such-file")) == "unseen"


@pytest.mark.parametrize("tools", ["busybox"], indirect=True)
def test_what_is_older_than_the_command_is_none_of_its_processes(start: Start) -> None:
    """Though it is tied to a marked one, as a service may be that starts a process for a command."""
    agent = start("sleep {id} & exec env -i sleep {id}")
    wait_for_leaves([(agent, 2)])
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 0.1)  # the kernel notes starts in steps of a hundredth of a second

    assert agent.end(script(agent.token, Evidence.OUTPUT, 8, age=0)) == "gone"
    assert leaves()[agent.id] == 1


@pytest.mark.parametrize("tools", ["busybox"], indirect=True)
def test_a_zombie_counts_as_gone(tools: Tools) -> None:
    """An agent may be slow to reap its children. Here we are the agent."""
    token = secrets.token_hex(12)
    command = subprocess.Popen(["sleep", "300"], env={MARKER: token, "PATH": tools.path})
    try:
        assert run(tools, script(token, Evidence.OUTPUT, 8)) == "gone"
        assert psutil.Process(command.pid).status() == psutil.STATUS_ZOMBIE
    finally:
        command.kill()
        command.wait()


def test_the_loop_fits_into_an_argument() -> None:
    """Some platforms take 4,096 bytes of a command (`docs/miosa.md` §4). Comments and indentation are left out."""
    sent = script("0" * 24, Evidence.NONE, 86_400.0)

    assert len(sent.encode()) < 4096
    assert not [line for line in sent.splitlines() if line.startswith(("#", " "))]


def output_of(tools: Tools, command: str) -> str:
    """What a command line prints."""
    return subprocess.run(
        [tools.shell, "-c", command],
        env={**os.environ, "PATH": tools.path},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def test_the_log_says_how_to_find_a_command(start: Start, tools: Tools) -> None:
    """A command line for the sandbox's shell; it prints the numbers of the processes with this marker."""
    ours = start("sleep {id}; :")
    other = start("sleep {id}", f"{MARKER}={ours.token}0")
    wait_for_leaves([(ours, 1), (other, 1)])

    found = {int(word) for word in output_of(tools, look_for(ours.token)).split()}
    assert found == {process.pid for process in remains_but_agent(ours)}


def test_the_documentation_says_how_to_find_all_commands(start: Start, tools: Tools) -> None:
    """After the server was killed, no log names them. The command prints each number beside its marker."""
    agents = [start("sleep {id}; :"), start("exec sleep {id}")]
    hidden = start("exec env -i sleep {id}")
    wait_for_leaves([*((agent, 1) for agent in agents), (hidden, 1)])
    documented = only_block(DOCS / "miosa.md", "sh")

    found = output_of(tools, documented).splitlines()
    for agent in agents:
        of_this = [line.split()[0] for line in found if line.endswith(f" {MARKER}={agent.token}")]
        assert sorted(map(int, of_this)) == sorted(process.pid for process in remains_but_agent(agent))
    assert all(MARKER in line for line in found)
