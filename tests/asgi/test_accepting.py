"""A server that stops accepting connections ends its streams, whatever has made it stop.

The fault: only signals were heard, so a server that was told to stop in another way waited for its streams, without
limit.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from starlette.requests import Request

from sse_bridge import SSEBridge
from sse_bridge.asgi.uvicorn import servers
from tests.support.asgi import Page
from tests.support.servers import run_hypercorn
from tests.support.site import STOPPED, Site, site
from tests.support.work import ScriptedWork

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# -- listening sockets, whatever the server


def tcp(host: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    return socket.create_server((host, 0), family=family)


def unix(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "s"))
    listener.listen()
    return listener


LISTENERS: dict[str, tuple[Callable[[Path], socket.socket], Callable[[Any], Any]]] = {
    "IPv4": (lambda folder: tcp("127.0.0.1"), lambda name: name),
    "IPv6": (lambda folder: tcp("::1", socket.AF_INET6), lambda name: name[:2]),
    "any host": (lambda folder: tcp("0.0.0.0"), lambda name: ("10.1.2.3", name[1])),
    "port as text": (lambda folder: tcp("127.0.0.1"), lambda name: [name[0], str(name[1])]),
    "Unix": (unix, lambda name: (name, None)),
}


@pytest.fixture
def shut() -> Iterator[list[socket.socket]]:
    """Sockets to be closed after the test."""
    sockets: list[socket.socket] = []
    yield sockets
    for one in sockets:
        one.close()


async def streaming(it: Site, server: Any) -> Page:
    """A page of a server with this address, in the midst of its stream."""
    page = Page()
    page.scope["server"] = server
    it.visit(page)
    await page.until(lambda: page.content)
    return page


@pytest.mark.parametrize("kind", LISTENERS)
@pytest.mark.parametrize("how", ["closed", "closed, and its number used again", "closed with all of its copies"])
async def test_streams_end_when_the_listening_socket_is_closed(
    kind: str, how: str, tmp_path: Path, shut: list[socket.socket]
) -> None:
    """The server will accept no more, so it waits for them."""
    listen, address = LISTENERS[kind]
    work, listener = ScriptedWork(), listen(tmp_path)
    copies = [listener.dup()] if "copies" in how else []
    shut += [listener, *copies]
    async with site(work) as it:
        page = await streaming(it, address(listener.getsockname()))
        if "used again" in how:
            with socket.socket() as other:
                os.dup2(other.fileno(), listener.fileno())
        else:
            for one in [listener, *copies]:
                one.close()
        await page.until(lambda: page.ended)

    assert page.objects == [STOPPED]
    assert work.cancels == 1


@pytest.mark.parametrize("what", ["another port", "a copy", "a connection", "nothing that listens"])
async def test_streams_go_on_while_the_server_accepts(what: str, shut: list[socket.socket]) -> None:
    """Other sockets come and go. Test clients name servers that do not exist."""
    listener = tcp("127.0.0.1")
    others = {"another port": lambda: tcp("127.0.0.1"), "a copy": listener.dup}
    other = others.get(what, lambda: socket.create_connection(listener.getsockname()))()
    shut += [listener, other]
    async with site(grace=0) as it:
        page = await streaming(it, ("testserver", 80) if what == "nothing that listens" else listener.getsockname())
        other.close()
        await anyio.sleep(5)
        assert page.objects == []
        page.leave()


async def test_a_later_stop_is_seen_as_well(shut: list[socket.socket]) -> None:
    """Nothing is looked at while nothing is open."""
    listener = tcp("127.0.0.1")
    shut.append(listener)
    async with site(grace=0) as it:
        first = await streaming(it, listener.getsockname())
        first.leave()
        await anyio.sleep(5)
        second = await streaming(it, listener.getsockname())
        listener.close()
        await second.until(lambda: second.ended)

    assert second.objects == [STOPPED]


async def test_a_run_without_a_request_ends_as_well(shut: list[socket.socket]) -> None:
    """Its server is known from a request before."""
    listener, work = tcp("127.0.0.1"), ScriptedWork()
    shut.append(listener)
    async with site(ScriptedWork(), grace=0) as it:
        page = await streaming(it, listener.getsockname())
        page.leave()
        run = await it.bridge.start(work, grace=None)
        listener.close()
        outcome = await run.wait()

    assert outcome.error == "server_stopped"
    assert work.cancels == 1


async def test_the_next_server_of_the_same_event_loop_is_served(shut: list[socket.socket]) -> None:
    """A program may replace its server by another one."""
    old, new = tcp("127.0.0.1"), tcp("127.0.0.1")
    shut += [old, new]
    async with site(grace=0) as it:
        page = await streaming(it, old.getsockname())
        old.close()
        await page.until(lambda: page.ended)
        await anyio.sleep(1)
        after = await streaming(it, new.getsockname())
        assert after.status == 200
        new.close()
        await after.until(lambda: after.ended)

    assert after.objects == [STOPPED]


# -- servers, stopped by the program that runs them


class Program:
    """A program that runs a server in a thread, and the bridge that it serves."""

    def __init__(self) -> None:
        self.works: list[ScriptedWork] = []
        self.bridge = SSEBridge(None, self._resolve)
        self.listener = tcp("127.0.0.1")
        self.port = self.listener.getsockname()[1]
        self.loop: asyncio.AbstractEventLoop | None = None

    async def _resolve(self, request: Request) -> ScriptedWork:
        with suppress(RuntimeError):
            self.loop = asyncio.get_running_loop()
        self.works.append(ScriptedWork())
        return self.works[-1]

    @contextmanager
    def streaming(self, run: Callable[[], object]) -> Iterator[Iterator[bytes]]:
        """Runs the server, yields a stream that has begun, and waits for the end of the server."""
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        with httpx.stream("GET", f"http://127.0.0.1:{self.port}/", timeout=10) as response:
            content = response.iter_raw()
            assert b"start" in next(content)
            yield content
        thread.join(10)
        assert not thread.is_alive()
        assert [work.cancels for work in self.works] == [1]


def is_told(content: Iterator[bytes]) -> bool:
    return b'"server_stopped"' in b"".join(content)


async def alone(serving: Coroutine[Any, Any, None]) -> None:
    await serving


async def among_others(serving: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(serving, asyncio.sleep(0))


async def in_a_task_group(serving: Coroutine[Any, Any, None]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alone, serving)


async def steps(serving: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    await serving
    yield


async def in_a_generator(serving: Coroutine[Any, Any, None]) -> None:
    async for _ in steps(serving):
        pass


def ask_to_exit(server: uvicorn.Server, program: Program) -> None:
    server.should_exit = True


def shut_down(server: uvicorn.Server, program: Program) -> None:
    assert program.loop is not None
    future = asyncio.run_coroutine_threadsafe(server.shutdown(), program.loop)
    future.add_done_callback(lambda _: ask_to_exit(server, program))


def close_listeners(server: uvicorn.Server, program: Program) -> None:
    assert program.loop is not None
    for one in server.servers:
        program.loop.call_soon_threadsafe(one.close)


def use_up(server: uvicorn.Server, program: Program) -> None:
    for _ in range(3):
        httpx.delete(f"http://127.0.0.1:{program.port}/")


@pytest.mark.parametrize("knows", ["sockets", "server", "both"])
@pytest.mark.parametrize("stop", [ask_to_exit, shut_down, close_listeners, use_up])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_ends_its_streams(stop: Any, loop: Any, knows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is told. Its server object is enough, and so are its sockets."""
    program = Program()
    if knows == "sockets":
        monkeypatch.setattr("sse_bridge.asgi.uvicorn.servers", list)
    if knows == "server":
        monkeypatch.setattr("sse_bridge.asgi.accepting.listening", lambda *address: [])
    limit = 3 if stop is use_up else None
    server = uvicorn.Server(uvicorn.Config(program.bridge, loop=loop, log_config=None, limit_max_requests=limit))

    with program.streaming(lambda: server.run(sockets=[program.listener])) as content:
        stop(server, program)
        assert is_told(content)
        if stop is close_listeners:
            ask_to_exit(server, program)


