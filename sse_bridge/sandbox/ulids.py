"""Ids that sort by time: ULIDs (https://github.com/ulid/spec), as the numbers they are, and as text.

A ULID is 48 bits of milliseconds since 1970 and 80 random ones, as 26 digits of Crockford's base 32.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

__all__ = ["Ulids", "from_text", "to_text"]

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TEXT: Final = re.compile(f"[0-7][{_DIGITS}]{{25}}")


class Ulids:
    """Hands out ids, each greater than all before: also within a millisecond, and when the clock goes back."""

    def __init__(self) -> None:
        #: The greatest id that was handed out, or 0.
        self.last = 0

    def take(self, count: int = 1) -> int:
        """The first of `count` ids in a row."""
        # One random bit is left out, so that counting up stays in the millisecond.
        first = max(time.time_ns() // 1_000_000 << 80 | secrets.randbits(79), self.last + 1)
        self.last = first + count - 1
        return first


def to_text(number: int) -> str:
    """An id as clients see it."""
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def from_text(text: str) -> int | None:
    """The id that a client sends back, or `None` if it is none."""
    if not _TEXT.fullmatch(text.upper()):
        return None
    number = 0
    for digit in text.upper():
        number = number << 5 | _DIGITS.index(digit)
    return number
