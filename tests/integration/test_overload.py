"""Viewers that stop reading, viewers that vanish, and huge frames: memory stays bounded, and runs end."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from sse_bridge.wire import events
from sse_bridge.wire.frames import FrameSplitter
from tests.support.asgi import is_start
from tests.support.bridge_process import BridgeProcess, bridge_process
from tests.support.sandboxes import LocalSandbox, running
from tests.support.upstreams import Connection, serve_raw
from tests.support.waiting import eventually

MIB = 1024 * 1024
#: Bytes that a server may grow by: the marks (`high_water` and `replay`), and 32 MiB for HTTP clients, some 10 MB of
#: which its very first request takes.
MAX_GROWTH = (1 + 8 + 32) * MIB


class RawViewer:
    """A client that reads only on demand."""

    def __init__(self, port: int, *, policy: str = "", path: str = "/run-sse") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(30)
        query = f"?policy={policy}" if policy else ""
        self.socket.sendall(f"GET {path}{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def events(self) -> Iterator[events.Event]:
        """The events that an `EventSource` would dispatch, without `start`, until the connection ends.

        The sizes of HTTP's chunks stand on lines of their own, which a parser ignores.
        """
        splitter, head = FrameSplitter(None), b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(4096)
        chunk = head.partition(b"\r\n\r\n")[2] or b"\n"
        while chunk:
            parsed = events.parse(splitter.feed(chunk))
            yield from (event for event in parsed if event.data is not None and not is_start(event))
            chunk = self.socket.recv(MIB)


WAITING = {
    "block": ("Block", {"stall_timeout": None}),
    "coalesce": ("Coalesce", {"stall_timeout": None}),
}
DROPPING = {"drop": ("Drop", {}), "coalesce-drop": ("Coalesce", {"beyond": "drop"})}
POLICIES = {**WAITING, **DROPPING}


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_more_than_the_marks_at_a_viewer_that_stops_reading(policy: str, sandbox: LocalSandbox, tmp_path: Path) -> None:
    """Where no line may be lost the script waits in its `print`, otherwise it runs on; memory is bounded either way.

    When the viewer reads on, the lines it gets and those that gaps count add up to the output, in order, to the end.
    """
    lines, width, progress = 40_000, 10_000, tmp_path / "progress"
    progress.write_text("")  # the first line may arrive before the script has written here
    sandbox.write(
        "/workspace/burst.py",
        f"""
import sys
for number in range({lines}):
    sys.stdout.write(f"{{number:06}}{{'.' * {width - 7}}}\\n")
    if number % 1000 == 0:
        open({str(progress)!r}, "w").write(str(number))
