"""Inputs by the hundred thousand: seeds of what is sent, changed at random."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

__all__ = ["Mutator", "cut", "inputs"]

#: Chooses the inputs. A failure names its seed and its number, which make the same input again.
SEED: Final = os.environ.get("SSE_BRIDGE_FUZZ_SEED", "1")
#: Changes of one input, at most.
_MOST_CHANGES: Final = 4


def inputs(count: int, *, seconds: float) -> Iterator[random.Random]:
    """One source of randomness for each input.

    Args:
        count: how many there are.
        seconds: after which the rest is left out, on a slow machine. At least a tenth is always made.
    """
    until = time.monotonic() + seconds
    for number in range(count):
        if number > count / 10 and time.monotonic() > until:
            sys.stdout.write(f"{number} of {count} inputs in {seconds} seconds\n")
            return
        try:
            yield random.Random(f"{SEED}-{number}")
        except GeneratorExit:  # the test failed in this round
            sys.stdout.write(f"SSE_BRIDGE_FUZZ_SEED={SEED}, input {number}\n")
            raise


class Mutator:
    """Changes seeds.

    Args:
        seeds: well-formed inputs.
        tokens: pieces that mean something where they are put.
    """

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> None:
        self._seeds = seeds
        self._tokens = tokens
        self._ways: tuple[Callable[[random.Random, bytes], bytes], ...] = (
            self._insert,
            self._insert,
            self._replace,
            self._delete,
            self._repeat,
            self._flip,
            self._splice,
        )

    def make(self, rng: random.Random) -> bytes:
        """A seed with up to four changes; now and then one without any."""
        made = rng.choice(self._seeds)
        for _ in range(rng.randrange(_MOST_CHANGES + 1)):
            made = rng.choice(self._ways)(rng, made)
        return made

    def _insert(self, rng: random.Random, text: bytes) -> bytes:
        at = rng.randrange(len(text) + 1)
        return text[:at] + rng.choice(self._tokens) + text[at:]

    def _replace(self, rng: random.Random, text: bytes) -> bytes:
        start, stop = _span(rng, text)
        return text[:start] + rng.choice(self._tokens) + text[stop:]

    def _delete(self, rng: random.Random, text: bytes) -> bytes:
        start, stop = _span(rng, text)
        return text[:start] + text[stop:]

    def _repeat(self, rng: random.Random, text: bytes) -> bytes:
        start, stop = _span(rng, text)
        return text[:stop] + text[start:stop] * rng.choice([1, 2, 30]) + text[stop:]

    def _flip(self, rng: random.Random, text: bytes) -> bytes:
        if not text:
            return text
        at = rng.randrange(len(text))
        return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]

    def _splice(self, rng: random.Random, text: bytes) -> bytes:
        other = rng.choice(self._seeds)
        return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """The data in pieces that hold at least a byte: one, a few, or single bytes."""
    count = rng.choice([0, 1, 2, 5, len(data) if len(data) < 200 else 9])
    at = sorted(rng.randrange(len(data) + 1) for _ in range(count))
    return [data[start:stop] for start, stop in zip([0, *at], [*at, len(data)], strict=True) if start < stop]


def _span(rng: random.Random, text: bytes) -> tuple[int, int]:
    start = rng.randrange(len(text) + 1)
    return start, min(len(text), start + rng.choice([1, 1, 2, 8, 40]))
