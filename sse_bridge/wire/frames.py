"""Cutting an event stream into frames.

A `FrameSplitter` turns chunks, cut anywhere, into bytes of whole frames. It knows line ends, blank lines, the
byte order mark and a size limit. What a frame means is the business of `events` and `shapes`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from .. import speedups
from .digest import Digest

__all__ = ["DEFAULT_MAX_FRAME_SIZE", "Discard", "FrameSplitter", "canonical", "count_alike", "cut", "split"]

#: Bytes. Precedents: httpx2's SSE client stops at 1 MiB an event, Go's line scanner at 64 KiB.
DEFAULT_MAX_FRAME_SIZE: Final = 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D
_BLANK_LINES: Final = re.compile(rb"\n{3,}")


class Discard(NamedTuple):
    """A frame that was larger than the limit."""

    #: Where in the bytes that the same `feed` returned the frame would have stood.
    offset: int
    #: Bytes the frame had, its blank line included.
    size: int
    #: What is left of it: see `Digest.frame`.
    digest: bytes


class FrameSplitter:
    """Collects chunks and hands out whole frames, after WHATWG HTML 9.2.5 and 9.2.6.

    Only CR, LF and CRLF end a line; U+2028, U+0085, form feed and the like are data. In what `feed` returns, lines
    end in LF, and the first line has content. A frame may still end in several blank lines: scanning for them would
    add a third to the cost of everything else, and the plain-line path can prove that there are none. Other callers go
    through `canonical`. Bytes after the last blank line wait for the next chunk. At the end of the stream they are
    dropped (9.2.6): call `close`.

    Memory is bounded by `max_frame_size` and one chunk, however the stream is cut and however large a frame is.

    Args:
        max_frame_size: bytes a frame may have, its blank line included, counted after line ends were
            normalised. Of larger ones a digest is made while they stream in, and they are counted. `None` lifts the
            limit.
        facts: keys of objects whose values a digest has in any case.

    Raises:
        ValueError: `max_frame_size` is zero or negative.
    """

    __slots__ = (
        "_after_cr",
        "_digest",
        "_discarding",
        "_discarding_at_line_end",
        "_facts",
        "_head",
        "_pending",
        "discarded_bytes",
        "discarded_frames",
        "discards",
        "is_at_rest",
        "max_frame_size",
    )

    def __init__(self, max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE, facts: Collection[str] = ()) -> None:
        if max_frame_size is not None and max_frame_size < 1:
            raise ValueError(f"max_frame_size must be positive or None, not {max_frame_size}")
        self.max_frame_size = max_frame_size
        #: Frames and bytes discarded since the beginning.
        self.discarded_frames = 0
        self.discarded_bytes = 0
        #: Frames discarded by the last `feed`, in order.
        self.discards: list[Discard] | tuple[()] = ()  # a shared one: thousands of streams never discard
        self._head: bytes | None = b""  # the first bytes, until a BOM is ruled out
        self._after_cr = False  # an LF that comes next belongs to a CR that was already taken
        self._pending = bytearray()  # the beginning of a frame
        self._discarding = 0  # bytes of the oversized frame that is streaming in
        self._discarding_at_line_end = False
        self._digest: Digest | None = None  # of that frame
        self._facts = facts
        #: Whether the next byte begins a frame: no other waits for its end, and a byte order mark is ruled out.
        self.is_at_rest = False

    @property
    def pending(self) -> bytes:
        """The bytes of a frame that has begun, up to the limit."""
        return bytes(self._pending)

    @property
    def lines(self) -> bytes:
        """The lines of a frame that has begun, as far as they have ended; a digest, if they are above the limit."""
        if self._digest is not None:
            return self._digest.frame()
        return bytes(self._pending[: self._pending.rfind(b"\n") + 1])

    def fits(self, chunk: bytes) -> bool:
        """Whether no frame that ends in `chunk` can be larger than the limit."""
        return self.max_frame_size is None or (
            self._digest is None and len(self._pending) + len(chunk) <= self.max_frame_size
        )

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next chunk and returns all frames that are whole now, as one `bytes` (may be empty).

        Look at `discards` after each call: the next one forgets them.
        """
        if self.discards:
            self.discards = ()
        if (
            # The splitter is at rest, and the chunk is whole frames already. An upstream that sends each line when it
            # is printed sends only such chunks, so this is what a line costs.
            self.is_at_rest
            and chunk[-2:] == b"\n\n"
            and chunk[0] != _LF
            and _CR not in chunk  # as a number: for bytes, CPython first makes an exception
            and (self.max_frame_size is None or len(chunk) <= self.max_frame_size)
        ):
            return chunk
        frames = self._feed(chunk)
        self.is_at_rest = not (self._pending or self._after_cr or self._discarding) and self._head is None
        return frames

    def _feed(self, chunk: bytes) -> bytes:
        if self._head is not None:
            chunk = self._without_bom(self._head + chunk)
        if self._after_cr or _CR in chunk:
            chunk = self._with_lf(chunk)
        if self._digest is not None:
            chunk = self._discard(self._digest, chunk)
        if not self._pending and chunk[:1] == b"\n":
            chunk = chunk.lstrip(b"\n")
        end = self._end_of_frames(chunk)
        if not end:
            self._keep(chunk)
            return b""
        if self._pending:
            frames = b"".join((self._pending, memoryview(chunk)[:end]))
            self._pending.clear()
        else:
            frames = chunk[:end]
        self._keep(chunk[end:])
        if self.max_frame_size is not None and len(frames) > self.max_frame_size:
            frames = self._without_oversized(canonical(frames), self.max_frame_size)
        return frames

    def close(self) -> None:
        """Ends the stream: drops the beginning of a frame, and frees its memory."""
        self._pending = bytearray()
        self._digest = None

    def restart(self) -> None:
        """Another stream begins. Of the last one, the beginning of a frame is dropped; the counts go on."""
        self.close()
        self._head = b""
        self._after_cr = False
        self._discarding = 0
        self._discarding_at_line_end = False
        self.is_at_rest = False

    def _end_of_frames(self, chunk: bytes) -> int:
        """How much of `chunk` belongs to whole frames. Looks at each byte once (`rfind` is over `chunk`)."""
        end = chunk.rfind(b"\n\n") + 2
        if end >= 2:
            return end
        # A blank line may straddle the cut.
        return 1 if chunk[:1] == b"\n" and self._pending[-1:] == b"\n" else 0

    def _keep(self, rest: bytes) -> None:
        self._pending += rest
        if self.max_frame_size is not None and len(self._pending) > self.max_frame_size:
            self._discarding = len(self._pending)
            self._discarding_at_line_end = self._pending[-1] == _LF
            self._digest = Digest(self._facts)
            self._digest.feed(bytes(self._pending))
            self._pending = bytearray()  # clear() would keep the memory

    def _discard(self, digest: Digest, chunk: bytes) -> bytes:
        """Takes in what belongs to the oversized frame; returns what follows it."""
        if self._discarding_at_line_end and chunk[:1] == b"\n":
            end = 1
        else:
            end = chunk.find(b"\n\n") + 2
            if end < 2:
                digest.feed(chunk)
                self._discarding += len(chunk)
                if chunk:
                    self._discarding_at_line_end = chunk[-1] == _LF
                return b""
        digest.feed(chunk[:end])
        self._count_discard(0, self._discarding + end, digest)
        self._discarding = 0
        self._digest = None
        return chunk[end:]

    def _without_oversized(self, frames: bytes, limit: int) -> bytes:
        kept, offset = [], 0
        for frame in split(frames):
            size = len(frame) + 2
            if size > limit:
                digest = Digest(self._facts)
                digest.feed(frame + b"\n")
                self._count_discard(offset, size, digest)
            else:
                kept.append(frame + b"\n\n")
                offset += size
        return b"".join(kept)

    def _count_discard(self, offset: int, size: int, digest: Digest) -> None:
        if not self.discards:
            self.discards = []
        self.discards.append(Discard(offset, size, digest.frame()))
        self.discarded_frames += 1
        self.discarded_bytes += size

    def _without_bom(self, head: bytes) -> bytes:
        """Removes one BOM at the very start (9.2.5), which may arrive in pieces."""
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _with_lf(self, chunk: bytes) -> bytes:
        """Normalises line ends. A CR at the cut ends its line now, which avoids a delay, and swallows one LF later."""
        if not chunk:
            return chunk
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def canonical(frames: bytes) -> bytes:
    """What `FrameSplitter.feed` returned, with one blank line at the end of each frame, and empty frames removed."""
    return _BLANK_LINES.sub(b"\n\n", frames) if b"\n\n\n" in frames else frames


