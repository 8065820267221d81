"""`sse-bridge run`: a command in a sandbox, as if it ran here."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from pathlib import Path

import pexpect
import pytest

from sse_bridge.cli.saying import exit_of, exit_status
from tests.cli.conftest import PROGRAM, Piped, Terminal, own_sandbox
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.waiting import eventually

# -- in a pipe


def test_streams_are_apart_and_the_exit_code_is_the_commands(piped: Piped, sandbox: LocalSandbox) -> None:
    done = piped("run", sandbox.id, "--", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)


@pytest.mark.slow
def test_a_command_that_a_signal_ended(piped: Piped, sandbox: LocalSandbox) -> None:
    assert piped("run", sandbox.id, "--", "kill -9 $$").returncode == 137


@pytest.mark.parametrize(("code", "status"), [(0, 0), (255, 255), (-9, 137), (256, 125), (-300, 125)])
def test_codes_that_a_process_cannot_have(code: int, status: int) -> None:
    assert exit_status(code) == status


def test_a_command_whose_time_was_up(piped: Piped, sandbox: LocalSandbox) -> None:
    done = piped("run", "--json", "--timeout", "1", sandbox.id, "echo a; sleep 60")
    assert done.returncode == 124
    assert done.stderr == b"sse-bridge: the platform ended the command because its time was up\n"
    assert json.loads(done.stdout.splitlines()[-1]) == {"type": "exit", "code": -1, "timed_out": True}


def test_whatever_code_the_platform_gives_a_command_whose_time_was_up() -> None:
    for code in (-1, 0, 137):
        end = exit_of(code, timed_out=True)
        assert (end.status, end.body) == (124, {"type": "exit", "code": code, "timed_out": True})


@pytest.mark.slow
def test_arguments_are_quoted_and_options_end_at_the_sandbox(piped: Piped, sandbox: LocalSandbox) -> None:
    for separator in (["--"], []):
        done = piped("run", sandbox.id, *separator, "printf", "%s|", "a b", "$HOME", "--json")
        assert done.stdout == b"a b|$HOME|--json|\n"


@pytest.mark.slow
def test_the_environment_and_the_folder(piped: Piped, sandbox: LocalSandbox) -> None:
    sandbox.run("mkdir -p /workspace/inner")
    options = ["--env", "A=1 2", "-e", "B", "-e", "C", "--cwd", "/workspace/inner", "--timeout", "20"]
    done = piped("run", *options, sandbox.id, 'echo "$A$B$C"; basename "$PWD"', B="from here")
    assert done.stdout == b"1 2from here\ninner\n"


def test_a_variable_that_the_shell_lacks_is_left_out(piped: Piped, sandbox: LocalSandbox) -> None:
    """As `docker run -e NAME` does. One that is empty stays empty."""
    line = 'echo "${LACKING-unset} ${EMPTY-unset} ${GIVEN-unset}"'
    done = piped("run", "-e", "LACKING", "-e", "EMPTY", "-e", "GIVEN=", sandbox.id, line, EMPTY="")
    assert done.stdout == b"unset  \n"


@pytest.mark.slow
def test_json(piped: Piped, sandbox: LocalSandbox) -> None:
    done = piped("run", "--json", sandbox.id, "echo out; echo err >&2; exit 3")
    start, *events = [json.loads(line) for line in done.stdout.splitlines()]
    assert start["type"] == "start"
    assert sorted(events, key=str) == sorted(
        [
            {"type": "stdout", "line": "out"},
            {"type": "stderr", "line": "err"},
            {"type": "exit", "code": 3},
        ],
        key=str,
    )
    assert (done.stderr, done.returncode) == (b"", 3)


@pytest.mark.slow
def test_colours_stay_in_a_pipe(piped: Piped, sandbox: LocalSandbox) -> None:
    """What the command prints is passed on as it is."""
    assert piped("run", sandbox.id, r"printf '\033[31mred\033[0m\n'").stdout == b"\x1b[31mred\x1b[0m\n"


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_quietly(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    mark = new_mark()
    line = f"{shlex.join([*PROGRAM, 'run', sandbox.id, f'yes; sleep {mark}'])} | head -2"
    done = subprocess.run(
        ["bash", "-c", line + "; exit ${PIPESTATUS[0]}"], env=environment, capture_output=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"y\ny\n", b"", 141)
    eventually(lambda: not running(mark))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MIOSA_API_KEY": "msk_wrong"}, b"upstream_unauthorized"),
        ({"MIOSA_API_KEY": ""}, b"MIOSA_API_KEY"),
        ({"MIOSA_BASE_URL": "http://127.0.0.1:1"}, b"upstream_unreachable"),
    ],
)
def test_what_is_no_fault_of_the_command_is_125(
    variables: dict[str, str], said: bytes, piped: Piped, sandbox: LocalSandbox
) -> None:
    done = piped("run", sandbox.id, "true", **variables)
    assert done.returncode == 125
    assert said in done.stderr
    assert b"msk_wrong" not in done.stderr


@pytest.mark.slow
def test_a_sandbox_that_is_not_there(piped: Piped) -> None:
    done = piped("run", "sbx_none", "true")
    assert done.returncode == 125
    assert b"not_found" in done.stderr


# -- in a terminal


@pytest.mark.slow
def test_colours_and_a_progress_bar_are_live(terminal: Terminal, sandbox: LocalSandbox, tmp_path: Path) -> None:
    """The bar is unfinished while it is shown: the command waits until the test has seen it."""
    wait = f"until test -e {tmp_path}/seen; do sleep 0.05; done"
    program = rf"printf '\033[32m10 %%'; {wait}; printf '\r20 %%\033[0m\n'; exit 3"
    child = terminal("run", sandbox.id, "--", program)
    child.expect_exact("\x1b[32m10 %")
    (tmp_path / "seen").touch()
    child.expect_exact("\r20 %\x1b[0m\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


@pytest.mark.slow
@pytest.mark.parametrize(("command", "status"), [("true", 0), ("kill -9 $$", 137)])
def test_the_exit_code_in_a_terminal(command: str, status: int, terminal: Terminal, sandbox: LocalSandbox) -> None:
    child = terminal("run", sandbox.id, f"echo begun; {command}")
    child.expect_exact("begun")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == status


def test_ctrl_c_ends_the_command_and_says_that_it_is_gone(terminal: Terminal, sandbox: LocalSandbox) -> None:
    mark = new_mark()
    child = terminal("run", sandbox.id, f"echo begun; sleep {mark}")
    child.expect_exact("begun")
    child.sendintr()
    child.expect_exact("ending the command")
    child.expect_exact("the command is gone (confirmed)")
    child.wait()
    assert child.exitstatus == 130
    assert not running(mark)


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once(terminal: Terminal) -> None:
    """While the command cannot be ended: the sandbox's server stands still."""
    with own_sandbox() as (server, box, platform):
        child = terminal("run", box, "echo begun; sleep 30", **platform)
        child.expect_exact("begun")
        server.send_signal(signal.SIGSTOP)
        child.sendintr()
        child.expect_exact("ending the command")
        child.sendintr()
        child.expect_exact("the command may still be running")
        child.wait()
        assert child.exitstatus == 130


@pytest.mark.slow
def test_a_server_that_vanishes(terminal: Terminal) -> None:
    with own_sandbox() as (server, box, platform):
        mark = new_mark()
        child = terminal("run", box, f"echo begun; sleep {mark}", **platform)
        child.expect_exact("begun")
        server.kill()
        child.expect_exact("upstream_lost")
        child.wait()
        assert child.exitstatus == 125
    for left in running(mark):
        left.kill()
