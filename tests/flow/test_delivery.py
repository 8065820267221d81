"""`Delivery`: under every policy and pace a viewer gets each frame, or a count of those it missed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sse_bridge.flow.delivery import BATCH, Delivery
from sse_bridge.flow.log import RunLog
from sse_bridge.flow.pace import TokenBucket
from sse_bridge.flow.policy import Block, Coalesce, Drop, Policy
from sse_bridge.wire.dialects import VERBATIM
from sse_bridge.wire.events import parse
from sse_bridge.wire.ids import FrameIds
from tests.support.deliveries import CHUNK, RUN, Page, Source

POLICIES: list[Policy] = [
    Block(high_water=20_000),
    Drop(high_water=1),
    Drop(high_water=20_000),
    Coalesce(high_water=20_000),
    Coalesce(high_water=20_000, beyond="drop"),
    Coalesce(high_water=10**6, max_rate=None, beyond="drop"),
]
LOSSLESS = (Block(high_water=20_000), Coalesce(high_water=20_000))
RATES = [None, None, TokenBucket(3, burst=2), TokenBucket(10_000)]


class DeliveriesAgainstPages(RuleBasedStateMachine):
    """Whatever is printed and taken in any order at any time, by viewers that come and go, the pages agree."""

    def __init__(self) -> None:
        super().__init__()
        self.source = Source()
        self.pages: list[Page] = []
        self.now = 0.0

    @initialize(replay=st.sampled_from([0, 3000, 10**6]))
    def begin(self, replay: int) -> None:
        self.source = Source(replay)

    @rule(policy=st.sampled_from(POLICIES), rate=st.sampled_from(RATES), back=st.integers(0, 40))
    def come(self, policy: Policy, rate: TokenBucket | None, back: int) -> None:
        if len(self.pages) < 6:
            number = max(1, self.source.log.next - back)
            self.pages.append(Page(self.source, self.source.view(policy, rate, number, self.now)))

    @rule(index=st.integers(0, 5))
    def leave(self, index: int) -> None:
        if index < len(self.pages):
            self.pages.pop(index).delivery.cursor.close()

    @precondition(
        lambda self: not self.source.log.closed and not any(page.delivery.holds(False) for page in self.pages)
    )
    @rule(
        count=st.integers(1, 10), size=st.sampled_from([0, 10, 5000]), kind=st.sampled_from(["stdout"] * 3 + ["stderr"])
    )
    def print(self, count: int, size: int, kind: str) -> None:
        self.source.print(*[f"{len(self.source.said) + index}".ljust(size, ".") for index in range(count)], kind=kind)

    @precondition(lambda self: not self.source.log.closed)
    @rule()
    def end(self) -> None:
        self.source.end()

    @rule(index=st.integers(0, 5), times=st.integers(1, 5))
    def read(self, index: int, times: int) -> None:
        if index < len(self.pages):
            for _ in range(times):
                self.pages[index].read(self.now)

    @rule(seconds=st.sampled_from([0.001, 0.02, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def everything_is_accounted_for(self) -> None:
        for page in self.pages:
            counted = page.delivery.statistics()
            assert counted.frames_in == counted.frames_out + counted.frames_dropped + counted.frames_pending
            assert counted.bytes_in == counted.bytes_out + counted.bytes_dropped + counted.bytes_pending
            assert counted.frames_in == self.source.log.next - page.delivery.first
            assert counted.frames_out == page.place - page.delivery.first - page.dropped
            assert counted.frames_dropped >= page.dropped
            assert counted.frames_merged == counted.frames_out - len(page.events)

    @invariant()
    def only_what_was_gone_before_is_lost_unless_a_policy_drops(self) -> None:
        for page in self.pages:
            if page.delivery.policy in LOSSLESS:
                assert page.delivery.statistics().bytes_dropped == 0

    @invariant()
    def memory_stays_below_the_marks(self) -> None:
        """Or below what a late page found there. One chunk may exceed that, and another may be read in part."""
        log = self.source.log
        log.attach(log.next).close()  # the log forgets when a reader leaves
        assert log.kept <= log.replay + max([page.may_pend for page in self.pages], default=0) + 2 * CHUNK

    def teardown(self) -> None:
        """Whatever happened, the end arrives, and it is the last."""
        if not self.source.log.closed:
            self.source.end()
        for page in self.pages:
            for _ in range(1000):
                if not page.read(self.now):
                    ready = page.delivery.ready_at(self.now)
                    if ready == inf:
                        break
                    self.now = max(self.now, ready)
            assert page.delivery.finished
            assert page.place == self.source.log.next
            assert page.over or page.delivery.statistics().frames_in == page.dropped


TestDeliveriesAgainstPages = DeliveriesAgainstPages.TestCase
TestDeliveriesAgainstPages.settings = settings(max_examples=100, stateful_step_count=40)


def test_what_is_pending_goes_out_as_it_is() -> None:
    """`Block` and an unlimited rate: the very bytes of the log, at any time."""
    source = Source()
    delivery = source.view(Block())
    frames = source.print("a", "b")

    assert not delivery.is_paced
    assert delivery.take(0.0) is frames
    assert delivery.take(0.0) == b""
    assert delivery.ready_at(0.0) == inf


def test_viewers_that_may_lose_nothing_hold_the_run() -> None:
    """Beyond the mark; others lose frames instead. Only a viewer that holds the run can hold it for too long."""
    source = Source()
    policies: list[Policy] = [
        Block(100, stall_timeout=7.0),
        Coalesce(100, max_rate=None, stall_timeout=8.0),
        Drop(100),
        Coalesce(100, beyond="drop"),
    ]
    deliveries = [source.view(policy) for policy in policies]
    source.print("x" * 5000)
    source.print("y" * 5000)

    assert [delivery.holds(False) for delivery in deliveries] == [True, True, False, False]
    assert [delivery.stall_timeout for delivery in deliveries][:3] == [7.0, 8.0, None]
    counted = [delivery.statistics() for delivery in deliveries]
    assert [viewer.frames_dropped for viewer in counted] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("policy", "rate", "timeout"),
    [
        (Block(stall_timeout=7.0), TokenBucket(0.5), 9.0),
        (Coalesce(max_rate=0.25, stall_timeout=7.0), TokenBucket(0.5), 11.0),
        (Block(stall_timeout=None), TokenBucket(0.5), None),
        (Drop(), TokenBucket(0.5), None),
    ],
)
def test_a_wait_for_the_pace_is_no_stall(policy: Policy, rate: TokenBucket, timeout: float | None) -> None:
    """The longest one comes on top of the policy's time, until a stop drops the pace."""
    delivery = Source().view(policy, rate)
    assert delivery.stall_timeout == timeout
    delivery.hurry()
    assert delivery.stall_timeout == policy.stall_timeout


