"""What `sse-bridge run` does, once its arguments are known."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any, Final

import anyio

from ..asgi.app import SSEBridge
from ..asgi.handle import StartedRun
from ..client.reading import Reader
from ..errors import BridgeError, BridgeUnavailable
from ..flow.policy import Block
from ..relay.ending import Cause
from ..relay.info import Outcome, RunInfo
from ..relay.watching import Watcher
from ..upstream.base import Source
from ..upstream.miosa.client import Miosa
from .asking import Wanted, platform
from .heeding import heed
from .printing import Printer, unwritable
from .saying import FAILED, HOW_FAR, End, error_of, exit_of, message_of, say, words_of

__all__ = ["run_here"]

#: Bytes of one event. A line has 1 MiB at most.
_MAX_EVENT_SIZE: Final = 16 * 1024 * 1024
#: Seconds for ending a command that the platform has not answered for. A platform that hangs would take all of
#: `cancel_timeout`. One that is slow has the request by then, and may go on looking for the command.
_UNANSWERED: Final = 1.0


async def run_here(wanted: Wanted, as_json: bool) -> int:
    """Runs a command; returns this process's exit code."""
    printer = Printer(as_json=as_json)
    try:
        running = _Running(platform(), wanted.source(), printer)
    except BridgeError as error:
        return await printer.end(_failed(error))
    return await running.run()


class _Running(Watcher):
    """One command, in a bridge of its own that lives in this process and has one viewer: the terminal."""

    def __init__(self, miosa: Miosa, source: Source, printer: Printer) -> None:
        self._miosa = miosa
        self._source = source
        self._printer = printer
        self._run: StartedRun | None = None  # once the platform has answered
        self._outcome: Outcome | None = None  # once it is over
        self._signal: signal.Signals | None = None
        self._signalled = anyio.Event()
        self._has_left = anyio.Event()

    async def run(self) -> int:
        """Runs it; returns this process's exit code."""
        bridge = SSEBridge(
            self._miosa,
            lambda request: self._source,
            policy=Block(stall_timeout=None),
            heartbeat=None,
            grace=0,
            send_timeout=None,
            retry_ms=None,
            dialect="typed",
        )
        bridge.watch(self)
        async with anyio.create_task_group() as tasks:
            await tasks.start(heed, partial(self._stop, bridge), self._leave)
            try:
                end = await self._watch(bridge)
            except BridgeError as error:
                end = _failed(error)
            finally:
                with anyio.CancelScope(shield=True):
                    await bridge.shutdown()
            status = await self._printer.end(end)
            tasks.cancel_scope.cancel()
        return status

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        """See `Watcher.ended`."""
        self._outcome = outcome

    async def _watch(self, bridge: SSEBridge) -> End:
        try:
            self._run = await bridge.start(self._source)
            await self._view(bridge, self._run, Reader(_MAX_EVENT_SIZE))
        except BridgeUnavailable:  # it has no limits, so it has heard a signal
            await self._signalled.wait()
            await bridge.shutdown()
            return self._unanswered()
        except OSError as error:
            assert self._run is not None
            await self._run.cancel()
            end = unwritable(error)
            how_far = (await self._run.wait()).cancelled
            return end._replace(words=f"{end.words}; {HOW_FAR[how_far.value]}") if end.words and how_far else end
        outcome = await self._run.wait()
        if outcome.error == Cause.SERVER_STOPPED.code:  # the bridge hears signals, too, and may be the first to do so
            await self._signalled.wait()
        return self._ended(outcome)

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
        broken: list[OSError] = []

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
            except OSError as error:
                broken.append(error)
                self._has_left.set()

        await bridge(scope, receive, send)
        if broken:
            raise broken[0]

    async def _stop(self, bridge: SSEBridge, number: signal.Signals) -> None:
        """The first signal ends the command."""
        self._signal = number
        self._signalled.set()
        if self._run is not None:
            say("ending the command; a second signal leaves at once")
            await self._run.cancel()
            return
        say("the platform has not answered yet; ending the command")
        with anyio.move_on_after(_UNANSWERED) as waiting:
            await bridge.shutdown()
        if waiting.cancelled_caught:
            await self._printer.leave(self._unanswered())

    async def _leave(self, number: signal.Signals) -> None:
        """The second one leaves at once."""
        words = "left; the command may still be running"
        await self._printer.leave(End(128 + number, error_of("left", words), words))

    def _unanswered(self) -> End:
        """How a command ended that the platform had not answered for when the signal came."""
        assert self._signal is not None
        outcome = self._outcome
        if outcome is None:
            words, how_far = "the platform does not answer; the command may be running", "requested"
        elif outcome.cancelled is None:
            words, how_far = "the command was not started", None
        else:
            how_far = outcome.cancelled.value
            words = HOW_FAR[how_far]
        return End(128 + self._signal, error_of("cancelled", words, cancelled=how_far), words)

    def _ended(self, outcome: Outcome) -> End:
        if outcome.exit_code is not None:
            return exit_of(outcome.exit_code, timed_out=outcome.timed_out)
        how_far = None if outcome.cancelled is None else outcome.cancelled.value
        if self._signal is not None:
            words = "the end of the command is unknown" if how_far is None else HOW_FAR[how_far]
            return End(128 + self._signal, error_of("cancelled", words, cancelled=how_far), words)
        if outcome.error is None:
            words = "the platform did not say with which exit code the command ended"
            return End(FAILED, error_of("exit_unknown", words), words)
        message = str(outcome.message)
        words = f"{message} ({outcome.error})" + ("" if how_far is None else f"; {HOW_FAR[how_far]}")
        return End(FAILED, error_of(outcome.error, message, cancelled=how_far), words)


def _failed(error: BridgeError) -> End:
    """The command was not started, or it is unknown whether it was."""
    code = str(getattr(error, "code", "configuration"))
    remedy = _REMEDIES.get(code, "")
    return End(FAILED, error_of(code, message_of(error)), f"{words_of(error)} {remedy}".rstrip())


_REMEDIES: Final = {
    "not_found": "Is that the id of a sandbox of yours?",
    "upstream_unauthorized": "Check MIOSA_API_KEY.",
    "upstream_unreachable": "Is MIOSA_BASE_URL set, and right?",
}
