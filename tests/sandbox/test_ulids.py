"""Ids that sort by time: `sse_bridge.sandbox.ulids`."""

from __future__ import annotations

import time

import pytest

from sse_bridge.sandbox.ulids import Ulids, from_text, to_text


def test_an_id_is_a_time_and_chance() -> None:
    """26 digits of Crockford's base 32; the first ten are the milliseconds."""
    before = time.time_ns() // 1_000_000
    one, other = Ulids().take(), Ulids().take()

    assert before <= one >> 80 <= time.time_ns() // 1_000_000
    assert one != other
    assert len(to_text(one)) == 26


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0" * 26),
        ((1 << 128) - 1, "7" + "Z" * 25),
        (1_469_918_176_385 << 80, "01ARYZ6S41" + "0" * 16),  # the specification's example of a time
    ],
)
def test_an_id_has_one_text(number: int, text: str) -> None:
    """Clients may send it back in small letters."""
    assert to_text(number) == text
    assert from_text(text) == from_text(text.lower()) == number


@pytest.mark.parametrize("text", ["", "8" + "0" * 25, "0" * 25, "0" * 27, "I" * 26, "run.1", "0" * 26 + "\n"])
def test_other_texts_are_no_ids(text: str) -> None:
    """Above 128 bits, of another length, or with letters that the alphabet leaves out."""
    assert from_text(text) is None


def test_ids_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a millisecond, and when the clock goes back; as texts, too."""
    ulids = Ulids()
    ids = [ulids.take() for _ in range(1000)]
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    first = ulids.take(5)
    ids += [first, ulids.last, ulids.take()]

    assert ulids.last == first + 5
    assert ids == sorted(set(ids))
    assert [to_text(each) for each in ids] == sorted(map(to_text, ids))
