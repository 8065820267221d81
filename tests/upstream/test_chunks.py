"""Chunks that are joined before the parser sees them: the parser's answer stays the same."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.upstream import parsing
from sse_bridge.upstream.receiving import MAX_BARREN, Incoming
from tests.support import twins

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
pieces = st.sampled_from(
    [
        *(b"5\r\nhello\r\n", b"A\r\n0123456789\r\n", b"00a\r\n0123456789\r\n", b"0000005\r\nhello\r\n", b"1\r\n\n\r\n"),
        *(
            b"00000005\r\nhello\r\n",
            b"5;a=b\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\n",
            b"5\r\nhello",
            b"5\r\nhell\r\n",
        ),
        *(
            b"5\r\nhelloX\n",
            b"5\r\nhello\rX",
            b"x\r\n",
            b"\r\n",
            b"\n",
            b"-1\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
        ),
        *(b"fffffff\r\nhello", b"ffffffff\r\n", b"ffffffffffffffffff\r\n", b"5\r", b"5", b"\x00", b"\xff"),
        *(LAST, b"0\r\nX: y\r\n\r\n", b"000\r\n\r\n", b"0;a\r\n\r\n", HEAD),
    ]
)


@pytest.fixture(params=["httptools", "h11"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The parser behind."""
    if request.param == "h11":
        monkeypatch.setattr(parsing, "httptools", None)
    return str(request.param)


def received(chunks: list[bytes]) -> list[Any]:
    """All that can be seen of a response, after each piece."""
    incoming, seen = Incoming(is_head=False), list[Any]()
    try:
        for chunk in chunks:
            if not incoming.is_complete:
                incoming.feed(chunk)
            seen.append((incoming.has_head, incoming.is_complete, incoming.take()))
        incoming.end()
    except httpx.RemoteProtocolError:
        seen.append(("error", incoming.is_complete, incoming.take()))
    return seen


@pytest.mark.parametrize("twin", ["C", "model"])
def test_a_response_is_the_same_with_and_without_it(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever arrives, in whatever pieces: the same bytes after each, the same end, an error at the same place."""

    @given(st.lists(pieces, max_size=6), st.lists(st.integers(0, 120), max_size=4), st.sampled_from([HEAD, HEAD * 2]))
    def check(body: list[bytes], cuts: list[int], head: bytes) -> None:
        response = head + b"".join(body)
        at = [0, *sorted(min(cut, len(response)) for cut in cuts), len(response)]
        chunks = [response[start:stop] for start, stop in itertools.pairwise(at)]
        outcomes = []
        for way in (twin, "none"):
            twins.use(way, monkeypatch)
            outcomes.append((received(chunks), received([response[i : i + 1] for i in range(len(response))])))
        assert outcomes[0] == outcomes[1]

    check()


def test_chunks_are_joined_as_python_joins_them() -> None:
    """Byte for byte, from anywhere on."""
    c = twins.compiled()

    @given(st.lists(pieces, max_size=6).map(b"".join) | st.binary(max_size=30), st.integers(0, 60))
    def check(data: bytes, start: int) -> None:
        start = min(start, len(data))
        assert c.join_chunks(data, start) == twins.join_chunks(data, start)

    check()


@pytest.mark.parametrize("wrong", [(), (b"",), (b"", 1), (b"", -1), (b"", 2**70), ("", 0), (bytearray(), 0), (b"", "")])
def test_wrong_arguments_are_errors(wrong: tuple[Any, ...]) -> None:
    """Rather than the end of the process."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        twins.compiled().join_chunks(*wrong)


@pytest.mark.parametrize("twin", ["C", "model", "none"])
@pytest.mark.parametrize("barren", [b"5;" + b"a" * MAX_BARREN, b"5\r\nhello\r\n0\r\nX: " + b"a" * (2 * MAX_BARREN)])
def test_what_is_no_body_has_a_limit(twin: str, barren: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk extensions and trailers are the parser's, and count as before."""
    twins.use(twin, monkeypatch)
    response = HEAD + barren
    chunks = [response[at : at + 1000] for at in range(0, len(response), 1000)]
    assert received(chunks)[-1][0] == "error"


def test_a_burst_of_chunks_is_one_piece_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a chunk costs neither a call nor an object; the parser would hand over each."""
    counts = []
    for way in ("C", "model", "none"):
        twins.use(way, monkeypatch)
        incoming = Incoming(is_head=False)
        incoming.feed(HEAD + b"5\r\nhello\r\n" * 100)
        counts.append(len(incoming.parts))
    assert counts == [1, 1, 100]