def count_alike(frames: bytes) -> int:
    """How many frames there are, if all begin as the first one does up to its last line's field; otherwise 0.

    They are canonical then: each beginning and each blank line before it account for some line feeds, and if these are
    all there are, every line is accounted for. Measured, ns a frame: 90, where looking for blank lines takes 120 and
    for more than one of them another 100, since CPython looks for a long needle in strides. In C, it is 16.
    """
    if speedups.count_alike is not None:
        return speedups.count_alike(frames)
    first = frames[: frames.find(b"\n\n")]
    head = first[: first.find(b":", first.rfind(b"\n") + 1) + 1]
    count = frames.count(b"\n\n" + head) + 1
    return count if head and frames.count(b"\n") == count * (head.count(b"\n") + 2) else 0


def cut(frames: bytes, most: int) -> Iterator[bytes]:
    """Cuts frames where they end into pieces of at most `most` bytes. A larger frame is a piece of its own."""
    start = 0
    while len(frames) - start > most:
        end = frames.rfind(b"\n\n", start, start + most)
        if end < 0:
            end = frames.find(b"\n\n", start + most - 1, -2)
        if end < 0:
            break
        yield frames[start : end + 2]
        start = end + 2
    yield frames[start:]


def split(frames: bytes) -> list[bytes]:
    """Cuts canonical frames into single ones, and cuts off their blank lines."""
    parts = frames.split(b"\n\n")
    parts.pop()
    return parts
