"""A script that prints faster than anybody reads: 200,000 numbered lines, as fast as it can.

It needs nothing but the standard library. The numbers are made up, but the same in every run.
"""

from __future__ import annotations

import sys

LINES = 200_000


def main() -> None:
    sys.stdout.writelines(map(line, range(1, LINES + 1)))


def line(number: int) -> str:
    """Some eighty characters, as a log has them."""
    request = f"station {number % 48 + 1:02}  GET /measurements/{number * 31 % 100_000:05}"
    return f"{number:>7,}  {request}  200  {3 + number * 7919 % 240:>3} ms  ok, 500 rows, cached\n"


if __name__ == "__main__":
    main()