@pytest.mark.parametrize("way", [alone, among_others, in_a_task_group, in_a_generator])
def test_uvicorn_is_found_in_any_program(way: Callable[[Coroutine[Any, Any, None]], Awaitable[None]]) -> None:
    """The program may await it anywhere."""
    program = Program()
    server = uvicorn.Server(uvicorn.Config(program.bridge, log_config=None))

    with program.streaming(lambda: asyncio.run(way(server.serve(sockets=[program.listener])))) as content:  # type: ignore[arg-type]
        server.should_exit = True
        assert is_told(content)


class Held:
    """What a program has in a variable for a while."""


async def test_a_programs_variables_are_left_alone(anyio_backend: str) -> None:
    """Where uvicorn is loaded, its server is looked for in every task. What a task lets go of is gone."""
    gone: list[weakref.ref[Held]] = []
    looked, end = anyio.Event(), anyio.Event()

    async def program() -> None:
        held = Held()
        gone.append(weakref.ref(held))
        await looked.wait()
        del held
        await end.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program)
        await anyio.wait_all_tasks_blocked()
        assert not servers()
        looked.set()
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert gone[0]() is None
        end.set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_hypercorn_ends_its_streams(backend: str) -> None:
    """Its graceful timeout would cut them off."""
    program, stop = Program(), threading.Event()
    with program.streaming(lambda: run_hypercorn(program.bridge, program.listener, stop, backend, 10)) as content:
        stop.set()
        assert is_told(content)
