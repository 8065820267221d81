"""`RunLog`: each frame in order and once, and forgotten when the last reader is done with it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from sse_bridge.flow.log import LARGEST_BATCH, Cursor, Gap, RunLog
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
        self.is_curious = True  # whether numbers are asked for after every step, or only at the end

    cursors = Bundle("cursors")

    @initialize(replay=st.sampled_from([0, 50, 5000, 10**6]), is_curious=st.booleans())
    def begin(self, replay: int, is_curious: bool) -> None:
        self.log = RunLog(replay)
        self.is_curious = is_curious

    @precondition(lambda self: not self.log.closed)
    @rule(count=st.integers(1, 5), size=st.sampled_from([1, 10, 30, 900, 5000, 30_000, 70_000]))
    def append(self, count: int, size: int) -> None:
        added = [frame(len(self.frames) + index + 1, size) for index in range(count)]
        batch = b"".join(added)
        cut = max(LARGEST_BATCH, *map(len, added))
        self.largest_batch = max(self.largest_batch, min(self.small + len(batch), cut))
        self.small = min(len(batch), 4096) if len(batch) > 4096 else self.small + len(batch)
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

    @rule(cursor=cursors, limit=st.sampled_from([0, 1, 100, 5000, 70_000, 10**9]))
    def take(self, cursor: Cursor, limit: int) -> None:
        place = self.places[cursor]
        taken = cursor.take(limit)
        count = taken.count(b"\n\n")

        assert taken == b"".join(self.frames[place : place + count])
        assert (count > 0) == (place < len(self.frames))
        assert limit < 10**9 or cursor.pending == 0
        assert len(taken) <= max(limit, LARGEST_BATCH) or count == 1
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
        if self.is_curious:
            self.check_numbers()
        for cursor, place in self.places.items():
            pending = sum(map(len, self.frames[place:]))
            assert cursor.pending == pending
            assert cursor.finished == (self.log.closed and not pending)

    @property
    def slowest(self) -> int:
        """The index of the oldest frame that a cursor needs."""
        return min(self.places.values(), default=len(self.frames))

    @invariant()
    def what_a_cursor_needs_is_kept(self) -> None:
        assert self.log.kept >= sum(map(len, self.frames[self.slowest :]))

    def teardown(self) -> None:
        self.check_numbers()

    def check_numbers(self) -> None:
        assert self.log.kept == sum(map(len, self.frames[self.log.first - 1 :]))
        for cursor, place in self.places.items():
            assert cursor.next == place + 1

    def check_that_passed_frames_are_forgotten(self) -> None:
        """The log forgets when it grows and when a cursor leaves, in whole batches."""
        needed = sum(map(len, self.frames[self.slowest :]))
        assert self.log.kept - needed <= self.log.replay + self.largest_batch


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=150, stateful_step_count=40)


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
    """Closing a cursor frees the frames that only it needed, all but the last batch, and may be done twice."""
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
    assert log.kept == len(frame(4, 50_000))


@pytest.mark.parametrize("number", [-1, 0, 3, 10**30])
def test_a_reader_begins_at_a_frame_that_exists_or_comes_next(number: int) -> None:
    """Any other number is an error of the caller: the reader cannot have seen the frame before it."""
    log = RunLog()
    log.append(frame(1, 10), 2)

    with pytest.raises(ValueError, match=f"numbers 1 to 2, got {number}$"):
        log.attach(number)


def test_the_newest_append_is_taken_by_a_reader_that_had_taken_all_before_it() -> None:
    """Any other reader has to `take`, and so has everyone once the log is closed."""
    log = RunLog()
    first, late = log.attach(), log.attach()
    assert first.take_newest() == b""

    log.append(b"data: 1\n\n", 2)
    assert first.take_newest() == b"data: 1\n\n"
    assert (first.next, first.pending, first.take_newest()) == (2, 0, b"")
    log.append(b"data: 2\n\n", 3)
    assert late.take_newest() == b""
    assert first.take_newest() == b"data: 2\n\n"
    log.append(b"data: 3\n\n", 4)
    log.close()
    assert first.take_newest() == b""
    assert first.take(1000) == b"data: 3\n\n"
    assert late.take(1000) == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"


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


# -- appends of any size -------------------------------------------------------------------------------------------

#: Sizes of the frames of one append. What one upstream event becomes has no bound: half a million newlines in a frame
#: are half a million frames.
LARGE_APPENDS = {
    "many small frames": [50] * 10_000,
    "a large frame alone": [10**6],
    "a large frame among small ones": [50] * 100 + [300_000] + [50] * 100,
    "large frames in a row": [70_000] * 5,
    "the last is large": [50] * 2000 + [200_000],
    "just within a batch": [LARGEST_BATCH - 7] * 3,
    "just beyond a batch": [LARGEST_BATCH - 6] * 3,
}


def append(log: RunLog, sizes: list[int]) -> list[bytes]:
    first = log.next
    frames = [frame(first + index, size) for index, size in enumerate(sizes)]
    log.append(b"".join(frames), first + len(frames))
    return frames


@pytest.mark.parametrize("sizes", LARGE_APPENDS.values(), ids=LARGE_APPENDS)
def test_an_append_of_any_size_is_read_in_batches_that_end_with_frames(sizes: list[int]) -> None:
    """A reader gets at most a batch, or a single frame that is larger. It knows its number wherever it stops."""
    log = RunLog()
    cursor, asked = log.attach(), log.attach()
    frames = append(log, sizes)
    taken: list[bytes] = []
    while batch := cursor.take(LARGEST_BATCH):
        assert asked.take(LARGEST_BATCH) == batch
        assert batch.endswith(b"\n\n")
        assert len(batch) <= LARGEST_BATCH or batch.count(b"\n\n") == 1
        taken.append(batch)
        assert asked.next == 1 + sum(part.count(b"\n\n") for part in taken)

    assert b"".join(taken) == b"".join(frames)
    assert cursor.next == log.next


@pytest.mark.parametrize("sizes", LARGE_APPENDS.values(), ids=LARGE_APPENDS)
def test_a_reader_can_begin_at_every_frame_of_a_large_append(sizes: list[int]) -> None:
    """Also once the front of the append is forgotten, and with small appends before and behind it."""
    log = RunLog()
    reader = log.attach()
    frames = b"".join(b"".join(append(log, part)) for part in ([20], sizes, [20], [5000]))
    while reader.pending:
        last = log.next - 1
        for number in {log.first, min(log.first + 1, last), (log.first + last) // 2, last}:
            late = log.attach(number)
            assert late.next == number
            assert late.peek(1).startswith(b"%d:" % number)
            assert frames.endswith(late.take(10**9))
            late.close()
        reader.take(1)
        log.attach(log.next).close()  # the log forgets when a reader leaves


@pytest.mark.parametrize("number", [1, 2, 1500, 2999, 3000, 3001, 3002])
def test_a_reader_can_begin_in_an_append_whose_frames_are_not_counted_yet(number: int) -> None:
    """Wherever the append was cut."""
    log = RunLog(replay=10**6)
    frames = append(log, [50] * 3000) + append(log, [50])

    assert log.attach(number).take(10**6) == b"".join(frames[number - 1 :])


@pytest.mark.parametrize("count", [1140, 1150, 1200, 2290])
def test_a_reader_can_begin_at_every_frame_behind_a_large_append(count: int) -> None:
    """Small appends join the last piece of a large one if that is small, too."""
    for number in (1, 2, count - 1, count, count + 1, count + 2, count + 3):
        log = RunLog(replay=10**6)
        frames = append(log, [50] * count) + append(log, [50]) + append(log, [50])

        assert log.attach(number).take(10**6) == b"".join(frames[number - 1 :])


@pytest.mark.parametrize("mark", [1, 64 * 1024])
@pytest.mark.parametrize("sizes", LARGE_APPENDS.values(), ids=LARGE_APPENDS)
def test_a_mark_holds_within_a_large_append(mark: int, sizes: list[int]) -> None:
    """The log forgets the front of the append. The reader loses whole frames, and their count is exact."""
    log = RunLog()
    cursor = log.attach(1, mark)
    frames = append(log, [50] * 3000)
    begun = cursor.gap()
    taken = (begun.frames if begun else 0) + cursor.take(1).count(b"\n\n")  # within an append that is then forgotten
    frames += append(log, sizes) + append(log, [50])

    assert log.kept <= mark + 2 * max(LARGEST_BATCH, *map(len, frames))
    gap = cursor.gap()
    assert gap is not None
    lost = frames[taken : taken + gap.frames]
    assert gap == Gap(len(lost), sum(map(len, lost)), taken + len(lost))
    assert cursor.take(10**9) == b"".join(frames[taken + len(lost) :])


def test_a_reader_that_has_left_still_knows_its_number() -> None:
    """What it stood in is forgotten by then."""
    log = RunLog()
    cursor = log.attach()
    append(log, [50] * 3000)
    taken = cursor.take(1).count(b"\n\n")
    cursor.close()

    assert log.kept <= LARGEST_BATCH
    assert cursor.next == taken + 1


@pytest.mark.parametrize("newest", [100, 20_000])
def test_a_late_reader_may_be_behind_until_it_has_caught_up(newest: int) -> None:
    """By all that is kept for replay. From then on its mark applies, however large the append was that came last."""
    log = RunLog(replay=10**6)
    sizes = [6000, newest, 6000, 6000]
    frames = [b"x" * (size - 2) + b"\n\n" for size in sizes]
    for number in (0, 1):
        log.append(frames[number], number + 2)
    cursor = log.attach(1, mark=5000)

    assert cursor.take(1000) == frames[0]
    assert cursor.take(1000) == frames[1]
    for number in (2, 3):
        log.append(frames[number], number + 2)
    assert cursor.gap() == Gap(1, 6000, 3)
    assert cursor.take(1000) == frames[3]


@pytest.mark.parametrize("first", [1, 2, 5001])
def test_a_log_may_begin_in_the_middle_of_a_run(first: int) -> None:
    """The copy of a run whose beginning is gone. A reader that needs what lies before is told how much it misses."""
    log = RunLog(10_000, first)
    assert (log.first, log.next) == (first, first)
    log.append(equal(first) + equal(first + 1), first + 2)
    early, exact, late = (log.attach(number) for number in (1, first, first + 1))

    gap = early.gap()
    assert gap == (Gap(first - 1, None, first - 1) if first > 1 else None)
    assert early.take(10**6) == exact.take(10**6) == equal(first) + equal(first + 1)
    assert late.take(10**6) == equal(first + 1)
    with pytest.raises(ValueError, match="expected frames from number"):
        log.append(equal(first), first + 1)
