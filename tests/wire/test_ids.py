"""`ids`: every frame gets the next number, and what is written is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.ids import FrameIds, Place, gone, is_token, new_token, read_place, without_ids

RUN = "Zk3vQ0x9bTnWf2Rq"


@given(st.integers(1, 3000), st.lists(st.integers(0, 1200), min_size=1, max_size=5), st.booleans())
def test_numbers_are_consecutive_across_any_batches(first: int, sizes: list[int], visible: bool) -> None:
    """The bulk form says exactly what formatting each id would say."""
    ids = FrameIds("run" if visible else None)
    number = first

    for size in sizes:
        texts = [b"p%d" % index for index in range(size)]
        expected = b"".join(
            (b"id: run.%d\n" % (number + index) if visible else b"") + b"data: <" + text + b">\n\n"
            for index, text in enumerate(texts)
        )

        assert ids.number((texts, size, b"data: <", b">\n\n"), number) == expected
        number += size


@pytest.mark.parametrize("first", [1, 998, 999, 1000, 1001, 1999, 10**6 - 1])
def test_the_table_of_numbers_has_no_seams(first: int) -> None:
    """Thousands begin where the number before them ends."""
    made = FrameIds("run").number(([b"x"] * 2002, 2002, b"", b"\n\n"), first)

    assert made == b"".join(b"id: run.%d\nx\n\n" % (first + index) for index in range(2002))


def test_ids_know_whether_they_show() -> None:
    """Only a run's token adds lines."""
    assert (FrameIds("run").visible, FrameIds("run").line(7)) == (True, b"id: run.7\n")
    assert (FrameIds(None).visible, FrameIds(None).line(7)) == (False, b"")
    assert FrameIds("run").at(7, b"data: x") == b"id: run.7\ndata: x\n\n"
    assert FrameIds(None).at(7, b"data: x") == b"data: x\n\n"


@pytest.mark.parametrize("number", [0, 17, 10**18 - 1])
def test_an_id_that_was_written_is_read_back(number: int) -> None:
    """On a frame and in a `Last-Event-ID` it has one form."""
    token = new_token()
    written = FrameIds(token).line(number).decode()

    assert read_place(written.removeprefix("id: ").removesuffix("\n")) == Place(token, number)


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "17",
        "run.17",
        RUN,
        *(RUN + end for end in ("x.1", "x1", " .1")),
        f"x{RUN}.1",
        f"{RUN[:15]}é.1",
        f"{RUN[:15]}/.1",
    ],
)
def test_an_id_of_another_form_is_no_place(odd: str) -> None:
    """It may come from anywhere: other streams, other software, or a keyboard."""
    assert read_place(odd) is None


@pytest.mark.parametrize("end", ["", "-1", "1 ", "1\n", f"{10**18}", "٥", "1.1", "gone.", "gon"])
def test_an_id_of_ours_that_was_garbled_is_a_place_that_no_run_reaches(end: str) -> None:
    """Its viewer has seen a run, so it must not start one."""
    place = read_place(f"{RUN}.{end}")

    assert place is not None
    assert place.token == RUN
    assert place.number is not None
    assert place.number >= 10**18


def test_a_viewer_that_was_sent_away_comes_back_with_an_id_that_says_so() -> None:
    """The frame that sends it away has this id."""
    assert gone(RUN, b"data: x") == f"id: {RUN}.gone\ndata: x\n\n".encode()
    assert read_place(f"{RUN}.gone") == (RUN, None)


def test_tokens_are_long_random_and_fit_for_a_path() -> None:
    """16 characters of 96 random bits; only the form is checked."""
    tokens = {new_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(is_token(token) and len(token) == 16 for token in tokens)
    assert not any(map(is_token, ["", "x" * 15, "x" * 17, "x" * 15 + "/", "x" * 15 + ".", "x" * 16 + "\n"]))


def test_the_upstreams_ids_go_and_its_data_stays() -> None:
    """An `id` line is one that begins with the field's name."""
    frames = b"id: 1\ndata: id: 2\nid\n\nid:3\n\nidle: x\nid:\ndata: y\n\n"

    assert without_ids(frames) == b"data: id: 2\n\n\nidle: x\ndata: y\n\n"
    assert without_ids(b"data: x\n\n") == b"data: x\n\n"
