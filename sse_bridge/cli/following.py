"""What `sse-bridge follow` does, once its arguments are known."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Final

import anyio
import httpx

from ..client import FollowedRun, FollowError
from ..client.course import Course
from ..client.lines import Items
from ..client.options import Settings
from ..client.reading import Item
from .heeding import heed
from .printing import Printer, unwritable
from .saying import FAILED, HOW_FAR, End, error_of, exit_of, say, words_of

__all__ = ["Following"]

#: Seconds after which a bridge is named that has sent nothing yet. A wrong port is refused at once, and tried again.
_SILENT: Final = 3.0
#: Seconds for ending the command on the way out. The bridge answers a `DELETE` after three at the latest.
_CANCEL_TIMEOUT: Final = 10.0


class _TellingCourse(Course[Item]):
    """Says on stderr, once, with which answer the server keeps the user waiting."""

    _has_told = False

    def pause(self, now: float) -> float:
        """See `Course.pause`."""
        seconds = super().pause(now)
        if self.refusal is not None and not self._has_told:
            self._has_told = True
            say(f"{self.refusal.message} Trying again.")
        return seconds


class Following:
    """One run, shown until it ends or a signal comes.

    Args:
        settings: what to follow, and how.
        printer: shows it.
        cancels: whether leaving the run early ends its command.
    """

    def __init__(self, settings: Settings, printer: Printer, *, cancels: bool) -> None:
        self._settings = settings
        self._course = _TellingCourse(settings, Items())
        self._printer = printer
        self._cancels = cancels
        self._has_news = False
        self._signal: signal.Signals | None = None
        self._showing = anyio.CancelScope()

    async def run(self) -> int:
        """Follows it; returns this process's exit code."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(heed, self._stop, self._leave)
            tasks.start_soon(self._say_if_silent)
            async with FollowedRun(self._settings, self._course, None) as run:
                end = await self._show(run)
                self._has_news = True
                how_far = await _cancel(run) if self._cancels and not run.is_over else None
            if end is None:
                end = self._left(run, how_far)
            elif how_far is not None and end.body is not None:
                end = end._replace(body={**end.body, "cancelled": how_far}, words=f"{end.words}; {HOW_FAR[how_far]}")
            status = await self._printer.end(end)
            tasks.cancel_scope.cancel()
        return status

    async def _show(self, run: FollowedRun[Item]) -> End | None:
        """Shows the run; says how it ended, or `None` if a signal came first."""
        with self._showing:
            try:
                async for item in run:
                    self._has_news = True
                    await self._printer.show([item, *self._course.rest()])
            except OSError as error:
                return unwritable(error)
            except FollowError as error:
                dropped = getattr(error, "dropped", None)
                return End(FAILED, error_of(error.code, error.message, dropped=dropped), words_of(error))
            code = run.exit_code
            return End(0, {"type": "end"}) if code is None else exit_of(code, timed_out=run.timed_out)
        return None

    async def _say_if_silent(self) -> None:
        await anyio.sleep(_SILENT)
        if not self._has_news:
            say(f"nothing has come from {self._settings.url.netloc.decode()} yet; still trying")

    async def _stop(self, number: signal.Signals) -> None:
        """The first signal leaves the run, or ends its command."""
        self._signal = number
        if self._cancels:
            say("ending the command; a second signal leaves at once")
        self._showing.cancel()

    async def _leave(self, number: signal.Signals) -> None:
        """The second one leaves at once."""
        words = "left; the command may still be running"
        await self._printer.leave(End(128 + number, error_of("left", words), words))

    def _left(self, run: FollowedRun[Item], how_far: str | None) -> End:
        """How it ended if a signal came first."""
        assert self._signal is not None
        code = "left"
        if run.token is None:
            words = "left before the bridge answered; a command may be running"
        elif how_far is not None:
            code, words = "cancelled", HOW_FAR[how_far]
        else:
            words = "left the run; " + ("the command may still be running" if self._cancels else _GOES_ON)
        return End(128 + self._signal, error_of(code, words, cancelled=how_far), words)


_GOES_ON: Final = "it goes on while it has viewers, and for its grace"


async def _cancel(run: FollowedRun[Item]) -> str | None:
    """Ends the command; says how far that got, if the bridge told."""
    with anyio.move_on_after(_CANCEL_TIMEOUT), suppress(FollowError, httpx.HTTPError):
        how_far = await run.cancel()
        return None if how_far is None else how_far.value
    return None
