"""`Cursor`: what one reader may be behind, what it gives up then, and what it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sse_bridge.flow.log import Cursor, Gap, RunLog
from tests.support.numbered import equal, frame


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


def test_a_cursor_within_the_last_batch_stays_there_however_small_the_mark() -> None:
    """Frames that the reader has used stay behind it."""
    log = RunLog()
    cursor = log.attach(1, mark=1)
    log.append(equal(1) + equal(2), 3)
    cursor.advance(1, len(equal(1)))

    assert cursor.take(10**6) == equal(2)
    assert cursor.gap() is None


def test_a_cursor_is_finished_once_its_gap_is_told() -> None:
    """A reader that comes when frames are forgotten still hears how many they were. The last batch is kept for it."""
    log = RunLog()
    log.append(equal(1), 2)
    log.append(equal(2), 3)
    log.close()
    cursor = log.attach(1)

    assert cursor.take(10**6) == equal(2)
    assert not cursor.finished
    assert cursor.gap() == Gap(1, None, 1)
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


def test_a_cursor_that_follows_another_one_keeps_what_lies_between() -> None:
    """One takes frames, and the other goes there once they have arrived. The log forgets behind the second only."""
    log = RunLog()
    taken, arrived = log.attach(1), log.attach(1)
    frames = [frame(number, 5000) for number in range(1, 11)]
    for number, one in enumerate(frames, 1):
        log.append(one, number + 1)

    assert taken.take(20_000) == b"".join(frames[:3])
    assert (log.first, arrived.next) == (1, 1)
    arrived.move_to(taken)
    assert (log.first, arrived.next, arrived.pending) == (4, 4, taken.pending)
    assert arrived.take(10**6) == b"".join(frames[3:])
