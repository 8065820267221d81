"""What a bridge counts, beside what a client counts that knows the output and reads bytes from a socket."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from sse_bridge import Block, Coalesce, Drop, EventStream, Policy, SSEBridge
from tests.integration.test_many_viewers import unchunked
from tests.support.servers import serve
from tests.support.upstreams import Connection, serve_raw
from tests.support.waiting import eventually

#: 13 MB, of which a kernel may hold some 4: a viewer that reads none of it falls behind every mark.
OUTPUT = [("stderr" if number % 1000 < 3 else "stdout", f'{number} "{"." * 1000}') for number in range(12_000)]
TOTALS = ("frames_in", "bytes_in", "frames_out", "bytes_out", "frames_dropped", "bytes_dropped", "frames_merged")


def answer(upstream: Connection) -> None:
    """Prints everything, a hundred lines at a time, and exits."""
    upstream.stream()
    for start in range(0, len(OUTPUT), 100):
        lines = OUTPUT[start : start + 100]
        upstream.chunk(
            "".join(f"event: {kind}\ndata: {json.dumps({'line': text})}\n\n" for kind, text in lines).encode()
        )
    upstream.chunk(b'event: exit\ndata: {"exit_code": 0}\n\n')
    upstream.end()


@dataclass
class Count:
    """What a client has seen of a stream, frame by frame."""

    #: `<run>.`, which all ids begin with.
    prefix: str
    #: The number of the next frame, and what has come of all before it.
    next: int = 1
    frames: int = 0
    size: int = 0
    events: int = 0
    missing: int = 0
    missing_size: int = 0

    def see(self, block: str) -> None:
        """Counts one block of the stream. Checks lines against the output, and a gap against what it hides."""
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        number = int(fields.get("id", "").removeprefix(self.prefix) or 0)
        if number == 0:  # a heartbeat, or what opens a response
            return
        said = json.loads(fields["data"])
        first, missing_size = self.next, self.missing_size
        if said["type"] == "gap":
            self.missing += said["dropped"]
            for _ in range(said["dropped"]):
                self.missing_size += self.pass_frame()
            assert said["bytes"] == self.missing_size - missing_size
        else:
            self.events += 1
            sizes = [self.pass_frame(said["type"], text) for text in said.get("line", "").split("\n")]
            assert len(sizes) > 1 or sizes == [len(block) + 2]
            self.frames += len(sizes)
            self.size += sum(sizes)
        assert first <= number == self.next - 1

    def pass_frame(self, kind: str | None = None, text: str | None = None) -> int:
        """The bytes of the next frame in the log. Checks its contents if they are given."""
        printed = OUTPUT[self.next - 1] if self.next <= len(OUTPUT) else ("exit", "")
        assert kind is None or (kind, text) == printed
        body = {"code": 0} if printed[0] == "exit" else {"line": printed[1]}
        data = json.dumps({"type": printed[0], **body}, separators=(",", ":"))
        frame = f"id: {self.prefix}{self.next}\ndata: {data}\n\n"
        self.next += 1
        return len(frame)


@pytest.mark.parametrize("policy", [Block(), Drop(), Coalesce(), Coalesce(beyond="drop")], ids=repr)
def test_a_client_counts_what_the_bridge_counts(policy: Policy) -> None:
    """Frames, bytes, lines in merged events, and gaps, at a viewer that first lets the run fill every buffer."""

    async def resolve(request: Request) -> EventStream:
        return EventStream(upstream.url)

    async def counted(request: Request) -> JSONResponse:
        now = bridge.statistics()
        viewers = [asdict(viewer) for run in now.runs for viewer in run.viewers]
        totals = {name: getattr(now, name) for name in TOTALS}
        return JSONResponse({"viewers": viewers, "stalls": now.stalls, "totals": totals})

    bridge = SSEBridge(None, resolve, policy=policy, dialect="typed")
    app = Starlette(routes=[Route("/counted", counted), Mount("/run-sse", bridge)])
    with serve_raw(answer) as upstream, serve(app) as site, closing(open_stream(site.port)) as connection:

        def ask() -> Any:
            return httpx.get(site.url + "/counted").json()

        def is_behind() -> bool:
            """The run has waited for the viewer, or has gone on to its end without it."""
            now = ask()
            return bool(now["totals"]["frames_in"] > len(OUTPUT) if policy.may_lose else now["stalls"])

        eventually(is_behind)
        for viewer in ask()["viewers"]:
            for unit in ("frames", "bytes"):
                fates = [viewer[f"{unit}_{fate}"] for fate in ("out", "dropped", "pending")]
                assert viewer[f"{unit}_in"] == sum(fates)
        seen = read_to_the_end(connection)
        eventually(lambda: not ask()["viewers"])
        after = ask()["totals"]

    assert seen.next == len(OUTPUT) + 2
    whole = Count(seen.prefix)
    size = sum(whole.pass_frame() for _ in range(len(OUTPUT) + 1))
    assert after == {
        "frames_in": len(OUTPUT) + 1,
        "bytes_in": size,
        "frames_out": seen.frames,
        "bytes_out": seen.size,
        "frames_dropped": seen.missing,
        "bytes_dropped": seen.missing_size,
        "frames_merged": seen.frames - seen.events,
    }
    assert (seen.missing > 0) == policy.may_lose
    assert (seen.frames > seen.events) == policy.merges


def open_stream(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    connection.sendall(b"GET /run-sse/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return connection


def read_to_the_end(connection: socket.socket) -> Count:
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    (run,) = re.findall(r"(?i)\r\nsse-bridge-run: (\S+)", head.decode())
    seen = Count(run + ".")
    *blocks, rest = unchunked(body).decode().split("\n\n")
    assert not rest
    for block in blocks:
        seen.see(block)
    return seen
