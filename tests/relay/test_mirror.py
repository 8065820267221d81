"""What another worker's run counts for here."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from sse_bridge.relay.clock import Clock
from sse_bridge.relay.mirror import Halting, Mirror, MirrorFacts
from sse_bridge.relay.options import RunOptions
from sse_bridge.relay.statistics import Totals
from sse_bridge.wire.dialects import DIALECTS

pytestmark = pytest.mark.anyio

OPTIONS = RunOptions(
    dialect=DIALECTS["typed"], ids=True, max_frame_size=None, replay=0, grace=0.0, cancel_timeout=5.0, max_run_time=inf
)
ENDS: dict[str, Callable[[Mirror], None]] = {"end": Mirror.end, "lose": Mirror.lose, "discard": Mirror.discard}


@pytest.mark.parametrize("way", ENDS)
async def test_a_mirror_counts_where_the_run_is_read(anyio_backend: str, way: str) -> None:
    """Not here: neither while it goes on, nor at its end, nor once it is forgotten."""
    totals = Totals()
    facts = MirrorFacts("tokentokentokent", lambda identity: True, False, 0.0)
    mirror = Mirror(facts, OPTIONS, totals, Clock(), 1, Halting(lambda it: None), lambda: None)
    mirror.feed(b"data: a\n\ndata: b\n\n", 3)
    while_it_goes_on = mirror.statistics()
    before = totals.snapshot((while_it_goes_on,))
    ENDS[way](mirror)
    at_its_end = totals.snapshot((mirror.statistics(),)).frames_in
    mirror.discard()

    assert while_it_goes_on.is_mirrored
    assert while_it_goes_on.frames_in == 2
    assert before.frames_in == before.bytes_in == at_its_end == totals.snapshot(()).frames_in == 0
