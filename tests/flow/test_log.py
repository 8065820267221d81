"""`RunLog` and `Cursor`: in order, once, without holes, and forgotten when nobody needs it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from sse_bridge.flow.log import Cursor, RunLog


class LogAgainstModel(RuleBasedStateMachine):
    """Whatever is appended, taken, attached and closed in any order, the log says what a plain list would say."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RunLog()
        self.batches: list[bytes] = []  # every batch ever appended
        self.places: dict[Cursor, int] = {}  # the next batch for each cursor
        self.forgotten = 0

    cursors = Bundle("cursors")

    @precondition(lambda self: not self.log.closed)
    @rule(count=st.integers(1, 5), size=st.integers(1, 40))
    def append(self, count: int, size: int) -> None:
        first = self.log.next
        frames = b"".join(b"%d:%b\n\n" % (first + index, b"x" * size) for index in range(count))
        self.log.append(frames, first + count)
        self.batches.append(frames)

    @rule(target=cursors)
    def attach(self) -> Cursor:
        cursor = self.log.attach()
        self.places[cursor] = self.forgotten
        return cursor

    @rule(cursor=cursors, limit=st.integers(0, 200))
    def take(self, cursor: Cursor, limit: int) -> None:
        place = self.places[cursor]
        expected = b"".join(self.batches[place : place + 1])
        stop = place + bool(expected)
        while stop < len(self.batches) and len(expected) + len(self.batches[stop]) <= limit:
            expected += self.batches[stop]
            stop += 1

        assert cursor.take(limit) == expected
        self.places[cursor] = stop
        self._forget()

    @rule(cursor=consumes(cursors), again=st.booleans())
    def leave(self, cursor: Cursor, again: bool) -> None:
        del self.places[cursor]
        cursor.close()
        if again:
            cursor.close()
        self._forget()

    @rule()
    def close(self) -> None:
        self.log.close()

    def _forget(self) -> None:
        self.forgotten = max(self.forgotten, min(self.places.values(), default=self.forgotten))

    @invariant()
    def nothing_is_missing_and_nothing_is_kept_for_nobody(self) -> None:
        assert self.log.kept == sum(map(len, self.batches[self.forgotten :]))
        assert self.log.size == sum(map(len, self.batches))
        for cursor, place in self.places.items():
            pending = sum(map(len, self.batches[place:]))
            assert cursor.pending == pending
            assert cursor.finished == (self.log.closed and not pending)


TestLogAgainstModel = LogAgainstModel.TestCase


def test_nothing_follows_the_end() -> None:
    """A closed log takes no frame: the terminal frame is the last."""
    log = RunLog()
    log.close()

    with pytest.raises(ValueError, match="closed"):
        log.append(b"data: x\n\n", 2)


@pytest.mark.parametrize("number", [0, 1])
def test_numbers_only_go_up(number: int) -> None:
    """A batch without a new number would make the next id a lie."""
    log = RunLog()

    with pytest.raises(ValueError, match="there already"):
        log.append(b"data: x\n\n", number)


def test_a_batch_larger_than_the_limit_is_taken_whole() -> None:
    """A limit never cuts a frame; a cursor always gets on."""
    log = RunLog()
    cursor = log.attach()
    log.append(b"data: xxxxxxxx\n\n", 2)

    assert cursor.take(3) == b"data: xxxxxxxx\n\n"


def test_a_single_batch_is_handed_on_without_a_copy() -> None:
    """What was appended is what is sent: the very object."""
    log = RunLog()
    cursor = log.attach()
    frames = b"data: 1\n\ndata: 2\n\n"
    log.append(frames, 3)

    assert cursor.take(1000) is frames
