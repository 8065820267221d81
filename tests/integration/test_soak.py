"""Ten minutes of viewers that come, read, stall, lose their connection, come back, share, leave and cancel.

Every event that a viewer gets is checked, and the server's memory and descriptors stay as they were.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import statistics
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from sse_bridge.wire import events
from sse_bridge.wire.frames import FrameSplitter
from tests.support.bridge_process import BridgeProcess, bridge_process
from tests.support.upstreams import Connection, serve_raw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS: Final = float(os.environ.get("SSE_BRIDGE_SOAK_SECONDS", "600"))
VIEWERS: Final = 40
POLICIES: Final = {
    "block": ("Block", {"high_water": 128 * 1024, "stall_timeout": 5.0}),
    "drop": ("Drop", {"high_water": 64 * 1024}),
    "coalesce": ("Coalesce", {"high_water": 128 * 1024, "max_rate": 20, "stall_timeout": 5.0}),
    "thin": ("Coalesce", {"high_water": 64 * 1024, "max_rate": 20, "beyond": "drop"}),
}
LOSSLESS: Final = ("block", "coalesce")
#: How the server's memory may grow between the second quarter of the time and the last one.
GROWTH, SLACK = 1.1, 8 * 1024 * 1024


def line(number: int) -> str:
    """What every script prints as its line of this number."""
    return f"{number} {'x' * (number * 37 % 300)}"


def script(upstream: Connection) -> None:
    """Prints some lines, in bursts and one by one, and exits with their number."""
    rng = random.Random()
    count, written = rng.choice([0, 1, 30, 300, 3000, 20_000]), 0
    with suppress(OSError):
        upstream.stream()
        while written < count:
            burst = min(count - written, rng.choice([1, 1, 10, 500]))
            texts = [line(number) for number in range(written + 1, written + burst + 1)]
            upstream.chunk("".join(f'event: stdout\ndata: {{"line":"{text}"}}\n\n' for text in texts).encode())
            written += burst
            if rng.random() < 0.3:
                time.sleep(rng.choice([0.001, 0.02, 0.1]))
        if rng.random() < 0.05:
            return  # breaks off
        upstream.chunk(b'event: exit\ndata: {"exit_code": %d}\n\n' % (count % 256))
        upstream.end()


@dataclass
class Reader:
    """One viewer's place in one run, over all of its connections."""

    policy: str
    next: int = 1
    run: str = ""
    ended: str = ""
    seen: Counter[str] = field(default_factory=Counter)

    def take(self, event: events.Event) -> None:
        """Checks an event: the number continues the last one, and the text is what the script printed there."""
        if event.data is None:
            return
        body = json.loads(event.data)
        kind, number = body["type"], (event.id or "").rpartition(".")[2]
        self.seen[kind] += 1
        if number == "gone":
            assert body["code"] == "run_unknown", (self, event)
            self.ended = body["code"]
            return
        self.check(kind, int(number), body, event)

    def check(self, kind: str, number: int, body: dict[str, Any], event: events.Event) -> None:
        if kind == "start":
            assert number == 0
            return
        assert not self.ended, (self, event)
        if kind == "gap":
            # Every viewer may come after the oldest frames have been discarded; then their bytes are unknown.
            assert self.policy not in LOSSLESS or "bytes" not in body, (self, event)
            assert number == self.next + body["dropped"] - 1, (self, event)
        elif kind == "stdout":
            texts = body["line"].split("\n")
            assert texts == [line(at) for at in range(self.next, self.next + len(texts))], (self, event)
            assert number == self.next + len(texts) - 1, (self, event)
        else:
            self.ended = kind
            assert number == self.next, (self, event)
            assert kind == "error" or body["code"] == (number - 1) % 256, (self, event)
        self.next = number + 1

    @property
    def place(self) -> str:
        return f"{self.run}.{self.next - 1}"


async def connect(port: int, path: str, last_event_id: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=made, limit=64 * 1024)
    seen = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
    writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n{seen}\r\n".encode())
    return reader, writer


