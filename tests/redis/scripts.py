"""Commands for the sandbox, which is this machine: they print the numbers from 1 on."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.sandboxes import new_mark, running
from tests.support.waiting import eventually

__all__ = ["Flood", "Ticker", "counting"]

#: Seconds between two lines of a ticker.
PACE: Final = 0.02

_TICKER: Final = """
import itertools, os, sys, time
for number in itertools.count(1):
    print(number, flush=True)
    if os.path.exists(sys.argv[1]): break
    time.sleep(float(sys.argv[2]))
"""
_FLOOD: Final = """
import os, sys
for number in range(1, int(sys.argv[2]) + 1):
    print("%09d" % number + " " * 1000)
    if number % 100 == 0:
        sys.stdout.flush()
        with open(sys.argv[1] + ".new", "w") as file: print(number, file=file)
        os.replace(sys.argv[1] + ".new", sys.argv[1])
"""


@dataclass(frozen=True)
class Ticker:
    """A command that prints a line now and then, until the test ends it."""

    folder: Path
    mark: str

    @classmethod
    def new(cls, folder: Path) -> Ticker:
        mark = new_mark()
        return cls(folder, mark)

    @property
    def command(self) -> str:
        """For the sandbox's shell."""
        return _python(_TICKER, str(self._stop), str(PACE), self.mark)

    @property
    def _stop(self) -> Path:
        return self.folder / f"stop-{self.mark}"

    def stop(self) -> None:
        """It prints no more than a line, and exits."""
        self._stop.touch()

    def is_running(self) -> bool:
        return bool(running(self.mark))

    def until_gone(self, timeout: float = 10.0) -> None:
        """Waits until none of its processes is left."""
        eventually(lambda: not self.is_running(), timeout)


@dataclass(frozen=True)
class Flood:
    """A command that prints kilobytes as fast as they are taken, and notes in a file how far it is."""

    place: Path
    lines: int

    @property
    def command(self) -> str:
        """For the sandbox's shell."""
        return _python(_FLOOD, str(self.place), str(self.lines))

    def printed(self) -> int:
        """The last number that it has noted."""
        return int(self.place.read_text()) if self.place.exists() else 0


def counting(lines: int) -> str:
    """A command that prints so many lines at once."""
    return f"seq {lines}"


def _python(program: str, *arguments: str) -> str:
    return "exec " + shlex.join([sys.executable, "-c", program, *arguments])
