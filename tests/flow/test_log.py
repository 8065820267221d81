"""`RunLog`: each frame in order and once, and forgotten when the last reader is done with it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from sse_bridge.flow.log import Cursor, Gap, RunLog
from tests.support.numbered import equal, frame


class LogAgainstModel(RuleBasedStateMachine):
    """In any order of appending, taking, attaching and closing, the log says what a plain list would say."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RunLog()
        self.frames: list[bytes] = []  # every frame so far; number 1 is at index 0
        self.places: dict[Cursor, int] = {}  # the index of each cursor's next frame
        self.small = 0  # bytes of appends since the last large one: they may form a batch together with the next
        self.largest_batch = 0

    cursors = Bundle("cursors")

    @initialize(replay=st.sampled_from([0, 50, 5000, 10**6]))
    def begin(self, replay: int) -> None:
        self.log = RunLog(replay)

    @precondition(lambda self: not self.log.closed)
    @rule(count=st.integers(1, 5), size=st.sampled_from([1, 10, 30, 900, 5000]))
    def append(self, count: int, size: int) -> None:
        added = [frame(len(self.frames) + index + 1, size) for index in range(count)]
        batch = b"".join(added)
        self.largest_batch = max(self.largest_batch, self.small + len(batch))
        self.small = 0 if len(batch) > 4096 else self.small + len(batch)
        self.frames += added
        self.log.append(batch, len(self.frames) + 1)
        self.check_that_passed_frames_are_forgotten()

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
        self.check_that_passed_frames_are_forgotten()

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

    @property
    def slowest(self) -> int:
        """The index of the oldest frame that a cursor needs."""
        return min(self.places.values(), default=len(self.frames))

    @invariant()
    def what_a_cursor_needs_is_kept(self) -> None:
        assert self.log.first <= self.slowest + 1

    def check_that_passed_frames_are_forgotten(self) -> None:
        """The log forgets when it grows and when a cursor leaves, in whole batches."""
        passed = sum(map(len, self.frames[self.log.first - 1 : self.slowest]))
        assert passed <= self.log.replay + self.largest_batch


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=150, stateful_step_count=40)