async def read(viewer: Reader, port: int, path: str, rng: random.Random, *, most: float, is_slow: bool) -> int:
    """Reads one response for `most` seconds at most; returns its status."""
    came_back = viewer.place if viewer.run and viewer.next > 1 else ""
    reader, writer = await connect(port, path, came_back)
    splitter = FrameSplitter(None)
    try:
        async with asyncio.timeout(most):
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ")[1])
            if status != 200:
                return status
            (token,) = re.findall(rb"(?i)\r\nsse-bridge-run: (\S+)", head) or [b""]
            viewer.run = token.decode() or viewer.run
            while chunk := await reader.read(4096 if is_slow else 65536):
                for event in events.parse(splitter.feed(chunk)):
                    viewer.take(event)
                if is_slow:
                    await asyncio.sleep(rng.choice([0.01, 0.05]))
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()
    return 200


async def visit(port: int, rng: random.Random, shared: list[str], total: Counter[str]) -> None:
    """One viewer, from its first request to the end that it chooses."""
    viewer = Reader(rng.choice(list(POLICIES)))
    path = f"/run-sse/?policy={viewer.policy}"
    if shared and rng.random() < 0.3:  # a second viewer of a run, from its beginning or what is left of it
        viewer.run = rng.choice(shared)
        path = f"/run-sse/{viewer.run}?policy={viewer.policy}"
        total["shared"] += 1
    way = rng.choice(["stay", "stay", "cut", "cut", "leave", "delete"])
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        for _ in range(50):
            most = 60.0 if way == "stay" else rng.choice([0.01, 0.1, 0.5, 2.0])
            status = await read(viewer, port, path, rng, most=most, is_slow=rng.random() < 0.2)
            if viewer.run and len(shared) < 20:
                shared.append(viewer.run)
            if viewer.ended or status != 200 or way in ("stay", "leave"):
                break
            if way == "delete" and viewer.run:
                async with httpx.AsyncClient() as client:
                    answer = await client.delete(f"http://127.0.0.1:{port}/run-sse/{viewer.run}", timeout=30)
                assert answer.status_code in (202, 204, 404)
                break
    if len(shared) >= 20 or rng.random() < 0.1:
        shared.clear()
    total["viewers"] += 1
    total[f"ended by {viewer.ended or way}"] += 1
    total.update(viewer.seen)


async def soak(served: BridgeProcess, samples: list[tuple[float, int, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    shared: list[str] = []
    until = time.monotonic() + SECONDS

    async def one_after_another(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            await visit(served.port, rng, shared, total)

    async def sample() -> None:
        while True:
            samples.append((time.monotonic(), served.memory, served.process.num_fds()))
            await asyncio.sleep(SECONDS / 200)

    sampling = asyncio.create_task(sample())
    async with asyncio.TaskGroup() as tasks:
        for number in range(VIEWERS):
            tasks.create_task(one_after_another(number))
    sampling.cancel()
    return total


def test_ten_minutes_of_random_viewers(tmp_path: Path) -> None:
    """No event is wrong, missing or twice; memory and descriptors stay flat; no work is left behind."""
    options: dict[str, Any] = {"dialect": "typed", "grace": 0.5, "keep": 5.0, "keep_bytes": 8 * 1024 * 1024}
    options |= {"replay": 2 * 1024 * 1024, "heartbeat": 0.5, "retry_ms": 50, "send_timeout": 5.0}
    samples: list[tuple[float, int, int]] = []
    with serve_raw(script) as upstream:
        with bridge_process(tmp_path, follow=upstream.url, policies=POLICIES, options=options) as served:
            before = served.process.num_fds()
            total = asyncio.run(soak(served, samples))
            descriptors = wait_for_descriptors(served, before)
            log = served.log.read_text()
        total["connections"] = upstream.accepted

    quarter = len(samples) // 4
    early = statistics.median(memory for _, memory, _ in samples[quarter : 2 * quarter])
    late = statistics.median(memory for _, memory, _ in samples[-quarter:])
    print(dict(total), f"memory {early / 2**20:.1f} -> {late / 2**20:.1f} MiB")  # noqa: T201
    assert "Traceback" not in log, log
    assert total["stdout"] > 100 * SECONDS
    assert total["exit"] > SECONDS / 10
    assert total["gap"] > 0
    assert late < early * GROWTH + SLACK
    assert descriptors <= before


def wait_for_descriptors(served: BridgeProcess, at_most: int) -> int:
    """The descriptors that are open once the last streams have been closed; waits for ten seconds at most."""
    until = time.monotonic() + 10
    while (now := served.process.num_fds()) > at_most and time.monotonic() < until:
        time.sleep(0.1)
    return now
