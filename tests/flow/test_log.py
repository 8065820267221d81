"""`RunLog` and `Cursor`: in order, once, without holes, and forgotten when nobody needs it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from sse_bridge.flow import log as log_module
from sse_bridge.flow.log import Cursor, Gap, RunLog


def frame(number: int, size: int) -> bytes:
    return b"%d:%b\n\n" % (number, b"x" * size)


def equal(number: int) -> bytes:
    """A frame as large as any other, and too large to be kept together with one."""
    return frame(number, 5000 - len(str(number)))


class LogAgainstModel(RuleBasedStateMachine):
    """Whatever is appended, taken, attached and closed in any order, the log says what a plain list would say."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RunLog()
        self.frames: list[bytes] = []  # every frame ever appended; number 1 is at index 0
        self.places: dict[Cursor, int] = {}  # the index of each cursor's next frame

    cursors = Bundle("cursors")

    @initialize(replay=st.sampled_from([0, 50, 5000]))
    def begin(self, replay: int) -> None:
        self.log = RunLog(replay)

    @precondition(lambda self: not self.log.closed)
    @rule(count=st.integers(1, 5), size=st.sampled_from([1, 10, 30, 900, 5000]))
    def append(self, count: int, size: int) -> None:
        added = [frame(len(self.frames) + index + 1, size) for index in range(count)]
        self.frames += added
        self.log.append(b"".join(added), len(self.frames) + 1)

    @rule(target=cursors, back=st.integers(0, 30))
    def attach(self, back: int) -> Cursor:
        number = max(1, self.log.next - back)
        cursor = self.log.attach(number)
        assert cursor.dropped == max(0, self.log.first - number)
        assert cursor.next == number + cursor.dropped
        assert cursor.gap() == (Gap(cursor.dropped, None, cursor.next - 1) if cursor.dropped else None)
        self.places[cursor] = cursor.next - 1
        return cursor

    @rule(cursor=cursors, limit=st.sampled_from([0, 1, 100, 5000, 10**6]))
    def take(self, cursor: Cursor, limit: int) -> None:
        place = self.places[cursor]
        taken = cursor.take(limit)
        count = cursor.next - 1 - place

        assert taken == b"".join(self.frames[place : place + count])
        assert (count > 0) == (place < len(self.frames))
        assert limit < 10**6 or cursor.pending == 0
        self.places[cursor] += count

    @rule(cursor=consumes(cursors), again=st.booleans())
    def leave(self, cursor: Cursor, again: bool) -> None:
        del self.places[cursor]
        cursor.close()
        if again:
            cursor.close()

    @rule()
    def close(self) -> None:
        self.log.close()

    @invariant()
    def what_is_said_is_true(self) -> None:
        assert self.log.next == len(self.frames) + 1
        assert self.log.size == sum(map(len, self.frames))
        assert self.log.kept == sum(map(len, self.frames[self.log.first - 1 :]))
        for cursor, place in self.places.items():
            pending = sum(map(len, self.frames[place:]))
            assert cursor.next == place + 1
            assert cursor.pending == pending
            assert cursor.finished == (self.log.closed and not pending)

    @invariant()
    def what_is_needed_is_kept_and_little_else(self) -> None:
        slowest = min(self.places.values(), default=len(self.frames))
        assert self.log.first <= slowest + 1
        self.log._forget()
        passed = sum(map(len, self.frames[self.log.first - 1 : slowest]))
        largest_batch = 5 * (5000 + 10)
        assert passed <= self.log.replay + largest_batch


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_long_run_with_one_live_reader_stays_small() -> None:
    """Forgetting is cheap and complete: neither the bytes nor what stands beside them grows."""
    log = RunLog(replay=10_000)
    cursor = log.attach()
    for number in range(1, 100_000):
        log.append(frame(number, 100), number + 1)
        assert cursor.take(10**6).startswith(b"%d:" % number)

    assert 10_000 <= log.kept < 20_000
    assert len(log._frames) == len(log._ends) == len(log._nexts) < 3 * log_module._SLACK
    assert log.attach(log.first).gap() is None
    assert log.attach(1).gap() == Gap(log.first - 1, None, log.first - 1)


def test_small_batches_are_kept_together() -> None:
    """One frame a chunk costs no more to keep than many."""
    log = RunLog()
    cursor = log.attach()
    for number in range(1, 1001):
        log.append(frame(number, 70), number + 1)

    assert len(log._frames) < 1000 / 15
    assert cursor.take(0).count(b"\n\n") > 15


