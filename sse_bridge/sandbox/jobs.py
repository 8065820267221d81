"""Commands that no request waits for: what a sandbox knows of them while they run, and after their end.

Independent of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import anyio

from .errors import not_found
from .kept import KeptOutput
from .lines import WholeLines
from .processes import KILLED, Command, Outcome
from .times import iso

__all__ = ["GRACE", "Job", "Jobs"]

#: Seconds between the SIGTERM and the SIGKILL of a stop: what MIOSA's Go and Elixir SDKs document.
GRACE: Final = 5.0
#: Jobs that are still known after their end, in each sandbox. MIOSA documents no limit.
_MAX_ENDED: Final = 100


class Job:
    """A command that runs on by itself, and its last output.

    Args:
        id: what clients call it.
        command: just started.
        text: its command line, as the client wrote it.
        name: the client's name for it, or `None`.
        log: takes its lines, beside those of other jobs.
    """

    def __init__(self, id: str, command: Command, *, text: str, name: str | None, log: KeptOutput) -> None:
        self.id = id
        self.output = KeptOutput()
        self._keepers = [_Keeper(stream, self.output, log) for stream in ("stdout", "stderr")]
        self._command = command
        self._text = text
        self._name = name
        self._started = datetime.now(UTC)
        self._outcome: Outcome | None = None
        self._ended = anyio.Event()

    @property
    def pid(self) -> int:
        """The number of its process, which is also that of the process group."""
        return self._command.process.pid

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or `None` while it runs."""
        return self._outcome

    async def run(self) -> None:
        """Reads its output until it ends. Has to be called once, and to run as long as the job does.

        It returns when the last process has ended that holds the pipes. That may be a child in the background.
        """
        try:
            async with anyio.create_task_group() as pumps:
                for pipe, keeper in zip((self._command.stdout, self._command.stderr), self._keepers, strict=True):
                    pumps.start_soon(pipe.pump, keeper)
                self._end(await self._command.ended())
        except BaseException:  # the server gives up on the task, and kills the process
            self._end(self._outcome or Outcome(KILLED, False, 0))
            raise

    async def stop(self, grace: float = GRACE) -> None:
        """Ends it with its process group: SIGTERM, and SIGKILL after `grace` seconds. Returns when it has ended.

        One that has ended is left as it is, with its children in the background.
        """
        if self._outcome is None:
            await self._command.terminate(grace)
            await self._ended.wait()

    def view(self) -> dict[str, object]:
        """What all clients see. MIOSA's Go SDK reads `status`; the Python SDK's documentation says `state`."""
        status = "running" if self._outcome is None else "exited"
        return {
            "name": self._name,
            "command": self._text,
            "status": status,
            "state": status,
            "started_at": iso(self._started),
            "exit_code": self._outcome and self._outcome.exit_code,
            "timed_out": self._outcome is not None and self._outcome.timed_out,
        }

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        for keeper in self._keepers:
            keeper.finish()
        self.output.close()
        self._ended.set()


class _Keeper:
    """Takes one stream's output, as a pipe delivers it. The log gets whole lines: two jobs may print at once."""

    def __init__(self, stream: str, output: KeptOutput, log: KeptOutput) -> None:
        self._stream = stream
        self._output = output
        self._log = log
        self._lines = WholeLines()

    async def __call__(self, data: bytes) -> None:
        self._output.add(self._stream, data)
        if lines := self._lines.feed(data):
            self._log.add(self._stream, lines)

    def finish(self) -> None:
        """Ends an unfinished line in the log."""
        if rest := self._lines.finish():
            self._log.add(self._stream, rest + b"\n")


class Jobs:
    """The jobs of one kind in a sandbox: all that run, and the last ones that ended.

    Args:
        kind: what a job is called in the refusal of an unknown one.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._jobs: dict[str, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        """Oldest first."""
        return iter(tuple(self._jobs.values()))

    def add(self, job: Job) -> None:
        """Makes a new job known, and forgets the oldest of those that ended if there are too many."""
        self._jobs.pop(job.id, None)  # the system may reuse the number of a process that has ended
        self._jobs[job.id] = job
        ended = [each.id for each in self if each.outcome is not None]
        for id in ended[: max(0, len(ended) - _MAX_ENDED)]:
            del self._jobs[id]

    def get(self, id: str) -> Job:
        """The job with that id.

        Raises:
            ApiError: 404, it is unknown, or forgotten.
        """
        job = self._jobs.get(id)
        if job is None:
            raise not_found(self._kind)
        return job