def test_coalesce_takes_what_it_was_waited_for() -> None:
    """Two takes of merged lines end the wait that began beyond the mark, and every line has come."""
    source = Source()
    page = Page(source, source.view(Coalesce(high_water=2**20)))
    while not page.delivery.holds(False):
        source.print(*["x" * 5000] * 10)
    page.read(0.0)
    assert page.delivery.holds(True)
    assert page.delivery.take(0.01) == b""
    page.read(page.delivery.ready_at(0.01))

    assert not page.delivery.holds(True)
    assert len(page.events) == 2
    assert page.dropped == 0


@pytest.mark.parametrize("policy", [Block(300), Coalesce(300)], ids=repr)
def test_up_to_a_size_of_the_log_it_is_certain_that_a_viewer_does_not_hold_the_run(policy: Policy) -> None:
    """Until then the run need not ask. The bound is exact for a viewer that stopped taking, and it only grows."""
    source = Source()
    blocks = source.view(policy)
    assert {source.view(lossy).calm_until for lossy in (Drop(100), Coalesce(100, beyond="drop"))} == {inf}
    calm_until = blocks.calm_until
    while source.log.size <= calm_until:
        assert not blocks.holds(False)
        source.print("x" * 20)
    assert blocks.holds(False)
    blocks.take(0.0)
    assert blocks.calm_until == calm_until + source.log.size


@dataclass(frozen=True)
class Stepwise:
    """A policy that the library lacks: the run goes on only once the viewer has every frame."""

    high_water: int = 1000
    may_lose: bool = False
    merges: bool = True
    max_rate: float | None = 2.0
    stall_timeout: float | None = 5.0

    def holds(self, pending: int, held: bool) -> bool:
        return pending > 0


def test_a_delivery_asks_its_policy() -> None:
    """A policy that is new to it is asked the same questions as the others."""
    source = Source()
    delivery = source.view(cast("Policy", Stepwise()))
    assert (delivery.stall_timeout, delivery.is_paced, delivery.holds(False)) == (5.5, True, False)
    assert delivery.calm_until == 1000
    source.print("a", "b")
    source.print("x" * 10_000)

    assert delivery.holds(False)
    assert [json.loads(event.data or "")["line"] for event in parse(delivery.take(0.0))] == ["a\nb\n" + "x" * 10_000]
    assert not delivery.holds(True)
    source.print("c")
    assert delivery.take(0.4) == b""
    assert delivery.ready_at(0.4) == 0.5
    assert delivery.statistics().frames_dropped == 0


def test_drop_skips_the_oldest_and_says_exactly_how_much() -> None:
    """The notice goes before the next frame, under the number of the last one that is missing."""
    source = Source()
    delivery = source.view(Drop(high_water=12_000))
    for number in range(10):
        source.print(f"{number}".ljust(5000, "."))
    source.end()

    gap, *rest = [json.loads(event.data or "") for event in parse(delivery.take(0.0))]
    counted = delivery.statistics()

    assert gap == {"type": "gap", "dropped": 8, "bytes": counted.bytes_dropped}
    assert [body["type"] for body in rest] == ["stdout", "stdout", "exit"]
    assert (counted.frames_in, counted.frames_out, counted.frames_dropped) == (11, 3, 8)
    assert delivery.finished


