"""Numbered frames of a given size."""

from __future__ import annotations


def frame(number: int, size: int) -> bytes:
    return b"%d:%b\n\n" % (number, b"x" * size)


def equal(number: int) -> bytes:
    """A frame of the same size for every number, large enough to be a batch of its own."""
    return frame(number, 5000 - len(str(number)))
