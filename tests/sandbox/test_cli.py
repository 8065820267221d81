"""The command line: `sse_bridge.cli`, as a process of its own, or called in ours to see what it leaves behind."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sse_bridge import cli
from sse_bridge.sandbox import PROFILES
from tests.sandbox.helpers import KEY, Box, frame, is_running, lines_of
from tests.support.programs import banner_of, has_ipv6

ROOT = Path(__file__).parents[2]


IPV6 = pytest.param("::1", "http://[::1]:", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine"))


class Cli:
    """A process of `sse-bridge sandbox`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.banner = banner_of(process)
        self.url = self.said("MIOSA_BASE_URL")

    def said(self, name: str) -> str:
        """The value of an `export` in the banner."""
        found = re.search(rf"export {name}=(\S+)", self.banner)
        return found[1] if found else ""

    def memory(self, field: str) -> int:
        """Bytes resident now (`VmRSS`), or at the peak so far (`VmHWM`)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024

    def http(self, key: str = KEY) -> httpx.Client:
        """A client of the server."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30)

    def stop(self, signum: signal.Signals) -> float:
        """Sends a signal and waits for the process's end; returns the seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(signum)
        self.process.wait(10)
        return time.monotonic() - begun


@contextmanager
def started(*arguments: str, key: str | None = KEY) -> Iterator[Cli]:
    env = {name: value for name, value in os.environ.items() if name != "MIOSA_API_KEY"}
    if key is not None:
        env["MIOSA_API_KEY"] = key
    command = [sys.executable, "-m", "sse_bridge", "sandbox", "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield Cli(process)
            process.terminate()  # lets it clean up
            process.wait(10)
        finally:
            process.kill()


def test_the_banner_says_how_to_use_it_and_warns() -> None:
    """It hides a key that the user supplied."""
    with started() as sandbox:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", sandbox.url)
        assert "no isolation" in sandbox.banner
        assert KEY not in sandbox.banner
        assert not sandbox.said("MIOSA_API_KEY")  # which could not be pasted
        assert "MIOSA_API_KEY is the one in the environment" in sandbox.banner
        with sandbox.http() as http:
            assert Box(http).exec("echo ok")["stdout"] == "ok\n"


def test_a_missing_key_is_made_up() -> None:
    """The banner shows it, since only the server knows it."""
    with started(key=None) as sandbox:
        key = sandbox.said("MIOSA_API_KEY")
        assert len(key) > 30
        with sandbox.http(key) as http:
            assert http.get("/sandboxes").status_code == 200
        with sandbox.http() as http:
            assert http.get("/sandboxes").status_code == 401


def test_the_command_lines_key_wins() -> None:
    """Over the environment's. The banner shows it, as the terminal does already."""
    with started("--key", "my other") as sandbox, sandbox.http("my other") as http:
        assert http.get("/sandboxes").status_code == 200
        assert "export MIOSA_API_KEY='my other'\n" in sandbox.banner


@pytest.mark.parametrize("quiet", [False, True])
def test_starts_and_ends_of_commands_are_logged(quiet: bool) -> None:
    """By their ids. Their text may hold secrets."""
    with started(*(["--quiet"] if quiet else [])) as sandbox, sandbox.http() as http:
        Box(http).exec("echo hunter2; exit 3")
        sandbox.stop(signal.SIGTERM)
        assert sandbox.process.stdout
        logged = sandbox.process.stdout.read()
    line = r"\d\d:\d\d:\d\d (exec_\w+): "
    assert re.fullmatch("" if quiet else rf"{line}started\n{line}exit 3\n", logged)


