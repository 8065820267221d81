"""The parts of the benchmarks: every peer delivers every line in order, and the client notices failures."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from benchmarks import leaving
from benchmarks.client import Followers, Incorrect, Paced, connect, read_burst, run_of
from benchmarks.crews import crew
from benchmarks.figures import COLUMNS, medians
from benchmarks.plots import draw
from benchmarks.report import show
from benchmarks.servers import ALL_CORES, PEERS, leave_a_core, serving, upstream
from benchmarks.shapes import SHAPES
from benchmarks.sharing import shared_burst
from benchmarks.targets import TARGETS
from benchmarks.upstream import PACED, frame, lines_of
from tests.support.skipping import skip

pytestmark = pytest.mark.slow

LINES = 2000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with upstream(LINES) as url:
        yield url


@pytest.mark.parametrize(
    "peer", sorted(set(PEERS) - {"drop", "coalesce", "coalesce-drop", "owner", "mirror", "per-viewer"})
)
def test_every_peer_delivers_everything(peer: str, url: str) -> None:
    """In all bursts, and line by line at the upstream's pace. A missing line is noticed."""
    program = PEERS[peer].program
    if program and shutil.which(program) is None:
        skip(f"there is no {program}; `make system` as root installs it")
    with serving(peer, url) as server, ExitStack() as stack:
        for shape in ("burst", "chunks", "burst-mixed", "chunks-mixed", "crlf", "length-10000"):
            assert read_burst(server.port, f"/?shape={shape}", lines_of(shape, LINES)) > 0
        with pytest.raises(Incorrect, match="instead of"):
            read_burst(server.port, "/?shape=burst", lines_of("burst", LINES + 1))

        streams = 30  # more than the 20 connections of one client of MIOSA's SDK
        paced = followed([stack.enter_context(connect(server.port, "/?shape=paced")) for _ in range(streams)], 1.0)
        assert paced.frames >= 15 * streams
        assert 0 < paced.percentile(0.5) <= paced.percentile(0.99) < 1000
        assert server.cpu() >= 0  # 0 where clocks tick every 10 ms
        assert server.memory() > 2**20


@pytest.mark.parametrize("path", ["closings", "burst", "api/v1/sandboxes/burst"])
def test_the_upstream_says_that_it_closes_its_connections(path: str, url: str) -> None:
    """Otherwise the SDK's client sends its second request on a connection that is about to be closed."""
    assert httpx.get(f"{url}/{path}").headers["Connection"] == "close"


def test_viewers_of_one_run_get_the_same(url: str) -> None:
    """The shape with a thousand viewers relies on it."""
    with serving("bridge", url) as server, ExitStack() as stack:
        first = stack.enter_context(connect(server.port, "/?shape=paced"))
        run = run_of(first)
        others = [stack.enter_context(connect(server.port, f"/{run}?shape=paced")) for _ in range(3)]
        assert followed([first, *others], 1.0).frames >= 18 * 4


def test_a_peer_has_its_core_for_itself(url: str) -> None:
    if len(ALL_CORES) < 2:
        skip("there is one core, or none that processes can be bound to")
    leave_a_core()
    try:
        own = os.sched_getaffinity(0)
        with upstream(LINES) as other, serving("passthrough", other) as server:
            assert len(server.process.cpu_affinity()) == 1
            assert not own & set(server.process.cpu_affinity())
        with crew("bridge", url) as workers:
            assert set(workers.owner.process.cpu_affinity()) == ALL_CORES
    finally:
        os.sched_setaffinity(0, ALL_CORES)
    with serving("passthrough", url) as server:
        assert set(server.process.cpu_affinity()) == ALL_CORES


def followed(connections: list[socket.socket], seconds: float) -> Paced:
    followers = Followers(connections)
    followers.settle(0.1)
    return followers.follow(seconds)


LineByLine = tuple[Followers, list[Callable[[int], None]]]


@pytest.fixture
def line_by_line() -> Iterator[LineByLine]:
    """Two streams, and for each a function that writes the line with a given number to it."""
    pairs = [socket.socketpair() for _ in range(2)]
    with ExitStack() as stack:
        for one in itertools.chain(*pairs):
            stack.enter_context(one)

        def writer(peer: socket.socket) -> Callable[[int], None]:
            return lambda number: peer.sendall(frame(f"{time.monotonic_ns()} {number:07d} ok"))

        yield Followers([ours for ours, _ in pairs]), [writer(peer) for _, peer in pairs]


