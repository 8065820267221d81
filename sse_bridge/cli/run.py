"""`sse-bridge run`: a command in a sandbox, as if it ran here."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer

from ..errors import BridgeError
from .saying import BROKEN_PIPE, FAILED, exit_status, fail, missing, say, words_of

if TYPE_CHECKING:
    from ..asgi.app import SSEBridge
    from ..asgi.handle import StartedRun
    from ..client.reading import Reader
    from ..relay.info import Outcome
    from ..upstream.base import Source
    from .printing import Printer

__all__ = ["CommandLine", "Cwd", "Env", "Timeout", "exec_of", "ignore_stdout", "run_command"]

#: Bytes of one event. A line has 1 MiB at most.
_MAX_EVENT_SIZE: Final = 16 * 1024 * 1024

CommandLine = Annotated[
    list[str],
    typer.Argument(metavar="COMMAND...", help="One argument is a line for the sandbox's shell; several are quoted."),
]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", metavar="NAME[=VALUE]", help="A variable; without a value, this shell's own."),
]
Cwd = Annotated[str | None, typer.Option(help="Working directory in the sandbox.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which the platform ends the command.")]


def run_command(
    sandbox: Annotated[str, typer.Argument(metavar="SANDBOX", help="Its id.")],
    command: CommandLine,
    env: Env = None,
    cwd: Cwd = None,
    timeout: Timeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> int:
    """Run a command in a MIOSA sandbox: its output here, its exit code ours. Ctrl-C ends it.

    The platform and the key are MIOSA_BASE_URL and MIOSA_API_KEY. Exit code 125: the command's own is unknown.
    """
    try:
        from .printing import Printer
    except ModuleNotFoundError as error:
        return missing(error, "httpx_sse", "cli")
    from ..upstream.miosa.client import Miosa

    logging.basicConfig(format="sse-bridge: %(message)s", level=logging.ERROR)
    try:
        source, miosa = exec_of(sandbox, command, env, cwd, timeout), Miosa()
        return anyio.run(_Running(miosa, source, Printer(as_json=as_json)).run)
    except BridgeError as error:
        return fail(words_of(error), FAILED)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def exec_of(sandbox: str, command: list[str], env: list[str] | None, cwd: str | None, timeout: float | None) -> Source:
    """What the arguments ask to run.

    Raises:
        ConfigurationError: an argument is unfit.
    """
    from ..upstream.miosa.sandbox_exec import SandboxExec

    words = command[1:] if command[:1] == ["--"] else command
    line = words[0] if len(words) == 1 else shlex.join(words)
    variables = dict(_variable(text) for text in env or [])
    return SandboxExec(sandbox, line, env=variables or None, cwd=cwd, timeout=timeout)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name, "")


class _Running:
    """One command, in a bridge of its own that lives in this process and has one viewer: the terminal."""

    def __init__(self, upstream: Any, source: Source, printer: Printer) -> None:
        self._upstream = upstream
        self._source = source
        self._printer = printer
        self._signal: signal.Signals | None = None
        self._has_left = anyio.Event()

    async def run(self) -> int:
        """Runs it; returns this process's exit code."""
        from ..asgi.app import SSEBridge
        from ..flow.policy import Block

        bridge = SSEBridge(
            self._upstream,
            lambda request: self._source,
            policy=Block(stall_timeout=None),
            heartbeat=None,
            grace=0,
            send_timeout=None,
            retry_ms=None,
            dialect="typed",
        )
        try:
            run = await bridge.start(self._source)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed_signals, run)
                code = await self._watch(bridge, run)
                tasks.cancel_scope.cancel()
            return code
        finally:
            with anyio.CancelScope(shield=True):
                await bridge.shutdown()

    async def _watch(self, bridge: SSEBridge, run: StartedRun) -> int:
        from ..client.reading import Reader

        try:
            await self._view(bridge, run, Reader(_MAX_EVENT_SIZE))
        except BrokenPipeError:
            await run.cancel()
            ignore_stdout()
            return BROKEN_PIPE
        return self._said(await run.wait())

    async def _view(self, bridge: SSEBridge, run: StartedRun, reader: Reader) -> None:
        """Asks the bridge for the run's stream, as a server would. It waits where the output is held up."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": f"/{run.token}",
            "raw_path": f"/{run.token}".encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"accept", b"text/event-stream")],
        }
        requests = [{"type": "http.request", "body": b"", "more_body": False}]
        broken: list[BrokenPipeError] = []

        async def receive() -> Any:
            if requests:
                return requests.pop()
            await self._has_left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if broken or message["type"] != "http.response.body":
                return
            try:
                await self._printer.show(reader.feed(message.get("body", b"")))
            except BrokenPipeError as error:
                broken.append(error)
                self._has_left.set()

        await bridge(scope, receive, send)
        if broken:
            raise broken[0]

    async def _heed_signals(self, run: StartedRun) -> None:
        """The first signal ends the command; the second one leaves at once."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with anyio.create_task_group() as tasks:
                async for number in signals:
                    if self._signal is not None:
                        say("left; the command may still be running")
                        os._exit(128 + number)
                    self._signal = number
                    say("ending the command; once more leaves at once")
                    tasks.start_soon(run.cancel)

    def _said(self, outcome: Outcome) -> int:
        """Says how it ended, unless by itself; returns the exit code."""
        if self._signal is not None and outcome.exit_code is None:
            said = "its end is unknown" if outcome.cancelled is None else _HOW_FAR[outcome.cancelled.value]
            say(said)
            return 128 + self._signal
        if outcome.exit_code is not None:
            return exit_status(outcome.exit_code)
        if outcome.error is None:
            return fail("the platform did not say with which exit code the command ended", FAILED)
        return fail(f"{outcome.message} ({outcome.error})", FAILED)


_HOW_FAR: Final = {
    "confirmed": "the command is gone (confirmed)",
    "acknowledged": "the platform took the request, but the command was not seen to end (acknowledged)",
    "requested": "the platform did not answer; the command may still be running (requested)",
}


def ignore_stdout() -> None:
    """Python flushes stdout when it ends, and would complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
