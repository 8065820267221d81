"""`StandIn`: to what it runs it is the task, which sleeps on unless there is something to wait for."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from sse_bridge.relay.signal import Signal
from sse_bridge.relay.standin import StandIn

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


async def nothing() -> None:
    """Needs no wait."""


def call(act: Callable[[], Awaitable[None]]) -> Awaitable[None]:
    return act()


class Sleeper:
    """A task with a context of its own that waits for news, and goes on with what was begun in its place."""

    def __init__(self) -> None:
        self.news = Signal()
        self.wakes = 0
        #: What ended it.
        self.error: BaseException | None = None
        context = copy_context()
        self.task = asyncio.get_running_loop().create_task(self._sleep(StandIn, context), context=context)

    async def _sleep(self, make: type[StandIn], context: Any) -> None:
        NAME.set("sleeper")
        self.stand_in = make(context)
        try:
            while True:
                rest = await self.stand_in.wait(self.news.wait())
                self.wakes += 1
                if rest is not None:
                    await rest
        except BaseException as error:
            self.error = error
            raise

    async def does(self, act: Callable[[], Awaitable[None]]) -> bool:
        """Has the stand-in do something in a callback of the event loop; wakes the task if that is not done."""
        done: list[bool] = []

        def callback() -> None:
            done.append(self.stand_in.waits and self.stand_in.finishes(call, act))
            if not done[0]:
                self.news.notify()

        asyncio.get_running_loop().call_soon(callback)
        await rounds()
        return done[0]

    async def ended(self) -> None:
        """Cancels the task, and waits for its end."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def rounds(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def asleep() -> Sleeper:
    sleeper = Sleeper()
    await rounds()
    return sleeper


async def test_what_needs_no_wait_is_done_at_once_and_the_task_sleeps_on(anyio_backend: str) -> None:
    """With the task's identity and context."""
    sleeper, seen = await asleep(), []

    def act() -> Awaitable[None]:
        seen.append((asyncio.current_task(), NAME.get()))
        return change()

    async def change() -> None:
        seen.append((asyncio.current_task(), NAME.get()))
        NAME.set("changed")

    assert await sleeper.does(act)
    assert await sleeper.does(act)
    assert seen == [(sleeper.task, name) for name in ("sleeper", "sleeper", "changed", "changed")]
    assert NAME.get() == "nobody"
    assert sleeper.wakes == 0
    await sleeper.ended()


async def test_what_has_to_wait_goes_on_in_the_task(anyio_backend: str) -> None:
    """As if it had begun there: a context variable can be reset by its token."""
    sleeper, go_on, seen = await asleep(), anyio.Event(), []

    async def act() -> None:
        token = NAME.set("begun")
        await go_on.wait()
        seen.append((asyncio.current_task(), NAME.get()))
        NAME.reset(token)
        await asyncio.sleep(0)
        seen.append((asyncio.current_task(), NAME.get()))

    assert not await sleeper.does(act)
    assert seen == []
    go_on.set()
    await rounds()
    assert seen == [(sleeper.task, "begun"), (sleeper.task, "sleeper")]
    assert await sleeper.does(nothing)
    assert sleeper.wakes == 1
    await sleeper.ended()


async def test_a_step_that_only_lets_others_go_first_goes_on_in_the_task(anyio_backend: str) -> None:
    """`sleep(0)` waits for nothing."""
    sleeper, seen = await asleep(), []

    async def act() -> None:
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    assert not await sleeper.does(act)
    assert seen == [sleeper.task]
    await sleeper.ended()


async def test_while_the_task_is_busy_nothing_is_done_in_its_place(anyio_backend: str) -> None:
    """The caller wakes it, which does nothing then."""
    sleeper, go_on = await asleep(), anyio.Event()
    await sleeper.does(go_on.wait)
    called: list[bool] = []

    async def act() -> None:
        called.append(True)

    assert not await sleeper.does(act)
    assert called == []
    go_on.set()
    await rounds()
    assert await sleeper.does(act)
    assert called == [True]
    await sleeper.ended()


async def test_news_wake_the_task_for_other_things(anyio_backend: str) -> None:
    """Nothing was begun."""
    sleeper = await asleep()
    sleeper.news.notify()
    await rounds()

    assert sleeper.wakes == 1
    await sleeper.ended()


