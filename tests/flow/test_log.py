"""`RunLog` and `Cursor`: each frame in order and once, and forgotten when the last reader is done with it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from sse_bridge.flow.log import Cursor, Gap, RunLog


def frame(number: int, size: int) -> bytes:
    return b"%d:%b\n\n" % (number, b"x" * size)


def equal(number: int) -> bytes:
    """A frame of the same size for every number, large enough to be a batch of its own."""
    return frame(number, 5000 - len(str(number)))


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
    for number in range(1, 1001):
        log.append(frame(number, 70), number + 1)

    assert tracemalloc.get_traced_memory()[0] < 1.2 * log.kept
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


@pytest.mark.parametrize("mark", [-1, 0])
def test_a_mark_is_a_number_of_bytes(mark: int) -> None:
    """At zero the cursor would give up every frame before its reader could take it."""
    with pytest.raises(ValueError, match="mark"):
        RunLog().attach(1, mark)


def test_beyond_its_mark_a_cursor_gives_up_its_oldest_frames_and_the_log_forgets_them() -> None:
    """The count is exact, the newest frames stay, and memory is bounded even if the reader never asks for a frame."""
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


def test_a_cursor_keeps_all_that_its_mark_allows() -> None:
    """Four frames, if these have as many bytes as the mark."""
    log = RunLog()
    cursor = log.attach(1, mark=4 * len(equal(1)))
    for number in range(1, 11):
        log.append(equal(number), number + 1)

    assert cursor.gap() == Gap(6, 6 * len(equal(1)), 6)
    assert (cursor.dropped, cursor.dropped_bytes) == (6, 6 * len(equal(1)))
    assert cursor.pending == 4 * len(equal(1))


def test_what_is_given_up_adds_up_until_it_is_told() -> None:
    """One gap covers all frames since the last. Its size is unknown if the log forgot some before the reader came."""
    log = RunLog()
    early = log.attach(1, mark=6000)
    log.append(equal(1), 2)
    late = None
    for number in range(2, 8):
        log.append(equal(number), number + 1)
        early.settle()
        if late is not None:
            late.settle()
        elif log.first > 1:
            late = log.attach(1, mark=6000)

    assert early.gap() == Gap(6, 6 * len(equal(1)), 6)
    assert late is not None
    assert late.gap() == Gap(6, None, 6)


@pytest.mark.parametrize("read", [Cursor.take, Cursor.peek])
def test_reading_gives_up_what_is_beyond_the_mark_first(read: Callable[[Cursor, int], bytes]) -> None:
    """A reader that asks for the gap afterwards hears of the frames before those that it read."""
    log = RunLog()
    cursor = log.attach(1, mark=6000)
    for number in range(1, 5):
        log.append(equal(number), number + 1)

    assert read(cursor, 10**6) == equal(4)
    assert cursor.gap() == Gap(3, 3 * len(equal(1)), 3)


def test_the_last_batch_is_kept_however_small_the_mark() -> None:
    """It holds the terminal frame."""
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


def test_a_late_reader_may_have_all_that_is_kept_for_replay() -> None:
    """It can take a backlog above its mark, which may shrink but not grow; the mark applies once it has caught up."""
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


def take_all(cursor: Cursor) -> bytes:
    return cursor.take(10**6)


def advance_over_all(cursor: Cursor) -> bytes:
    seen = cursor.peek(10**6)
    cursor.advance(seen.count(b"\n\n"), len(seen))
    return seen


@pytest.mark.parametrize("catch_up", [take_all, advance_over_all])
def test_a_late_reader_that_catches_up_in_one_step_is_held_to_its_mark(catch_up: Callable[[Cursor], bytes]) -> None:
    """The allowance for a backlog ends with the backlog, even if a single append was all of it."""
    log = RunLog(replay=110_000)
    log.append(b"".join(map(equal, range(1, 21))), 21)
    cursor = log.attach(1, mark=6000)
    assert catch_up(cursor).startswith(b"1:")

    log.append(equal(21), 22)
    log.append(equal(22), 23)
    assert cursor.gap() == Gap(1, len(equal(21)), 21)
    assert cursor.pending == len(equal(22))


def test_a_reader_may_use_a_part_of_what_it_sees() -> None:
    """`advance` may stop between two frames of a batch; the next `peek` goes on from there."""
    log = RunLog()
    cursor = log.attach()
    assert cursor.peek(100) == b""
    log.append(frame(1, 10) + frame(2, 10), 3)
    log.append(frame(3, 5000), 4)

    assert cursor.peek(10**6) == frame(1, 10) + frame(2, 10) + frame(3, 5000)
    cursor.advance(1, len(frame(1, 10)))
    assert cursor.peek(1) == frame(2, 10)
    assert (cursor.next, cursor.take(10**6)) == (2, frame(2, 10) + frame(3, 5000))


def test_a_reader_that_used_a_part_of_the_latest_append_takes_the_rest() -> None:
    """Every frame arrives once."""
    log = RunLog()
    cursor = log.attach()
    log.append(frame(1, 10) + frame(2, 10), 3)
    cursor.advance(1, len(frame(1, 10)))

    assert cursor.take(10**6) == frame(2, 10)
