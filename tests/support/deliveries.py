"""A run's log, and a page that checks what a viewer of it gets."""

from __future__ import annotations

import json
from typing import Any

from sse_bridge.flow.delivery import BATCH, Delivery
from sse_bridge.flow.log import RunLog
from sse_bridge.flow.pace import TokenBucket
from sse_bridge.flow.policy import Policy
from sse_bridge.wire.dialects import TYPED
from sse_bridge.wire.events import parse
from sse_bridge.wire.ids import FrameIds
from tests.support.frames import pipeline

RUN = "Zk3vQ0x9bTnWf2Rq"
#: The largest append that is ever made here.
CHUNK = 3 * 70_200


class Source:
    """A run's log, and what went into it."""

    def __init__(self, replay: int = 0) -> None:
        self.pipeline = pipeline(TYPED, RUN)
        self.log = RunLog(replay)
        self.said: list[tuple[str, str]] = []  # the kind and the text of every frame; number 1 is at index 0

    def print(self, *lines: str, kind: str = "stdout") -> bytes:
        upstream = "".join(f"event: {kind}\ndata: {json.dumps({'line': line})}\n\n" for line in lines)
        frames = self.pipeline.feed(upstream.encode())
        self.log.append(frames, self.pipeline.next)
        self.said += [(kind, line) for line in lines]
        return frames

    def print_unseen(self, *lines: str) -> None:
        """Prints what no page is going to check. A line may hold newlines."""
        upstream = "".join(f"event: stdout\ndata: {json.dumps({'line': line})}\n\n" for line in lines)
        self.log.append(self.pipeline.feed(upstream.encode()), self.pipeline.next)

    def end(self) -> None:
        self.log.append(self.pipeline.feed(b'event: exit\ndata: {"exit_code":0}\n\n'), self.pipeline.next)
        self.said.append(("exit", ""))
        self.log.close()

    def view(self, policy: Policy, rate: TokenBucket | None = None, number: int = 1, now: float = 0.0) -> Delivery:
        return Delivery(self.log, TYPED, FrameIds(RUN), policy, rate, number, now)


class Page:
    """A page: it appends lines, counts gaps, and remembers the last id."""

    def __init__(self, source: Source, delivery: Delivery) -> None:
        self.source = source
        self.delivery = delivery
        #: The number of the frame that it asked for first.
        self.first = delivery.cursor.next - delivery.cursor.dropped
        self.place = self.first  # the number of the frame that comes next
        self.dropped = 0
        self.events: list[float] = []  # when each one came
        self.over = False
        self.unfinished = b""  # the beginning of a frame that comes in pieces
        self.may_pend = max(delivery.policy.high_water, delivery.cursor.pending)

    def read(self, now: float, *, in_short: bool = False) -> int:
        """Takes once, and checks everything that came against what was printed.

        Args:
            in_short: whether to ask for the newest append first, where that may be.
        """
        plain = self.delivery.plain if in_short and not self.delivery.is_within_frame else None
        taken = (b"" if plain is None else plain.take_newest()) or self.delivery.take(now)
        assert len(taken) <= BATCH
        if taken and self.delivery.is_idle():
            assert self.delivery.take(now) == b""
            assert not self.delivery.finished
        whole, end, rest = (self.unfinished + taken).rpartition(b"\n\n")
        assert (rest != b"") == self.delivery.is_within_frame
        assert not (rest and whole and self.unfinished)  # only a frame that is large is cut
        self.unfinished = rest
        for event in parse(whole + end):
            self.see(json.loads(event.data or ""), int(str(event.id).rpartition(".")[2]), now)
        return len(taken)

    def see(self, body: dict[str, Any], number: int, now: float) -> None:
        assert not self.over
        if body["type"] == "gap":
            assert number == self.place + body["dropped"] - 1
            self.dropped += body["dropped"]
            self.place = number + 1
            return
        self.events.append(now)
        said = self.source.said[self.place - 1 : number]
        assert said
        assert {kind for kind, _ in said} == {body["type"]}
        if body["type"] == "exit":
            self.over = True
        else:
            assert body["line"] == "\n".join(text for _, text in said)
        self.place = number + 1