@pytest.mark.parametrize("where", ["before it is awaited", "at once", "after a wait"])
async def test_an_error_is_raised_in_the_task(anyio_backend: str, where: str) -> None:
    """Not in the callback."""
    sleeper = await asleep()

    async def failing() -> None:
        if where == "after a wait":
            await asyncio.sleep(0)
        raise BrokenPipeError("gone")

    def act() -> Awaitable[None]:
        if where == "before it is awaited":
            raise BrokenPipeError("gone")
        return failing()

    assert not await sleeper.does(act)
    with pytest.raises(BrokenPipeError, match="gone"):
        await sleeper.task


async def test_an_error_is_raised_once(anyio_backend: str) -> None:
    """A task may wait again after it."""
    context, news = copy_context(), Signal()
    raised: list[bool] = []

    def failing() -> Awaitable[None]:
        raise BrokenPipeError("gone")

    async def sleep() -> None:
        stand_in = StandIn(context)
        for _ in range(2):
            asyncio.get_running_loop().call_soon(news.notify)
            if not raised:
                asyncio.get_running_loop().call_soon(stand_in.finishes, call, failing)
            try:
                await stand_in.wait(news.wait())
            except BrokenPipeError:
                raised.append(True)

    await asyncio.get_running_loop().create_task(sleep(), context=context)

    assert raised == [True]


class Custom:
    """An awaitable of another kind, such as granian's."""

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self.done = False

    def __await__(self) -> Generator[Any, None, None]:
        if self.waits:
            yield
        self.done = True


@pytest.mark.parametrize("waits", [False, True])
async def test_any_awaitable_will_do(anyio_backend: str, waits: bool) -> None:
    """ASGI asks for nothing more."""
    sleeper, custom = await asleep(), Custom(waits)

    assert await sleeper.does(lambda: custom) is not waits
    assert custom.done
    await sleeper.ended()


async def test_a_future_will_do(anyio_backend: str) -> None:
    """One that is done is not waited for."""
    sleeper = await asleep()
    future = asyncio.get_running_loop().create_future()
    assert not await sleeper.does(lambda: future)
    future.set_result(None)
    await rounds()
    assert await sleeper.does(lambda: future)
    await sleeper.ended()


@pytest.mark.parametrize("kind", ["future", "task"])
async def test_several_may_wait_for_the_same(anyio_backend: str, kind: str) -> None:
    """Three tasks whose `send`s await one future, and a fourth task that awaits it between callback and wake-up."""
    loop = asyncio.get_running_loop()
    gate = anyio.Event()
    shared = loop.create_future() if kind == "future" else loop.create_task(gate.wait())
    sleepers = [await asleep() for _ in range(3)]
    done: list[int] = []

    async def act(number: int) -> None:
        await shared
        done.append(number)

    def callback() -> None:
        for number, sleeper in enumerate(sleepers):
            assert not sleeper.stand_in.finishes(act, number)
            sleeper.news.notify()

    loop.call_soon(callback)
    other = loop.create_task(act(3))
    await rounds()
    gate.set()
    if kind == "future":
        shared.set_result(None)
    await rounds()

    assert sorted(done) == [0, 1, 2, 3]
    await other
    for sleeper in sleepers:
        assert await sleeper.does(nothing)
        await sleeper.ended()


async def test_a_stop_iteration_is_an_error(anyio_backend: str) -> None:
    """As in any coroutine: of a `send` that is a plain function."""
    sleeper = await asleep()

    def act() -> Awaitable[None]:
        raise StopIteration

    assert not await sleeper.does(act)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await sleeper.task


async def test_another_thread_may_do_the_same_at_that_moment(anyio_backend: str) -> None:
    """Each event loop has stand-ins of its own."""
    sleeper, done = await asleep(), []

    async def does() -> bool:
        other = await asleep()
        is_done = await other.does(nothing)
        await other.ended()
        return is_done

    def act() -> Awaitable[None]:
        thread = threading.Thread(target=lambda: done.append(asyncio.run(does())))
        thread.start()
        thread.join()
        return nothing()

    assert await sleeper.does(act)
    assert done == [True]
    await sleeper.ended()


@pytest.mark.parametrize("waits", [False, True])
async def test_nothing_is_kept_of_what_is_done(anyio_backend: str, waits: bool) -> None:
    """It may hold a response of megabytes, and a request."""
    sleeper = await asleep()

    class Act:
        async def __call__(self) -> None:
            await asyncio.sleep(0) if waits else None

    act = Act()
    gone = weakref.ref(act)
    assert await sleeper.does(act) is not waits
    del act
    await rounds()

    assert gone() is None
    await sleeper.ended()


# -- cancellation --------------------------------------------------------------------------------------------------