def test_a_backlog_goes_out_in_batches() -> None:
    """Some 64 KiB at once; under a rate, as many frames as it allows."""
    source = Source()
    plain, slow = source.view(Block()), source.view(Block(), TokenBucket(1, burst=3))
    for number in range(40):
        source.print(f"{number}".ljust(5000))

    assert BATCH / 2 < len(plain.take(0.0)) <= BATCH
    assert slow.take(0.0).count(b"\n\n") == 3
    assert slow.take(0.0) == b""
    assert slow.ready_at(0.0) == 1.0
    assert slow.take(2.0).count(b"\n\n") == 2


def test_coalesce_sends_at_most_so_many_events_a_second() -> None:
    """The first at once; what comes meanwhile is one event when its time has come."""
    source = Source()
    page = Page(source, source.view(Coalesce(max_rate=10)))
    now = 0.0
    while now < 2.0:
        source.print(f"{now}")
        page.read(now)
        now += 0.01

    assert 20 <= len(page.events) <= 21
    assert page.events[0] == 0.0
    assert page.dropped == 0


def alternate(source: Source, lines: int) -> None:
    """Lines that cannot be merged."""
    for number in range(lines):
        source.print(str(number), kind=("stdout", "stderr")[number % 2])


def test_a_viewer_that_holds_the_run_may_get_more_events_than_its_max_rate() -> None:
    """Lines that cannot be merged would otherwise slow the script to `max_rate` lines a second."""
    source = Source()
    page = Page(source, source.view(Coalesce(high_water=2000, max_rate=10)))
    alternate(source, 200)
    assert page.delivery.holds(False)
    assert page.read(0.0)
    assert len(page.events) == 200
    alternate(source, 4)  # it is below its mark again
    events = len(page.events)
    assert not page.read(0.05)
    assert page.read(0.1)
    assert len(page.events) == events + 1


def test_a_viewer_that_may_lose_lines_keeps_to_its_max_rate() -> None:
    """It holds no run, however far behind it is."""
    source = Source()
    page = Page(source, source.view(Coalesce(high_water=2000, max_rate=10, beyond="drop")))
    alternate(source, 200)

    for now in (0.0, 0.0, 0.1):
        page.read(now)
    assert page.events == [0.0, 0.1]


def test_a_viewer_that_holds_the_run_keeps_to_its_rate() -> None:
    """The application's own limit is meant to slow the script."""
    source = Source()
    page = Page(source, source.view(Coalesce(high_water=2000, max_rate=10), TokenBucket(20, burst=3)))
    alternate(source, 200)

    for now in (0.0, 0.0, 0.05):
        page.read(now)
    assert page.events == [0.0, 0.0, 0.0, 0.05]


def test_without_a_rate_coalesce_merges_what_is_there() -> None:
    """`max_rate=None`: merged frames go out at once."""
    source = Source()
    delivery = source.view(Coalesce(max_rate=None))
    source.print("a", "b")

    assert not delivery.is_paced
    assert delivery.take(0.0) == f'id: {RUN}.2\ndata: {{"type":"stdout","line":"a\\nb"}}\n\n'.encode()
    assert delivery.statistics().frames_merged == 1
    assert delivery.take(0.0) == b""


def test_what_was_gone_before_is_said_at_once() -> None:
    """Also if it is the end of the log. The size is unknown by now, so the notice omits it."""
    source = Source()
    source.print(*["x" * 100] * 100)
    delivery = source.view(Block(), number=50)

    assert delivery.take(0.0) == b'id: %b.100\ndata: {"type":"gap","dropped":51}\n\n' % RUN.encode()
    counted = delivery.statistics()
    assert (counted.frames_in, counted.frames_dropped, counted.bytes_in, counted.bytes_dropped) == (51, 51, 0, 0)


def test_a_gap_that_was_not_told_yet_keeps_a_viewer_from_its_end() -> None:
    """A pace may delay the notice, and then the end has to wait, too."""
    source = Source()
    source.print("x")
    source.log.close()
    delivery = source.view(Block(), TokenBucket(1, burst=1))
    assert not delivery.finished
    assert delivery.take(0.0)
    assert delivery.finished


def test_verbatim_has_no_word_for_what_is_missing_but_counts_it() -> None:
    """The upstream's frames go out without a notice."""
    log = RunLog()
    delivery = Delivery(log, VERBATIM, FrameIds(None), Drop(high_water=10), None, 1, 0.0)
    for number in range(3):
        log.append(b"data: %b\n\n" % (b"x" * 5000), number + 2)

    assert delivery.take(0.0).count(b"data") == 1
    assert delivery.statistics().frames_dropped == 2


def test_a_number_that_does_not_exist_is_no_place_to_begin() -> None:
    """See `RunLog.attach`."""
    with pytest.raises(ValueError, match="numbers"):
        Source().view(Block(), number=2)


def test_a_hurried_viewer_gets_everything_at_once() -> None:
    """When a server stops, pending frames ignore the pace."""
    source = Source()
    delivery = source.view(Block(), TokenBucket(1, burst=1))
    source.print("a", "b", "c")
    delivery.take(0.0)
    assert delivery.take(0.0) == b""
    delivery.hurry()

    assert not delivery.is_paced
    assert delivery.take(0.0).count(b"\n\n") == 2
