"""What commands and `end.sh` run in: three sets of tools, and an agent that starts both, as a platform's does."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from sse_bridge.upstream.miosa.cancel import MARKER, Evidence, script
from tests.support.skipping import skip
from tests.support.waiting import eventually

__all__ = ["Agent", "Tools", "leaves", "remains", "tools_named", "wait_for_leaves"]

#: Starts a command with the marker, in a session of its own and with a pipe for its output. Once it is told the loop,
#: it starts that in the same way. Arguments: env, setsid, PATH, shell, marker, command, pipe.
_AGENT: Final = """
PATH="$3" "$1" "$5" "$2" "$4" -c "$6" >"$7" 2>&1 </dev/null &
loop=$(cat)
PATH="$3" "$2" "$4" -c "$loop" &
wait $!
"""


class Tools(NamedTuple):
    """A shell, and the PATH it runs with."""

    shell: str
    path: str


def tools_named(name: str, folder: Path) -> Tools:
    """Finds a set of tools. That of busybox is a folder with a link for each of its applets, and nothing else."""
    found = shutil.which(name)
    if found is None:
        skip(f"{name} is missing; `make system` as root installs it")
    assert found is not None
    if name != "busybox":
        return Tools(found, os.environ["PATH"])
    for applet in subprocess.check_output([found, "--list"], text=True).split():
        (folder / applet).symlink_to(found)
    return Tools(str(folder / "sh"), str(folder))


class Agent:
    """An agent that runs one command. It is a process of its own, so that it has no children but these.

    Args:
        command: a command line, in which `{id}` stands for `id`, a number of seconds that `sleep` takes. By that its
            processes are found.
        marker: the variable and its value that the command gets.
        cwd: the folder of command and loop.
        within: a command line that starts the agent, with `unshare` for example.
    """

    def __init__(
        self, tools: Tools, command: str, cwd: Path, marker: str | None = None, within: Iterable[str] = ()
    ) -> None:
        self.token = secrets.token_hex(12)
        self.id = f"300.{secrets.randbelow(10**12):012}"
        self._started_at = time.monotonic()
        self._output, pipe = os.pipe()
        env, setsid = shutil.which("env"), shutil.which("setsid")
        assert env
        assert setsid
        marker = marker or f"{MARKER}={self.token}"
        arguments = [tools.path, tools.shell, marker, command.replace("{id}", self.id), f"/proc/self/fd/{pipe}"]
        self.process = subprocess.Popen(
            [*within, "sh", "-c", _AGENT, "agent", env, setsid, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[pipe],
            start_new_session=True,
            cwd=cwd,
            text=True,
        )
        os.close(pipe)

    def command_is_over(self) -> bool:
        """Whether the command's first process has ended, once it was started, and before there is a loop."""
        children = psutil.Process(self.process.pid).children()
        return all(child.status() == psutil.STATUS_ZOMBIE for child in children if child.name() != "cat")

    def loop(self, evidence: Evidence = Evidence.OUTPUT, timeout: float = 8, *, has_ended: bool = False) -> str:
        """The loop that ends this command, if it is started now."""
        age = time.monotonic() - self._started_at + timeout
        return script(self.token, evidence, timeout, age=age, has_ended=has_ended)

    def tell(self, loop: str) -> None:
        """Starts a loop."""
        assert self.process.stdin is not None
        self.process.stdin.write(loop)
        self.process.stdin.close()
        self.process.stdin = None

    def said(self) -> str:
        """What the loop said last. It fails if the loop complained."""
        output, errors = self.process.communicate(timeout=60)
        assert errors == ""
        word = output.split()[-1].removeprefix("sse-bridge:")
        assert self.process.returncode == (0 if word == "gone" else 1)
        return word

    def end(self, loop: str | None = None) -> str:
        """Runs a loop; returns its last word."""
        self.tell(loop or self.loop())
        return self.said()

    def close(self) -> None:
        """Kills all that is left."""
        os.close(self._output)
        self.process.kill()
        for process in remains(self.id):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.communicate(timeout=10)


def _living() -> Iterator[tuple[psutil.Process, list[str]]]:
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["cmdline"] and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process, process.info["cmdline"]


def leaves() -> Counter[str]:
    """How many `sleep`s each id has."""
    return Counter(words[-1] for _, words in _living() if Path(words[0]).name == "sleep")


def remains(of: str) -> list[psutil.Process]:
    """All processes with this id in their command line. Stopped ones live, too."""
    return [process for process, words in _living() if any(of in word for word in words)]


def wait_for_leaves(expected: Iterable[tuple[Agent, int]]) -> None:
    """Returns once each command has as many `sleep`s as it will have."""
    expected = list(expected)

    def all_there() -> bool:
        count = leaves()
        return all(count[agent.id] >= number for agent, number in expected)

    eventually(all_there, timeout=30)