async def test_a_task_that_is_cancelled_while_it_sleeps_ends(anyio_backend: str) -> None:
    """Nothing was begun, and nothing can begin any more."""
    sleeper = await asleep()
    await sleeper.ended()

    assert isinstance(sleeper.error, asyncio.CancelledError)
    assert not await sleeper.does(lambda: pytest.fail("the task is over"))


@pytest.mark.parametrize("waits_for", ["a future", "a task", "nothing"])
@pytest.mark.parametrize("swallows", [False, True])
async def test_a_cancellation_before_the_task_has_gone_on_meets_what_was_begun(
    anyio_backend: str, waits_for: str, swallows: bool
) -> None:
    """As if the task had begun it: what it waits for is cancelled, and it gets the error where it waits, once."""
    sleeper, seen = await asleep(), []
    future = asyncio.get_running_loop().create_future()
    inner = asyncio.ensure_future(asyncio.sleep(1000))

    async def act() -> None:
        try:
            if waits_for == "nothing":
                await asyncio.sleep(0)
            else:
                await (future if waits_for == "a future" else inner)
        except asyncio.CancelledError as error:
            seen.append(error.args)
            await asyncio.sleep(0)
            if not swallows:
                raise
        seen.append(("went on",))

    def callback() -> None:
        assert not sleeper.stand_in.finishes(call, act)
        sleeper.news.notify()
        sleeper.task.cancel("for this")

    asyncio.get_running_loop().call_soon(callback)
    await rounds(10)

    assert len(seen) == 1 + swallows
    assert seen[0] == ("for this",) or waits_for == "a task"  # tasks keep the word for themselves
    assert future.cancelled() is (waits_for == "a future")
    assert inner.cancelled() is (waits_for == "a task")
    if swallows:
        assert await sleeper.does(nothing)
        await sleeper.ended()
    else:
        assert isinstance(sleeper.error, asyncio.CancelledError)
    inner.cancel()


async def test_any_number_of_cancellations_may_be_swallowed(anyio_backend: str) -> None:
    """A server may insist on finishing a write."""
    sleeper, swallowed, is_over = await asleep(), 0, False

    async def act() -> None:
        nonlocal swallowed
        while not is_over:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                swallowed += 1

    await sleeper.does(act)
    for _ in range(3000):
        sleeper.task.cancel()
        await rounds(2)
    is_over = True
    sleeper.task.cancel()
    await rounds()

    assert swallowed == 3001
    assert await sleeper.does(nothing)
    await sleeper.ended()


async def test_a_cancelled_task_does_not_raise_what_has_failed_in_its_place(anyio_backend: str) -> None:
    """Both happen before it goes on. It is cancelled."""
    sleeper = await asleep()

    def failing() -> Awaitable[None]:
        raise BrokenPipeError("gone")

    def callback() -> None:
        sleeper.stand_in.finishes(call, failing)
        sleeper.news.notify()
        sleeper.task.cancel()

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.wait([sleeper.task])

    assert isinstance(sleeper.error, asyncio.CancelledError)


async def test_timeouts_work_in_what_was_begun(anyio_backend: str) -> None:
    """They begin in the callback, and end in the task: anyio's and asyncio's."""
    sleeper, seen, done = await asleep(), [], anyio.Event()

    async def act() -> None:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        seen.append(scope.cancelled_caught)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(1000)
        seen.append(True)
        done.set()

    await sleeper.does(act)
    with anyio.fail_after(10):
        await done.wait()

    assert seen == [True, True]
    assert await sleeper.does(nothing)
    await sleeper.ended()


async def test_a_scope_may_be_cancelled_by_what_is_done_in_it(anyio_backend: str) -> None:
    """The task leaves its scope then, as when it had done it itself."""
    left: list[bool] = []
    news, context = Signal(), copy_context()
    made: list[StandIn] = []
    scope = anyio.CancelScope()

    async def sleep() -> None:
        made.append(StandIn(context))
        with scope:
            await made[0].wait(news.wait())
        left.append(scope.cancelled_caught)

    async def act() -> None:
        scope.cancel()

    task = asyncio.get_running_loop().create_task(sleep(), context=context)
    await rounds()
    asyncio.get_running_loop().call_soon(made[0].finishes, call, act)
    await asyncio.wait([task])

    assert left == [True]


async def test_only_a_task_has_a_stand_in(anyio_backend: str) -> None:
    """A callback has none."""
    errors: list[str] = []

    def make() -> None:
        try:
            StandIn(copy_context())
        except RuntimeError as error:
            errors.append(str(error))

    asyncio.get_running_loop().call_soon(make)
    await rounds()

    assert errors == ["a task of asyncio's has to make its own stand-in"]
