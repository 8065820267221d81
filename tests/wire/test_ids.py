"""`FrameIds`: every frame gets the next number, whatever the table says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.ids import FrameIds


@given(st.integers(1, 3000), st.lists(st.integers(0, 1200), min_size=1, max_size=5), st.booleans())
def test_numbers_are_consecutive_across_any_batches(first: int, sizes: list[int], visible: bool) -> None:
    """The bulk form says exactly what formatting each id would say."""
    ids = FrameIds("run" if visible else None)
    ids.next = first

    for size in sizes:
        parts = [b"p%d" % index for index in range(size)]
        number = ids.next
        expected = b"".join(
            (b"id: run.%d\n" % (number + index) if visible else b"") + b"data: <" + part + b">\n\n"
            for index, part in enumerate(parts)
        )

        assert ids.join(parts, b"data: <", b">\n\n") == expected
        assert ids.next == number + size


def test_a_single_frame_gets_the_next_number() -> None:
    """As one of many would, shown or not."""
    for ids, expected in ((FrameIds("run"), b"id: run.1\ndata: x\n\n"), (FrameIds(None), b"data: x\n\n")):
        assert ids.one(b"data: x\n\n") == expected
        assert ids.next == 2


def test_ids_know_whether_they_show() -> None:
    """Without a run's token nothing is added, and frames are still counted."""
    assert FrameIds("run").visible
    assert not FrameIds(None).visible