@pytest.fixture
def traced() -> Iterator[None]:
    """Memory that the test allocates is counted by `tracemalloc.get_traced_memory`."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_a_long_run_with_one_live_reader_stays_small() -> None:
    """Forgetting frees the frames and their bookkeeping, and the rest can still be read by number."""
    log = RunLog(replay=10_000)
    cursor = log.attach()
    for number in range(1, 6_001):
        log.append(frame(number, 5000), number + 1)
        assert cursor.take(10**6).startswith(b"%d:" % number)
        late = log.attach(log.first)
        assert late.take(1).startswith(b"%d:" % log.first)
        late.close()

    assert 10_000 <= log.kept < 20_000
    assert tracemalloc.get_traced_memory()[0] < 300_000  # with an entry for each batch: 550 KB
    assert log.attach(1).gap() == Gap(log.first - 1, None, log.first - 1)


@pytest.mark.usefixtures("traced")
def test_small_appends_are_kept_together() -> None:
    """An upstream that sends one frame a chunk costs little more memory than one that sends many."""
    log = RunLog(replay=10**6)
    cursor = log.attach()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1, 10_001):
        log.append(frame(number, 70), number + 1)

    assert tracemalloc.get_traced_memory()[0] - before < 1.2 * log.kept
    assert cursor.take(0).count(b"\n\n") > 15


@pytest.mark.parametrize(
    "read",
    [
        lambda log, cursor: cursor.take(10**6),
        lambda log, cursor: cursor.peek(10**6),
        lambda log, cursor: log.attach(2).take(10**6),
        lambda log, cursor: log.attach(1, mark=1000).take(10**6).partition(b"\n\n")[2],
    ],
)
def test_small_appends_can_be_read_before_they_are_joined(read: Callable[[RunLog, Cursor], bytes]) -> None:
    """By cursors that are behind, and by those that begin among them."""
    log = RunLog(replay=10**6)
    log.append(equal(1), 2)
    cursor = log.attach(2)
    for number in range(2, 5):
        log.append(frame(number, 10), number + 1)

    assert read(log, cursor) == b"".join(frame(number, 10) for number in range(2, 5))


def test_small_appends_are_spared_when_a_cursor_gives_up_what_is_before_them() -> None:
    """They count for the mark before they are joined."""
    log = RunLog(replay=10**6)
    cursor = log.attach(1, mark=1000)
    log.append(equal(1), 2)
    for number in range(2, 5):
        log.append(frame(number, 10), number + 1)

    assert cursor.gap() == Gap(1, len(equal(1)), 1)
    assert cursor.take(10**6) == b"".join(frame(number, 10) for number in range(2, 5))


def test_a_reader_that_comes_in_the_middle_gets_whole_frames() -> None:
    """A reader can begin at every number, wherever in a batch it stands."""
    log = RunLog()
    log.attach()
    log.append(b"".join(frame(number, 10) for number in range(1, 200)), 200)
    log.append(frame(200, 5000), 201)

    for number in range(1, 201):
        assert log.attach(number).take(10**6).startswith(b"%d:" % number)
    assert log.attach(201).take(10**6) == b""


def test_several_batches_are_taken_up_to_the_limit_and_forgotten_with_their_last_reader() -> None:
    """Closing a cursor frees the frames that only it needed, and may be done twice."""
    log = RunLog()
    first, second = log.attach(), log.attach()
    for number in range(1, 4):
        log.append(frame(number, 5000), number + 1)
    log.append(frame(4, 50_000), 5)

    assert first.take(10_500).count(b"\n\n") == 2
    assert first.take(10_500).count(b"\n\n") == 1
    assert first.take(10_500).count(b"\n\n") == 1
    assert not first.finished
    log.close()
    assert first.finished
    assert log.kept > 65_000
    second.close()
    second.close()
    assert log.kept == 0


@pytest.mark.parametrize("number", [-1, 0, 3, 10**30])
def test_a_reader_begins_at_a_frame_that_exists_or_comes_next(number: int) -> None:
    """Any other number is an error of the caller: the reader cannot have seen the frame before it."""
    log = RunLog()
    log.append(frame(1, 10), 2)

    with pytest.raises(ValueError, match=f"numbers 1 to 2, got {number}$"):
        log.attach(number)


def test_a_closed_log_takes_no_frame() -> None:
    """The terminal frame is the last."""
    log = RunLog()
    log.close()

    with pytest.raises(ValueError, match="closed"):
        log.append(b"data: x\n\n", 2)


@pytest.mark.parametrize("number", [0, 1])
def test_numbers_only_go_up(number: int) -> None:
    """Frames appended under a number already given would get ids that a viewer has seen."""
    log = RunLog()

    with pytest.raises(ValueError, match=rf"from number 1 on, got frames up to {number - 1}$"):
        log.append(b"data: x\n\n", number)


def test_replay_is_a_number_of_bytes() -> None:
    """A negative number would forget frames that a cursor still needs."""
    with pytest.raises(ValueError, match="replay"):
        RunLog(-1)


def test_batches_are_taken_while_they_fit_into_the_limit() -> None:
    """To the byte."""
    log = RunLog()
    first, second = log.attach(), log.attach()
    for number in range(1, 4):
        log.append(equal(number), number + 1)

    assert first.take(2 * len(equal(1))) == equal(1) + equal(2)
    assert second.take(2 * len(equal(1)) - 1) == equal(1)


def test_a_batch_larger_than_the_limit_is_taken_whole() -> None:
    """The limit leaves frames whole, and every call to `take` makes progress."""
    log = RunLog()
    cursor = log.attach()
    log.append(b"data: xxxxxxxx\n\n", 2)

    assert cursor.take(3) == b"data: xxxxxxxx\n\n"


def test_a_single_batch_is_handed_on_without_a_copy() -> None:
    """The reader gets the very object that was appended."""
    log = RunLog()
    cursor = log.attach()
    frames = b"data: 1\n\ndata: 2\n\n"
    log.append(frames, 3)

    assert cursor.take(1000) is frames