sys.stdout.flush()
open({str(progress)!r}, "w").write("done")
""",
    )
    settings: dict[str, Any] = {
        **sandbox.settings,
        "command": "python3 /workspace/burst.py",
    }
    with (
        bridge_process(tmp_path, **settings, policies=POLICIES, options={"send_timeout": None}) as bridge,
        RawViewer(bridge.port, policy=policy) as viewer,
    ):
        stream = viewer.events()
        before = bridge.memory
        seen = Seen(width)
        seen.see(next(stream))

        def is_held() -> bool:
            """The script stands still before its end: it waits in its `print`."""
            first = progress.read_text()
            time.sleep(0.5)
            return bool(first) and first == progress.read_text()

        if policy in WAITING:
            eventually(is_held, 30)
            assert int(progress.read_text()) < lines / 2
        else:
            eventually(lambda: progress.read_text() == "done", 60)
        assert peak(bridge) - before < MAX_GROWTH

        for event in stream:
            seen.see(event)
        assert seen.code == 0
        assert seen.next == lines
        assert seen.missing > lines / 2 if policy in DROPPING else seen.missing == 0
        assert peak(bridge) - before < MAX_GROWTH


class Seen:
    """Checks that the numbered lines of a page go up by one, except where a gap counts the missing ones."""

    def __init__(self, width: int) -> None:
        self.next = 0
        self.missing = 0
        self.code: int | None = None
        self._width = width

    def see(self, event: events.Event) -> None:
        assert self.code is None
        body = json.loads(event.data or "")
        if body["type"] == "gap":
            assert body["bytes"] >= body["dropped"] * self._width
            self.missing += body["dropped"]
            self.next += body["dropped"]
        elif body["type"] == "exit":
            self.code = body["code"]
        else:
            for line in body["line"].split("\n"):
                assert (int(line[:6]), len(line)) == (self.next, self._width - 1)
                self.next += 1


@pytest.mark.slow
def test_a_client_that_vanished_behind_a_blocked_socket_is_gone_after_the_send_timeout(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    """The client just stops reading, with its socket open; its script is killed although it keeps printing."""
    mark = uuid.uuid4().hex
    settings: dict[str, Any] = {**sandbox.settings, "command": f"yes {mark}"}
    with (
        bridge_process(tmp_path, **settings, options={"send_timeout": 1.0, "grace": 0}) as bridge,
        RawViewer(bridge.port) as viewer,
    ):
        assert next(viewer.events())
        eventually(lambda: running(mark))
        eventually(lambda: not running(mark), 10)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
@pytest.mark.parametrize("size", [1000, MIB - 100])
def test_a_client_that_reads_slowly_and_steadily_is_never_cut(size: int, server: str, tmp_path: Path) -> None:
    """Although the server and the kernel hold more than it reads within `send_timeout`."""
    speed, total, seen = 1_500_000, 9 * MIB, 0
    head, tail = b'event: stdout\ndata: {"line":"', b'"}\n\n'
    frame = head + b"x" * size + tail
    end = head + b"last" + tail + b'event: exit\ndata: {"exit_code":0}\n\n'
    with (
        stream_of(b": begins\n\n", frame, end, repeat=total // len(frame)) as url,
        bridge_process(
            tmp_path, server=server, follow=url, options={"send_timeout": 0.5, "dialect": "typed"}
        ) as bridge,
        RawViewer(bridge.port) as viewer,
    ):
        began, received = time.monotonic(), b""
        while piece := viewer.socket.recv(speed // 20):
            seen += len(piece)
            received = received[-1000:] + piece
            if b'"type":"exit"' in received:
                break
            time.sleep(max(0.0, began + seen / speed - time.monotonic()))

    assert b'"line":"last"' in received
    assert seen > total


@contextmanager
def stream_of(*parts: bytes, repeat: int = 1) -> Iterator[str]:
    """Serves a single request with an event stream of three `parts`, the second of which is repeated."""
    first, again, last = parts
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                connection.sendall(first)
                for _ in range(repeat):
                    connection.sendall(again)
                connection.sendall(last)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [("Drop", {"high_water": 65536}), ("Coalesce", {"beyond": "drop"})], ids=str)
def test_stalled_viewers_of_one_burst_hold_no_copies_of_it(policy: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """One upstream event with 300,000 newlines becomes 20 MB of frames, which twenty viewers are due."""
    gate, done = threading.Event(), threading.Event()

    def answer(upstream: Connection) -> None:
        upstream.stream()
        upstream.chunk(b'event: stdout\ndata: {"line":"first"}\n\n')
        gate.wait(30)
        upstream.chunk(b'event: stdout\ndata: {"line":"%b"}\n\n' % (b"x\\n" * 300_000))
        upstream.chunk(b'event: stdout\ndata: {"line":"last"}\n\n')
        done.wait(30)

    with (
        serve_raw(answer) as upstream,
        bridge_process(
            tmp_path,
            follow=upstream.url,
            send_buffer=65536,
            policies={"stalled": policy, "reads": ("Drop", {})},
            options={"dialect": "typed", "send_timeout": None},
        ) as bridge,
        ExitStack() as viewers,
    ):
        first = next(viewers.enter_context(RawViewer(bridge.port)).events())
        path = f"/run-sse/{str(first.id).partition('.')[0]}"
        for _ in range(19):
            next(viewers.enter_context(RawViewer(bridge.port, path=path)).events())
        reader = viewers.enter_context(RawViewer(bridge.port, policy="reads", path=path)).events()
        next(reader)
        before = bridge.memory
        gate.set()
        assert any('"line":"last"' in (event.data or "") for event in reader)
        assert bridge.memory - before < MAX_GROWTH
        done.set()


@pytest.mark.slow
def test_a_frame_of_100_mb_is_discarded_in_bounded_memory_and_the_next_line_arrives(tmp_path: Path) -> None:
    """A gap stands in for the frame, and the run goes on."""
    head, tail = b'event: stdout\ndata: {"line":"', b'"}\n\n'
    ending = tail + head + b"next" + tail + b'event: exit\ndata: {"exit_code":0}\n\n'
    with (
        stream_of(head + b"first" + tail + head, b"x" * MIB, ending, repeat=100) as url,
        bridge_process(tmp_path, follow=url, options={"dialect": "typed"}) as bridge,
        RawViewer(bridge.port) as viewer,
    ):
        before = bridge.memory
        seen = [json.loads(event.data or "") for event in viewer.events()]

        assert seen == [
            {"type": "stdout", "line": "first"},
            {"type": "gap", "dropped": 1, "bytes": 100 * MIB + len(head + tail)},
            {"type": "stdout", "line": "next"},
            {"type": "exit", "code": 0},
        ]
        assert peak(bridge) - before < MAX_GROWTH


def peak(bridge: BridgeProcess) -> int:
    """Peak resident bytes of the process."""
    status = Path(f"/proc/{bridge.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
