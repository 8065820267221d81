"""`Delivery`: under every policy and pace a viewer gets each frame, or a count of those it missed."""

from __future__ import annotations

import json
import tracemalloc
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

    @precondition(
        lambda self: not self.source.log.closed and not any(page.delivery.holds(False) for page in self.pages)
    )
    @rule(sizes=st.lists(st.sampled_from([10, 30_000, 70_000]), min_size=1, max_size=3))
    def print_a_lot(self, sizes: list[int]) -> None:
        self.source.print(*[f"{len(self.source.said) + index}".ljust(size, ".") for index, size in enumerate(sizes)])

    @precondition(lambda self: not self.source.log.closed)
    @rule()
    def end(self) -> None:
        self.source.end()

    @rule(index=st.integers(0, 5), times=st.integers(1, 5), in_short=st.booleans())
    def read(self, index: int, times: int, in_short: bool) -> None:
        if index < len(self.pages):
            for _ in range(times):
                self.pages[index].read(self.now, in_short=in_short)

    @rule(seconds=st.sampled_from([0.001, 0.02, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def everything_is_accounted_for(self) -> None:
        for page in self.pages:
            counted = page.delivery.statistics()
            assert counted.frames_in == counted.frames_out + counted.frames_dropped + counted.frames_pending
            assert counted.bytes_in == counted.bytes_out + counted.bytes_dropped + counted.bytes_pending
            assert counted.frames_in == self.source.log.next - page.first
            assert counted.frames_out == page.place - page.first - page.dropped
            assert counted.frames_dropped >= page.dropped
            assert counted.frames_merged == counted.frames_out - len(page.events)
            assert counted.bytes_pending >= len(page.unfinished)

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


@pytest.mark.parametrize(
    ("policy", "rate", "is_plain"),
    [
        (Block(), None, True),
        (Block(), TokenBucket(3), False),
        (Drop(), None, False),
        (Coalesce(max_rate=None), None, False),
    ],
)
def test_only_who_gets_everything_as_it_is_may_ask_the_cursor(
    policy: Policy, rate: TokenBucket | None, is_plain: bool
) -> None:
    """Not even then if something was gone before it came, since it has to be told."""
    source = Source()
    first = source.view(policy, rate)
    assert first.plain is (first.cursor if is_plain else None)
    first.cursor.close()
    source.print_unseen("x" * 30_000)
    source.print_unseen("x" * 30_000)
    assert source.view(policy, rate).plain is None


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
    """Merged lines go out at once, whatever `max_rate` says, until the run waits no longer. Every line comes."""
    source = Source()
    page = Page(source, source.view(Coalesce(high_water=2**20)))
    while not page.delivery.holds(False):
        source.print(*["x" * 5000] * 10)
    while page.delivery.holds(True):
        assert page.read(0.0)

    assert page.delivery.cursor.pending > 2**17
    assert page.delivery.take(0.01) == b""
    assert page.read(page.delivery.ready_at(0.01))
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
    """A policy that the library lacks: a run that waits goes on only once the viewer has every frame."""

    high_water: int = 1000
    may_lose: bool = False
    merges: bool = True
    max_rate: float | None = 2.0
    stall_timeout: float | None = 5.0

    def holds(self, pending: int, held: bool) -> bool:
        return pending > (0 if held else self.high_water)


def test_a_delivery_asks_its_policy() -> None:
    """A policy that is new to it is asked the same questions as the others."""
    source = Source()
    delivery = source.view(cast("Policy", Stepwise()))
    assert (delivery.stall_timeout, delivery.is_paced, delivery.holds(True)) == (5.5, True, False)
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
    """The size is unknown by now, so the notice omits it. The last batch is kept, and follows."""
    source = Source()
    source.print(*["x" * 100] * 100)
    source.print("y" * 5000)
    delivery = source.view(Block(), number=50)

    run = RUN.encode()
    notice = b'id: %b.100\ndata: {"type":"gap","dropped":51}\n\n' % run
    assert delivery.take(0.0).startswith(notice + b"id: %b.101\n" % run)
    counted = delivery.statistics()
    assert (counted.frames_in, counted.frames_dropped, counted.frames_out, counted.bytes_dropped) == (52, 51, 1, 0)


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


# -- frames and bursts of any size ---------------------------------------------------------------------------------

EVERY_POLICY: list[Policy] = [
    Block(high_water=64 * 1024),
    Drop(high_water=64 * 1024),
    Coalesce(high_water=64 * 1024, max_rate=None),
    Coalesce(high_water=64 * 1024, max_rate=None, beyond="drop"),
]


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=repr)
@pytest.mark.parametrize(
    "lines",
    [["x" * 10**6], ["a", "x" * 200_000, "b"], ["x" * 70_000] * 3, ['"\t' * 50_000], ["x" * (BATCH - 60)] * 2],
    ids=["a mebibyte", "among small ones", "in a row", "escapes", "just within"],
)
def test_a_frame_larger_than_a_send_goes_out_in_pieces(policy: Policy, lines: list[str]) -> None:
    """Whatever is taken may be sent in one piece, and nothing comes between two pieces of a frame.

    While a frame is out in part, the rest of it is pending and counts as unsent, in frames and in bytes.
    """
    source = Source()
    page = Page(source, source.view(policy))
    source.print(*lines)
    while page.delivery.pending:
        pending = page.delivery.pending
        assert page.read(0.0)
        assert page.delivery.pending < pending
        counted = page.delivery.statistics()
        assert counted.frames_pending == source.log.next - page.place
        assert (counted.bytes_pending == 0) == (counted.frames_pending == 0)
        assert not (page.delivery.finished and page.delivery.is_within_frame)
    assert page.place == source.log.next


def test_the_last_frame_may_be_large() -> None:
    """The viewer is finished with its last piece."""
    source = Source()
    delivery = source.view(Block())
    source.print("x" * 100_000)
    source.log.close()
    assert delivery.take(0.0)
    assert not delivery.finished
    assert delivery.take(0.0).endswith(b"\n\n")
    assert delivery.finished


def test_the_unsent_rest_of_a_large_frame_holds_the_run() -> None:
    """The mark measures bytes that `send` has yet to get, and they hold the run until a quarter of the mark."""
    source = Source()
    delivery = source.view(Block(high_water=3 * BATCH))
    source.print("x" * (6 * BATCH))
    holds = []
    while delivery.take(0.0):
        holds.append(delivery.holds(True))
        assert source.log.size > delivery.calm_until or not delivery.holds(False)

    assert holds == [True] * 5 + [False] * 2


def test_a_gap_waits_for_the_end_of_a_frame_that_is_out_in_part() -> None:
    """The viewer loses what comes after the frame, and is told after it."""
    source = Source()
    page = Page(source, source.view(Drop(high_water=1)))
    source.print("x" * 200_000)
    page.read(0.0)
    for number in range(50):
        source.print(f"{number}".ljust(5000))
    assert source.log.kept < 100_000
    while page.read(0.0):
        pass

    assert (page.place, page.dropped, len(page.events)) == (52, 49, 2)


def test_a_pace_counts_a_large_frame_once() -> None:
    """The pieces of a frame follow each other at once."""
    source = Source()
    page = Page(source, source.view(Block(), TokenBucket(1, burst=1)))
    source.print("x" * 200_000, "y")
    while page.read(0.0):
        pass
    assert page.events == [0.0]
    assert page.delivery.ready_at(0.0) == 1.0


@pytest.mark.parametrize("policy", [Coalesce(max_rate=None), Coalesce(10**9, 1.0, "drop")], ids=repr)
@pytest.mark.parametrize("size", [0, 10, 1000, 40_000, 63_000])
def test_a_merged_event_is_no_larger_than_a_send(policy: Policy, size: int) -> None:
    """However much is pending: clients have limits of their own, and a page is busy with each event."""
    source = Source()
    delivery = source.view(policy)
    for _ in range(20):
        source.print(*["x" * size] * max(1, 100_000 // (size + 60)))
    now, taken = 0.0, []
    while delivery.pending:
        taken.append(delivery.take(now))
        now += 1.0

    assert max(map(len, taken)) <= BATCH
    assert all(frames.count(b"\n\n") == 1 for frames in taken)
    assert size > 10_000 or len(taken) < delivery.statistics().frames_out / 10


#: What one chunk of the upstream becomes, as lines: far more than any mark.
BURSTS = {
    "one event with many newlines": ["x\n" * 50_000],
    "many short lines": ["x"] * 50_000,
    "long lines": ["x" * 50_000] * 80,
    "large frames": ["x" * 500_000] * 8,
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("lines", BURSTS.values(), ids=BURSTS)
@pytest.mark.parametrize("policy", EVERY_POLICY, ids=repr)
def test_stalled_viewers_of_a_burst_share_what_is_kept(policy: Policy, lines: list[str]) -> None:
    """Twenty viewers that take once cost one `send` each, and the log whatever the policy lets it keep.

    What one upstream chunk becomes has no bound, so no viewer may be handed all of it.
    """
    source = Source()
    source.print("first")
    deliveries = [source.view(policy, number=2) for _ in range(20)]
    before = tracemalloc.get_traced_memory()[0]
    source.print_unseen(*lines)
    size = source.log.size
    handed_out = [delivery.take(0.0) for delivery in deliveries]
    source.print_unseen("x" * 5000)  # the log forgets when it grows

    assert max(map(len, handed_out)) <= BATCH
    assert size > 3_000_000
    kept = 1_000_000 if policy.may_lose else size
    assert tracemalloc.get_traced_memory()[0] - before < kept + len(deliveries) * BATCH + 1_000_000
