"""The log: a run's frames, numbered, in order, once; and the cursors that read it.

Writing and reading cost per batch of frames, never per frame. Whoever waits for the log to grow or to shrink does
so elsewhere: there is no `async` here.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Cursor", "RunLog"]


class _Segment(NamedTuple):
    """What one `append` brought."""

    #: Number of the frame that follows the last one in here.
    next: int
    frames: bytes


class RunLog:
    """The frames of one run, for as long as a cursor still needs them.

    Frames are numbered from 1 without holes. What every cursor has taken is forgotten; as long as there is no
    cursor, all is kept. The bound is the business of a policy: see `Cursor.pending`.
    """

    def __init__(self) -> None:
        #: The number that the next frame will have.
        self.next = 1
        #: Bytes appended since the beginning.
        self.size = 0
        #: No frame will follow.
        self.closed = False
        self._segments: list[_Segment] = []
        self._forgotten = 0  # segments that were there before the first one in the list
        self._cursors: list[Cursor] = []

    @property
    def kept(self) -> int:
        """Bytes held in memory."""
        return sum(len(segment.frames) for segment in self._segments)

    def append(self, frames: bytes, next_number: int) -> None:
        """Adds whole frames; the first is number `next`, and `next_number` is what follows the last.

        Raises:
            ValueError: the log is closed, or the numbers do not go up.
        """
        if self.closed:
            raise ValueError("the log is closed: nothing follows a terminal frame")
        if next_number <= self.next:
            raise ValueError(f"frames up to number {self.next - 1} are there already, got {next_number - 1}")
        self._segments.append(_Segment(next_number, frames))
        self.next = next_number
        self.size += len(frames)

    def close(self) -> None:
        """No frame will follow. Cursors take what is there and then are at the end for good."""
        self.closed = True

    def attach(self) -> Cursor:
        """A new cursor at the oldest frame that is kept. Call its `close` when nobody reads with it any more."""
        cursor = Cursor(self, self._forgotten, self.size - self.kept)
        self._cursors.append(cursor)
        return cursor

    def _read(self, position: int, limit: int) -> list[bytes]:
        """Segments from `position` on, as many as fit into `limit` bytes, but at least one if there is one."""
        batch: list[bytes] = []
        for index in range(position - self._forgotten, len(self._segments)):  # no slice: a backlog may be long
            frames = self._segments[index].frames
            limit -= len(frames)
            if batch and limit < 0:
                break
            batch.append(frames)
        return batch

    def _forget(self) -> None:
        """Drops what every cursor has passed."""
        if self._cursors:
            passed = min(cursor.position for cursor in self._cursors) - self._forgotten
            del self._segments[:passed]
            self._forgotten += passed

    def _detach(self, cursor: Cursor) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)
            self._forget()


class Cursor:
    """One reader's place in a `RunLog`. Made by `RunLog.attach`."""

    def __init__(self, log: RunLog, position: int, passed: int) -> None:
        self._log = log
        #: The segment that comes next, counted from the beginning of the run.
        self.position = position
        self._passed = passed  # bytes of the log before the position

    @property
    def pending(self) -> int:
        """Bytes that are there and not yet taken: what policies measure."""
        return self._log.size - self._passed

    @property
    def finished(self) -> bool:
        """All was taken, and nothing will follow."""
        return self._log.closed and not self.pending

    def take(self, limit: int) -> bytes:
        """The next frames, joined: `limit` bytes at most, but one batch at least if one is there (may be larger).

        Empty bytes mean that nothing is pending. What was taken is not given again.
        """
        if not self.pending:
            return b""
        batch = self._log._read(self.position, limit)
        frames = batch[0] if len(batch) == 1 else b"".join(batch)
        self.position += len(batch)
        self._passed += len(frames)
        self._log._forget()
        return frames

    def close(self) -> None:
        """Nobody reads with this cursor any more; what only it needed is forgotten. May be called again."""
        self._log._detach(self)