def test_a_sandbox_can_be_made_with_the_server() -> None:
    """The banner has its id, which is the one that the name finds, and a line for curl without the key."""
    with started("--sandbox", "my box") as sandbox, sandbox.http() as http:
        (box_id,) = re.findall(r"in the sandbox (sbx_\w+):", sandbox.banner)
        answer = http.post(f"/sandboxes/{box_id}/exec/stream", json={"command": "echo ok"})
        assert answer.content == frame("stdout", {"line": "ok"}) + frame("exit", {"exit_code": 0})
        assert [each["id"] for each in http.get("/sandboxes").json()["data"]] == [box_id]
        assert sandbox.said("SANDBOX_ID") == box_id
        assert http.get("/sandboxes/by-name/my box").json()["data"]["id"] == box_id
        assert KEY not in sandbox.banner


def test_a_profile_can_be_chosen() -> None:
    """For the sandbox of the command line, too."""
    with started("--profile", "soma", "--sandbox", "box") as sandbox, sandbox.http() as http:
        box_id = http.get("/sandboxes/by-name/box").json()["data"]["id"]
        answer = http.post(f"/sandboxes/{box_id}/exec/stream", json={"command": "echo ok"})
        assert frame("stdout", {"text": "ok\n"}) in answer.content


def test_an_unknown_profile_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the known ones."""
    assert cli.main(["sandbox", "--profile", "none"]) == 1

    assert "unknown profile 'none'; the profiles are standard, soma," in capsys.readouterr().err


def test_the_help_names_the_profiles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them. And it says that commands take a sandbox's id, not the name that `--sandbox` gives it."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        cli.main(["sandbox", "--help"])

    shown = capsys.readouterr().out
    assert f"How sandboxes behave: {', '.join(PROFILES)}." in shown
    assert "Commands take the id, not the name." in shown


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_line_for_curl_works_as_it_stands() -> None:
    """In a shell that has run the `export` before it."""
    with started("--sandbox", "box", key=None) as sandbox:
        (export,) = re.findall(r"^ *(export MIOSA_API_KEY=.*)$", sandbox.banner, re.MULTILINE)
        (curl,) = re.findall(r"^ *(curl .*)$", sandbox.banner, re.MULTILINE)
        streamed = subprocess.check_output(["sh", "-c", f"{export}\n{curl} --silent"])
    assert lines_of(streamed) == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["", "a\nb", "\udcff"])
def test_an_invalid_name_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be none, or break the banner."""
    with pytest.raises(SystemExit):
        cli.main(["sandbox", "--sandbox", name])

    assert "not a name" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_and_its_commands(signum: signal.Signals) -> None:
    """Within 4 s (measured: 1.3), although a silent stream and one with a client that stopped reading are open."""
    with started() as sandbox, sandbox.http() as http:
        box = Box(http)
        folder = Path(str(box.exec("pwd")["stdout"]).strip()).parent
        silent = {"command": "trap '' TERM INT HUP; setsid sleep 1000 & echo $! > child; echo $$ > main; sleep 1000"}
        with (
            http.stream("POST", f"{box.path}/exec/stream", json=silent),
            http.stream("POST", f"{box.path}/exec/stream", json={"command": "echo $$ > yes; exec yes"}) as stuck,
        ):
            parts = stuck.iter_raw()  # the name keeps the response open
            next(parts)
            pids = [box.pid(name) for name in ("child", "main", "yes")]
            assert all(map(is_running, pids))
            assert sandbox.stop(signum) < 4
        assert not any(map(is_running, pids))
        assert not folder.exists()


def test_a_shutdown_completes_open_streams() -> None:
    """The command is killed first, so its client gets the exit frame and a complete response."""
    with started("--quiet") as sandbox, sandbox.http() as http:
        box = Box(http)
        with http.stream("POST", f"{box.path}/exec/stream", json={"command": "echo $$ > pid; sleep 1000"}) as stream:
            box.pid("pid")
            assert sandbox.stop(signal.SIGTERM) < 4
            assert stream.read() == b'event: exit\ndata: {"exit_code":137}\n\n'
        assert sandbox.process.stdout
        assert sandbox.process.stdout.read() == ""


