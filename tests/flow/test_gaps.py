"""A viewer that missed frames is told so, in every dialect."""

from __future__ import annotations

import re

import pytest

from sse_bridge.flow.delivery import Delivery
from sse_bridge.flow.log import RunLog
from sse_bridge.flow.pace import TokenBucket
from sse_bridge.flow.policy import Coalesce, Drop, Policy
from sse_bridge.wire import events
from sse_bridge.wire.dialects import VERBATIM
from sse_bridge.wire.ids import FrameIds

POLICIES: list[Policy] = [Drop(1000), Coalesce(1000, max_rate=None, beyond="drop")]


@pytest.mark.parametrize("token", [None, "Zk3vQ0x9bTnWf2Rq"], ids=["no ids", "ids"])
@pytest.mark.parametrize("rate", [None, TokenBucket(10**6)], ids=["no rate", "rate"])
@pytest.mark.parametrize("policy", POLICIES, ids=["drop", "coalesce"])
def test_verbatim_counts_what_a_viewer_missed(policy: Policy, rate: TokenBucket | None, token: str | None) -> None:
    """A comment between two frames says how many frames and bytes. No event is torn, and none is missing uncounted."""
    log, ids = RunLog(), FrameIds(token)
    delivery = Delivery(log, VERBATIM, ids, policy, rate, 1, 0.0)
    got = b""
    for number in range(1, 501):
        log.append(ids.at(number, b"event: line\ndata: %d" % number), number + 1)
        if number in (3, 250):
            got += delivery.take(float(number))
    log.close()
    while rest := delivery.take(1000.0):
        got += rest

    gaps = [(int(frames), int(size)) for frames, size in re.findall(rb"^: gap dropped=(\d+) bytes=(\d+)$", got, re.M)]
    seen = [int(event.data or 0) for event in events.parse(got)]
    statistics = delivery.statistics()
    assert gaps
    assert sum(frames for frames, _ in gaps) == statistics.frames_dropped == 500 - len(seen)
    assert sum(size for _, size in gaps) == statistics.bytes_dropped
    assert len(re.sub(rb"^: gap .*\n", b"", got, flags=re.M)) + statistics.bytes_dropped == log.size
    assert all(event.type == "line" for event in events.parse(got))
    assert seen[-1] == 500


def test_a_viewer_that_comes_late_is_told_how_many_frames_are_forgotten() -> None:
    """Their bytes are unknown by then."""
    log, ids = RunLog(), FrameIds(None)
    for number in range(1, 501):
        log.append(ids.at(number, b"data: %d" % number), number + 1)
    late = Delivery(log, VERBATIM, ids, Drop(1000), None, 1, 0.0)

    got = late.take(0.0)
    dropped = int(re.match(rb": gap dropped=(\d+)\n", got)[1])  # type: ignore[index]
    assert [event.data for event in events.parse(got)] == [str(number) for number in range(dropped + 1, 501)]
