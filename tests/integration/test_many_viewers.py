"""A thousand viewers of one run: some stall, some leave and come back, and the others are served as ever."""

from __future__ import annotations

import json
import random
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest

from sse_bridge.wire import events
from tests.support.bridge_process import bridge_process
from tests.support.sandboxes import LocalSandbox, running

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LINES = 6_000
SCRIPT = f"""
import sys, time
for number in range({LINES}):
    sys.stdout.write(f"{{number:05}} {{'x' * (number % 150)}}\\n")
    if number % 150 == 0:
        sys.stdout.flush()
        time.sleep(0.1)
sys.exit(7)
"""
EXPECTED = [f"{number:05} {'x' * (number % 150)}" for number in range(LINES)]
POLICIES = {
    "block": ("Block", {"high_water": 65536, "stall_timeout": 2.0}),
    "drop": ("Drop", {"high_water": 65536}),
}


#: What a response holds besides the run's frames.
NOT_OF_THE_RUN = re.compile(rb'^(?:retry: \d+\n|: heartbeat\n|id: \S+\.0\ndata: \{"type":"start".*\n\n)', re.MULTILINE)


@dataclass
class Client:
    """A browser that follows one run over several connections.

    It keeps bytes, and parses them only at the end: a thousand clients share a core with the server.
    """

    port: int
    path: str
    #: Whole frames, except those that begin a response.
    frames: bytes = b""
    run: str = ""
    connections: int = 0

    async def connect(self) -> anyio.abc.SocketStream:
        self.connections += 1
        stream = await anyio.connect_tcp("127.0.0.1", self.port)
        stream.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        last = re.findall(rb"^id: (\S+)$", self.frames[-1000:], re.MULTILINE)
        seen = f"Last-Event-ID: {last[-1].decode()}\r\n" if last else ""
        await stream.send(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{seen}\r\n".encode())
        return stream

    async def read(self, stream: anyio.abc.SocketStream, stop_after: float = inf) -> None:
        """Reads to the end of the response, or until `stop_after` bytes have come; then closes the connection."""
        pieces, size = [], 0
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while size < stop_after:
                    pieces.append(await stream.receive(65536))
                    size += len(pieces[-1])
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        if token := re.search(rb"(?i)sse-bridge-run: (\S+)", head):
            self.run = token[1].decode()
        body = unchunked(body)
        whole, blank_line, _ = body.rpartition(b"\n\n")
        self.frames += NOT_OF_THE_RUN.sub(b"", whole + blank_line)

    async def read_to_the_end(self, longest: float = inf) -> None:
        """Reconnects after each disconnection, behind the last frame it saw, until the run is over."""
        while not self.is_over:
            await self.read(await self.connect(), longest * random.random() if longest < inf else inf)

    @property
    def is_over(self) -> bool:
        return b'"type":"exit"' in self.frames[-100:]


async def test_a_thousand_viewers_of_one_run(anyio_backend: str, sandbox: LocalSandbox, tmp_path: Path) -> None:
    """Viewers that read get all lines in order, whatever the others do. The command runs once, and ends."""
    sandbox.write("/workspace/lines.py", SCRIPT)
    settings = {**sandbox.settings, "command": "python3 /workspace/lines.py"}
    run_over = anyio.Event()
    clients: dict[str, list[Client]] = {kind: [] for kind in ("good", "restless", "dropping", "blocking")}

    async def late(client: Client, delay: float) -> None:
        await anyio.sleep(delay)
        await client.read_to_the_end()

    async def stalled(client: Client) -> None:
        """Starts to read once the run is over; reconnects for the rest if it was disconnected meanwhile."""
        stream = await client.connect()
        await run_over.wait()
        await client.read(stream)
        await client.read_to_the_end()

    with bridge_process(tmp_path, send_buffer=16 * 1024, policies=POLICIES, **settings) as bridge, anyio.fail_after(90):
        with httpx.stream("GET", bridge.url + "/run-sse") as response:
            run = response.headers["sse-bridge-run"]
        async with anyio.create_task_group() as everybody:
            async with anyio.create_task_group() as tasks:
                for number in range(1000):
                    kind = "restless" if number < 50 else "dropping" if number < 75 else "blocking"
                    kind = kind if number < 100 else "good"
                    client = Client(bridge.port, f"/run-sse/{run}?policy={'drop' if kind == 'dropping' else 'block'}")
                    clients[kind].append(client)
                    if kind == "good":
                        tasks.start_soon(late, client, 3 * random.random())
                    elif kind == "restless":
                        tasks.start_soon(client.read_to_the_end, 60_000)
                    else:
                        everybody.start_soon(stalled, client)
            run_over.set()
        assert not running("/workspace/lines.py")

    everything = clients["good"][0].frames
    assert [said.get("line", said) for said in objects(everything)] == [*EXPECTED, {"type": "exit", "code": 7}]
    for client in clients["good"] + clients["restless"] + clients["blocking"]:
        assert client.frames == everything
    assert all(client.connections > 1 for client in clients["blocking"])
    assert sum(client.connections for client in clients["restless"]) > 100
    assert sum(missing(client) for client in clients["dropping"]) > 0


def unchunked(body: bytes) -> bytes:
    """The bytes in a chunked body (RFC 9112 7.1), which may break off."""
    pieces, start = [], 0
    while (end := body.find(b"\r\n", start)) > 0 and (size := int(body[start:end], 16)):
        pieces.append(body[end + 2 : end + 2 + size])
        start = end + 2 + size + 2
    return b"".join(pieces)


def objects(frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.data or "") for event in events.parse(frames)]


def missing(client: Client) -> int:
    """The number of lines that gaps count; checks that all others are in their places."""
    place = gaps = 0
    *said, last = objects(client.frames)
    for body in said:
        if body["type"] == "gap":
            gaps += body["dropped"]
            place += body["dropped"]
        else:
            assert body["line"] == EXPECTED[place]
            place += 1
    assert (place, last) == (LINES, {"type": "exit", "code": 7})
    return gaps