def test_a_million_lines_pass_in_bounded_memory() -> None:
    """All arrive in order, and the server's memory grows by less than 32 MiB."""
    count = 1_000_000
    expected = hashlib.sha256()
    for start in range(1, count + 1, 10_000):
        numbers = range(start, start + 10_000)
        expected.update("".join(f'event: stdout\ndata: {{"line":"{each}"}}\n\n' for each in numbers).encode())
    expected.update(b'event: exit\ndata: {"exit_code":0}\n\n')
    with started() as sandbox, sandbox.http() as http:
        box = Box(http)
        box.exec("echo warm")
        before = sandbox.memory("VmRSS")
        received = hashlib.sha256()
        with http.stream("POST", f"{box.path}/exec/stream", json={"command": f"seq {count}"}) as stream:
            for part in stream.iter_raw():
                received.update(part)
        assert received.digest() == expected.digest()
        assert sandbox.memory("VmHWM") - before < 32 * 1024 * 1024


def test_a_client_that_does_not_read_costs_no_memory() -> None:
    """The command is held back, so the server's memory grows by less than 32 MiB."""
    with started() as sandbox, sandbox.http() as http:
        box = Box(http)
        box.exec("echo warm")
        before = sandbox.memory("VmRSS")
        with http.stream("POST", f"{box.path}/exec/stream", json={"command": "yes"}) as stream:
            parts = stream.iter_raw()
            next(parts)
            box.exec("yes | head -c 300000000 > /dev/null")  # meanwhile the held command could print as much
            assert sandbox.memory("VmHWM") - before < 32 * 1024 * 1024
            next(parts)  # the stream is still open


@pytest.mark.parametrize("hangup", [signal.SIG_DFL, signal.SIG_IGN])
@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "http://127.0.0.1:"), IPV6])
def test_an_interrupt_is_a_good_end(
    host: str, shown: str, hangup: signal.Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`main` returns 0 and restores the process's signal handlers, an ignored SIGHUP (`nohup`) included."""
    urls: list[str] = []

    def interrupt_after_banner(*lines: str, **options: Any) -> None:
        urls.append(re.findall(r"http://\S+", lines[0])[0])
        threading.Thread(target=interrupt_when_up, args=(urls[0],)).start()

    monkeypatch.setattr("builtins.print", interrupt_after_banner)
    before = signal.signal(signal.SIGHUP, hangup)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        assert cli.main(["sandbox", "--host", host, "--port", "0", "--key", KEY]) == 0
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
    assert urls[0].startswith(shown)


def interrupt_when_up(url: str) -> None:
    httpx.get(url)
    os.kill(os.getpid(), signal.SIGINT)


def test_it_runs_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m sse_bridge`."""
    monkeypatch.setattr(sys, "argv", ["sse-bridge", "sandbox", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("sse_bridge", run_name="__main__")

    assert end.value.code == 0
    assert "without any isolation" in " ".join(capsys.readouterr().out.split())


def test_a_taken_port_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr instead of a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert cli.main(["sandbox", "--port", str(other.getsockname()[1])]) == 1

    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["70000", "-1", "http"])
def test_an_invalid_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The parser says so and exits, as for every wrong argument."""
    with pytest.raises(SystemExit):
        cli.main(["sandbox", f"--port={port}"])

    assert "not a port" in capsys.readouterr().err


def test_a_missing_uvicorn_is_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.delitem(sys.modules, "sse_bridge.sandbox.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert cli.main(["sandbox"]) == 1
    assert 'pip install "sse_bridge[serve]"' in capsys.readouterr().err


def test_other_import_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a missing uvicorn becomes a message."""
    monkeypatch.setitem(sys.modules, "sse_bridge.sandbox.server", None)

    with pytest.raises(ModuleNotFoundError):
        cli.main(["sandbox"])


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    """Without one the parser shows the help, and exits with status 2."""
    with pytest.raises(SystemExit) as end:
        cli.main([])

    assert end.value.code == 2
    assert "Serve MIOSA's sandbox API" in "".join(capsys.readouterr())
