"""What another worker's run counts for here."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from sse_bridge.relay.clock import Clock
from sse_bridge.relay.mirror import Mirror, MirrorFacts
from sse_bridge.relay.options import RunOptions
from sse_bridge.relay.statistics import Totals
from sse_bridge.wire.dialects import DIALECTS

pytestmark = pytest.mark.anyio

OPTIONS = RunOptions(
    dialect=DIALECTS["typed"], ids=True, max_frame_size=None, replay=0, grace=0.0, cancel_timeout=5.0, max_run_time=inf
)
ENDS: dict[str, Callable[[Mirror], None]] = {"end": Mirror.end, "lose": Mirror.lose, "discard": Mirror.discard}


@pytest.mark.parametrize("way", ENDS)
async def test_a_mirror_counts_once(anyio_backend: str, way: str) -> None:
    """While it goes on, when it ends, and once it is forgotten: a count that went back would be taken for a restart."""
    totals = Totals()
    facts = MirrorFacts("tokentokentokent", lambda identity: True, False, 0.0)
    mirror = Mirror(facts, OPTIONS, totals, Clock(), 1, lambda: None, lambda: None)
    mirror.feed(b"data: a\n\ndata: b\n\n", 3)
    while_it_goes_on = totals.snapshot((mirror.statistics(),)).frames_in
    ENDS[way](mirror)
    at_its_end = totals.snapshot((mirror.statistics(),)).frames_in
    mirror.discard()

    assert while_it_goes_on == 2
    assert at_its_end == totals.snapshot(()).frames_in == 2 + (way == "lose")