def test_an_unserved_stream_is_noticed(line_by_line: LineByLine) -> None:
    followers, (write, write_other) = line_by_line
    write(0)
    with pytest.raises(Incorrect, match="only 1 of 2 streams were served"):
        followers.settle(0, 0.1)
    write_other(3)
    followers.settle(0, 0.1)


def test_a_stream_that_falls_silent_is_noticed(line_by_line: LineByLine) -> None:
    followers, (write, write_other) = line_by_line
    write(0)
    write_other(3)
    followers.settle(0)
    for number in range(1, 10):
        write(PACED.groups * number)
    with pytest.raises(Incorrect, match=r"1 of 2 streams got fewer than 1 lines in 0.2 s"):
        followers.follow(0.2)


def test_a_hole_is_noticed(line_by_line: LineByLine) -> None:
    followers, (write, write_other) = line_by_line
    write(0)
    write_other(3)
    followers.settle(0)
    write(2 * PACED.groups)
    with pytest.raises(Incorrect, match="missing"):
        followers.follow(0.1)


SHORT = {
    "S5": [("bridge", 0.02), ("drop", 0.02), ("coalesce", 0.02), ("coalesce-drop", 0.02)],
    "S6": [("bridge", 0.1)],
    "S6x": [("bridge", 0.1)],
    "S8": [("bridge", 0.01), ("passthrough", 0.01)],
    "S8x": [("bridge", 0.01)],
    "R1": [("owner", 0.1), ("mirror", 0.1)],
    "R2": [("bridge", 0.01), ("mirror", 0.01)],
    "R4": [("mirror", 0.01)],
    "R5": [("mirror", 0.1)],
    "R6": [("mirror", 0.1), ("per-viewer", 0.1)],
    "R7": [("mirror", 0.02)],
    "R8": [("mirror", 1.0)],
}


@pytest.mark.parametrize(("shape", "peer", "share"), [(name, *of) for name, peers in SHORT.items() for of in peers])
def test_other_shapes_have_their_figures(shape: str, peer: str, share: float, url: str) -> None:
    """A short form of each passes its check, and tables have a column for each figure."""
    with SHAPES[shape].serve(peer, url) as server:
        figures = SHAPES[shape].measure(server, share)
    assert figures
    assert figures.keys() <= COLUMNS.keys()
    assert min(figures.values()) >= 0


def test_a_shared_burst_has_its_figures(url: str) -> None:
    """Every line of it is looked for, of the few that this upstream sends."""
    with crew("owner", url) as workers:
        assert min(shared_burst(LINES)(workers, 0.01).values()) > 0


def test_an_upstream_that_stays_open_is_noticed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare ASGI over httpx misses that its viewer has left."""
    monkeypatch.setattr(leaving, "_TIMEOUT", 0.5)
    with serving("passthrough", url) as server, pytest.raises(Incorrect, match="still open"):
        SHAPES["S6"].measure(server, 0.01)


def test_targets_are_worked_out_of_medians() -> None:
    """Each names shapes and peers that exist. Its figure is `None` where a peer lacks one."""
    runs = [dict.fromkeys(COLUMNS, value) for value in (3.0, 1.0, 2.0)]
    assert medians({"bridge": runs, "node": []}) == {"bridge": dict.fromkeys(COLUMNS, 2.0)}
    results = {name: medians(dict.fromkeys(shape.peers, runs)) for name, shape in SHAPES.items()}
    for target in TARGETS:
        assert target.figure(results) in (0.0, 1.0, 2.0, 2.048)
        assert target.figure({**results, target.shape: {}}) is None
        further = 0.01 if target.at_most else -0.01
        assert target.verdict(target.bound) == "reached"
        assert target.verdict(target.bound + further) == "NOT reached"
        if target.goal is not None:
            assert target.verdict(target.goal) == "goal reached"
            assert target.verdict(target.goal + further) == "reached"


def test_a_table_leaves_out_what_a_peer_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    show("R2", {"owner": {"cpu_us": 40.0, "redis_us": 5.0}, "mirror": {"cpu_us": 60.0, "mirror_us": 15.0}})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in lines[-2:]] == [["40.00", "5.00"], ["60.00", "15.00"]]


def test_pictures_are_drawn_of_partial_results(tmp_path: Path) -> None:
    """From some shapes, some peers and some curves."""
    runs = [{"cpu_us": 1.5, "p99_ms": 0.5}]
    growth = {"streams": {"1": {"bridge": runs}, "9": {"bridge": runs}}}
    draw({"runs": {"S1": {"bridge": runs, "node": []}}, "growth": growth}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bursts.png", "bursts.svg", "growth.png", "growth.svg"}
