"""A script that prints faster than a browser reads: 200,000 numbered lines, as fast as it can.

It uses only the standard library. The figures are made up, and the same in every run.
"""

from __future__ import annotations

import sys

LINES = 200_000


def main() -> None:
    sys.stdout.writelines(map(line, range(1, LINES + 1)))


def line(number: int) -> str:
    """Some eighty characters, as in a log."""
    request = f"station {number % 48 + 1:02}  GET /measurements/{number * 31 % 100_000:05}"
    return f"{number:>7,}  {request}  200  {3 + number * 7919 % 240:>3} ms  ok, 500 rows, cached\n"


if __name__ == "__main__":
    main()
