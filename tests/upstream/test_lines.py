"""`Lines`: output of the application's own, through a bridge."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from starlette.requests import Request

from sse_bridge import ConfigurationError, Exit, HTTPUpstream, KeyConflict, Lines, SSEBridge, UpstreamError
from tests.support.asgi import Page
from tests.support.site import Site, site

pytestmark = pytest.mark.anyio

SECRET = "msk_secret"


async def items(*yielded: Any) -> AsyncGenerator[Any]:
    for item in yielded:
        yield item


def resolving(source: Lines) -> Callable[[Request], Any]:
    async def resolve(request: Request) -> Lines:
        return source

    return resolve


async def page_of(source: Lines, **options: Any) -> Page:
    """The whole response to a page that follows `source`."""
    async with site(resolve=resolving(source), **options) as it:
        return await it.answer()


async def shown(*yielded: Any, chunks: bool = False) -> list[dict[str, Any]]:
    return (await page_of(Lines(items(*yielded), chunks=chunks))).objects


def out(line: str, stream: str = "stdout", **more: Any) -> dict[str, Any]:
    return {"type": stream, "line": line, **more}


# -- what is shown


@pytest.mark.parametrize(
    ("yielded", "lines"),
    [
        (["a", "b"], ["a", "b"]),
        (["a\n", b"b\n"], ["a", "b"]),
        (["a\nb\n", "c"], ["a", "b", "c"]),
        (["", "\n", "\n\n"], ["", "", "", ""]),
        (['{"exit_code": 3}', "[DONE]", "data: x"], ['{"exit_code": 3}', "[DONE]", "data: x"]),
        (["ü\u2028é\x00", "ü".encode()], ["ü\u2028é\x00", "ü"]),
        ([b"\xff!"], ["\ufffd!"]),
        (["\ud800"], ["\ud800"]),
        ([("stdout", "a"), ("stdout", b"b")], ["a", "b"]),
    ],
    ids=repr,
)
async def test_each_item_is_a_line(yielded: list[Any], lines: list[str]) -> None:
    """Or several. Whatever a line says, it is output."""
    assert await shown(*yielded) == [out(line) for line in lines]


async def test_a_pair_names_its_stream() -> None:
    """In the order in which they come."""
    assert await shown("a", ("stderr", "b"), "c") == [out("a"), out("b", "stderr"), out("c")]


async def test_pieces_are_joined_to_lines() -> None:
    """Also within a character, and for each stream by itself. What is left at the end is marked as unfinished."""
    pieces = [b"a\xc3", ("stderr", b"no\xc3"), b"\xbc\nb", ("stderr", b"\xa4\n"), b"", "c"]

    assert await shown(*pieces, chunks=True) == [out("aü"), out("noä", "stderr"), out("bc", partial=True)]


@pytest.mark.parametrize("end", [[], [Exit(0)]])
async def test_a_character_that_is_cut_off_at_the_end_is_shown_as_one(end: list[Any]) -> None:
    """As in a terminal: its bytes were printed."""
    said = await shown(b"a\xc3", ("stderr", b"\xe2\x82"), *end, chunks=True)

    assert said[:2] == [out("a\ufffd", partial=True), out("\ufffd", "stderr", partial=True)]


@pytest.mark.parametrize("code", [0, 3, -1, 255])
async def test_an_exit_ends_the_run_with_its_code(code: int) -> None:
    """What the iterable has behind it is not read, and it is closed."""
    closed = []

    async def printing() -> AsyncIterator[str | Exit]:
        try:
            yield "a"
            yield Exit(code)
            raise AssertionError
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append(True)

    assert (await page_of(Lines(printing()))).objects == [out("a"), {"type": "exit", "code": code}]
    assert closed


async def test_the_end_without_an_exit_is_no_error() -> None:
    """The state says that it ended, and a browser that comes back is sent away."""
    async with site(resolve=resolving(Lines(items("a")))) as it:
        page = await it.answer()
        run = page.headers["sse-bridge-run"]
        state = await it.answer(path=f"/{run}", accept="application/json")
        back = await it.answer(seen=f"{run}.1")

    assert page.objects == [out("a")]
    assert b'"state":"ended","code":null,"error":null' in state.content.replace(b" ", b"")
    assert back.status == 204


async def test_a_busy_iterable_lets_others_run() -> None:
    """Though it never waits."""
    yielded = most = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal yielded
        while True:
            yielded += 1
            yield "x"

    async with site(resolve=resolving(Lines(endless()))) as it:
        page = it.open()
        await page.until(lambda: page.content)
        for _ in range(100):
            before = yielded
            await anyio.lowlevel.checkpoint()
            most = max(most, yielded - before)
        page.leave()
        await it.bridge.shutdown()

    assert 0 < most <= 64


async def test_a_slow_viewer_holds_the_iterable_back() -> None:
    """As it would hold back a script."""
    yielded = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal yielded
        while True:
            yielded += 1
            yield "x" * 10_000

    async with site(resolve=resolving(Lines(endless()))) as it:
        page = it.open()
        page.stall()
        await anyio.wait_all_tasks_blocked()
        at_first = yielded
        await anyio.wait_all_tasks_blocked()
        page.leave()

        assert 0 < at_first == yielded < 1000
        await it.bridge.shutdown()


# -- how it ends


class Printing:
    """An iterable that yields a line and then waits, with what became of it."""

    def __init__(self) -> None:
        self.cancelled = False
        self.closed = False
        self.let_close = anyio.Event()
        self.let_close.set()

    async def read(self) -> AsyncGenerator[str]:
        try:
            yield "a"
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        finally:
            self.closed = True


async def following(it: Site) -> Page:
    page = it.open()
    await page.until(lambda: page.objects)
    return page


async def ended(it: Site, run: str) -> None:
    """Waits until the run has left no work running."""
    await it.answer("DELETE", f"/{run}")


async def test_a_viewer_that_leaves_ends_the_iterable() -> None:
    """Where it waits."""
    printing = Printing()
    async with site(resolve=resolving(Lines(printing.read())), grace=0) as it:
        page = await following(it)
        page.leave()
        await ended(it, page.headers["sse-bridge-run"])

        assert printing.cancelled
        assert printing.closed
        assert it.bridge.statistics().cancels.confirmed == 1


class Endless:
    """An iterator that is no generator."""

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await anyio.lowlevel.checkpoint()
        return "a"


async def test_an_iterator_is_closed_that_is_no_generator() -> None:
    """By its `aclose`, which is waited for."""

    class Pipe(Endless):
        closed = False

        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()
            self.closed = True

    pipe = Pipe()
    async with site(resolve=resolving(Lines(pipe)), grace=0) as it:
        page = await following(it)
        answer = await it.answer("DELETE", f"/{page.headers['sse-bridge-run']}")

    assert answer.status == 204
    assert pipe.closed


async def test_an_iterator_is_closed_behind_its_exit_although_a_viewer_is_slow() -> None:
    """Nothing is read behind an exit, so nothing waits for room."""

    class Container:
        left: ClassVar[list[Any]] = ["a", Exit(0)]
        closed = False

        def __aiter__(self) -> AsyncIterator[Any]:
            return self

        async def __anext__(self) -> Any:
            return self.left.pop(0)

        async def aclose(self) -> None:
            self.closed = True

    async def room() -> None:
        if not container.left:
            await anyio.sleep_forever()

    container = Container()
    work = Lines(container).work(HTTPUpstream(), None)
    with anyio.fail_after(5):
        async with work.stream() as stream:
            await stream.push(lambda frames: False, room)
    assert container.closed


async def test_what_fails_to_close_is_not_confirmed(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, and why."""

    class Stuck(Endless):
        async def aclose(self) -> None:
            raise OSError("device is busy")

    async with site(resolve=resolving(Lines(Stuck(), name="tape")), grace=0) as it:
        page = await following(it)
        await ended(it, page.headers["sse-bridge-run"])

        assert it.bridge.statistics().cancels.requested == 1
    assert "the iterable of Lines(chunks=False, name='tape') failed while it was closed" in caplog.text


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), ExceptionGroup(SECRET, [OSError(SECRET)])])
async def test_an_iterable_that_raises_ends_the_run(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The application's traceback is in the log; viewers learn only that it failed."""

    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise error

    page = await page_of(Lines(failing(), name="build"))

    failure = {"type": "error", "code": "source_failed", "message": "The source of the output failed."}
    assert page.objects == [out("a"), failure]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "the iterable of Lines(chunks=False, name='build') failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_an_upstream_error_reaches_the_viewers() -> None:
    """With the words that the application chose."""

    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise UpstreamError("The container is gone.", code="container_gone")

    failure = {"type": "error", "code": "container_gone", "message": "The container is gone."}
    assert (await page_of(Lines(failing()))).objects == [out("a"), failure]


@pytest.mark.parametrize(
    "item", [1, None, ("stdin", "a"), ("stdout", 1), ("stdout",), ["stdout", "a"], bytearray(b"a")]
)
async def test_an_item_of_another_kind_ends_the_run(item: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what an iterable may yield."""
    assert [body["type"] for body in await shown("a", item)] == ["stdout", "error"]
    assert "yields str, bytes, ('stdout' or 'stderr', str or bytes) or Exit(code), not " in caplog.text


# -- real parts


async def test_a_subprocess_is_followed_and_ended() -> None:
    """Lines of a real process, its exit code, and its end when the viewer leaves."""

    async def running(script: str) -> AsyncGenerator[bytes | Exit]:
        async with await anyio.open_process([sys.executable, "-uc", script]) as process:
            assert process.stdout is not None
            try:
                async for chunk in process.stdout:
                    yield chunk
                yield Exit(await process.wait())
            finally:
                if process.returncode is None:
                    process.kill()
                left.append(process)

    left: list[Any] = []
    whole = await page_of(Lines(running("for i in range(3): print('line', i)\nexit(7)"), chunks=True))
    source = Lines(running("print('ready')\nimport time\ntime.sleep(300)"), chunks=True)
    async with site(resolve=resolving(source), grace=0) as it:
        page = await following(it)
        page.leave()
        await ended(it, page.headers["sse-bridge-run"])

    assert whole.objects == [out("line 0"), out("line 1"), out("line 2"), {"type": "exit", "code": 7}]
    assert left[0].returncode == 7
    assert left[1].returncode in (-9, 255)  # asyncio's word for one that a second `kill()`, of anyio's, has reaped


# -- as a value


async def test_lines_of_one_name_are_one_source() -> None:
    """So that requests with one key share a run. Without a name, only the same iterable is."""
    first, second = items(), items()

    assert Lines(first, name="build") == Lines(second, name="build")
    assert Lines(first, name="build") != Lines(second, name="test")
    assert Lines(first, name="build") != Lines(first, name="build", chunks=True)
    assert Lines(first) == Lines(first)
    assert Lines(first) != Lines(second)


async def test_a_key_joins_lines_by_their_name() -> None:
    """From any code of the application."""
    bridge = SSEBridge(resolve=resolving(Lines(items())))
    run = await bridge.start(Lines(Printing().read(), name="build"), key="k")

    assert (await bridge.start(Lines(Printing().read(), name="build"), key="k")).token == run.token
    with pytest.raises(KeyConflict):
        await bridge.start(Lines(Printing().read(), name="test"), key="k")
    await bridge.shutdown()


async def test_a_generator_is_read_once() -> None:
    """A second run would be empty; the error says what to do."""
    source = Lines(items("a"), name="build")
    await page_of(source)

    with pytest.raises(ConfigurationError, match=r"was read to its end before\. Call its function again"):
        source.work(HTTPUpstream(), None)


@pytest.mark.parametrize(
    ("iterable", "remedy"),
    [
        (items, "Call it: Lines(items(...))."),
        (["a"], "Write an async generator that yields its items."),
        ((line for line in "ab"), "Write an async generator that yields its items."),
        ("a", "Write an async generator: an async def function with yield, called."),
        (None, "Write an async generator: an async def function with yield, called."),
        (Printing, "Write an async generator: an async def function with yield, called."),
    ],
    ids=["function", "list", "generator", "text", "None", "class"],
)
async def test_what_is_no_async_iterable_is_refused(iterable: Any, remedy: str) -> None:
    """The error says what to write."""
    with pytest.raises(ConfigurationError, match=r"^Lines needs an async iterable, not ") as caught:
        Lines(iterable)
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize(
    ("options", "name"), [({"chunks": 1}, "chunks"), ({"name": 1}, "name"), ({"name": b"a"}, "name")]
)
async def test_options_of_another_kind_are_refused(options: dict[str, Any], name: str) -> None:
    """When the source is made."""
    with pytest.raises(ConfigurationError, match=rf"^Lines\({name}=\.\.\.\) must be "):
        Lines(items(), **options)


@pytest.mark.parametrize("code", ["0", 1.0, None, True, float("nan")])
async def test_an_exit_code_is_a_whole_number(code: Any) -> None:
    """The error says what to write."""
    with pytest.raises(ConfigurationError, match=r"such as Exit\(0\)"):
        Exit(code)