def test_a_reader_that_comes_in_the_middle_gets_whole_frames() -> None:
    """Every number is a place to begin, whatever batch it came in."""
    log = RunLog()
    log.attach()
    log.append(b"".join(frame(number, 10) for number in range(1, 200)), 200)
    log.append(frame(200, 5000), 201)

    for number in range(1, 201):
        assert log.attach(number).take(10**6).startswith(b"%d:" % number)
    assert log.attach(201).take(10**6) == b""


def test_several_batches_are_taken_up_to_the_limit_and_forgotten_when_nobody_needs_them() -> None:
    """Closing a cursor frees what only it needed, and may be done twice."""
    log = RunLog()
    first, second = log.attach(), log.attach()
    for number in range(1, 4):
        log.append(frame(number, 5000), number + 1)

    assert first.take(10_500).count(b"\n\n") == 2
    assert first.take(10_500).count(b"\n\n") == 1
    assert not first.finished
    log.close()
    assert first.finished
    assert log.kept > 15_000
    second.close()
    second.close()
    assert log.kept == 0


@pytest.mark.parametrize("number", [-1, 0, 3, 10**30])
def test_there_is_no_place_for_numbers_that_were_never_given(number: int) -> None:
    """A reader cannot have seen what does not exist."""
    log = RunLog()
    log.append(frame(1, 10), 2)

    with pytest.raises(ValueError, match="numbers 1 to 1"):
        log.attach(number)


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


def test_replay_is_a_number_of_bytes() -> None:
    """Negative would mean to forget what is needed."""
    with pytest.raises(ValueError, match="replay"):
        RunLog(-1)


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


@pytest.mark.parametrize("mark", [-1, 0])
def test_a_mark_is_a_number_of_bytes(mark: int) -> None:
    """At zero every frame would be given up before it could be taken."""
    with pytest.raises(ValueError, match="mark"):
        RunLog().attach(1, mark)


def test_beyond_its_mark_a_cursor_gives_up_its_oldest_frames_and_the_log_forgets_them() -> None:
    """The count is exact, the newest frames stay, and memory is bounded without anybody asking for them."""
    log = RunLog()
    cursor = log.attach(1, mark=20_000)
    sizes = [0]
    for number in range(1, 101):
        sizes.append(len(frame(number, 5000)))
        log.append(frame(number, 5000), number + 1)

    assert log.kept <= 25_100
    gap = cursor.gap()
    assert gap == Gap(cursor.next - 1, sum(sizes[: cursor.next]), cursor.next - 1)
    assert 15_000 < cursor.pending <= 20_000
    assert cursor.take(10**6).startswith(b"%d:" % cursor.next) or cursor.next == 101
    assert cursor.gap() is None


def test_the_last_batch_is_never_given_up() -> None:
    """The terminal frame stands in it, however small the mark."""
    log = RunLog()
    cursor = log.attach(1, mark=1)
    log.append(frame(1, 5000) + frame(2, 5000), 3)
    assert cursor.gap() is None
    log.append(frame(3, 5000), 4)
    log.append(frame(4, 10), 5)
    log.close()

    assert cursor.gap() == Gap(3, len(frame(1, 5000) * 3), 3)
    assert cursor.take(10) == frame(4, 10)
    assert cursor.finished


def test_who_comes_late_may_have_what_is_kept_for_replay() -> None:
    """A backlog that is there anyway is not thrown away, nor does it grow; the mark holds once it is taken."""
    log = RunLog(replay=110_000)
    for number in range(1, 21):
        log.append(equal(number), number + 1)
    cursor = log.attach(1, mark=6000)

    assert cursor.gap() is None
    assert cursor.take(1).startswith(b"1:")
    log.append(equal(21), 22)
    assert cursor.gap() is None
    log.append(equal(22), 23)
    assert cursor.gap() == Gap(1, len(equal(2)), 2)
    cursor.take(10**6)
    for number in range(23, 26):
        log.append(equal(number), number + 1)
    assert cursor.gap() == Gap(2, 2 * len(equal(23)), 24)


def test_what_is_looked_at_is_taken_as_far_as_is_said() -> None:
    """A place between two frames of a batch is as good as any."""
    log = RunLog()
    cursor = log.attach()
    assert cursor.peek(100) == b""
    log.append(frame(1, 10) + frame(2, 10), 3)
    log.append(frame(3, 5000), 4)

    assert cursor.peek(10**6) == frame(1, 10) + frame(2, 10) + frame(3, 5000)
    cursor.advance(1, len(frame(1, 10)))
    assert cursor.peek(1) == frame(2, 10)
    assert (cursor.next, cursor.take(10**6)) == (2, frame(2, 10) + frame(3, 5000))
