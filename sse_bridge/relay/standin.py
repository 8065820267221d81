"""Doing what a waiting asyncio task would do, without waking it.

To wake a task, asyncio makes a future and a handle and resumes the task, for each line to each viewer. The line needs
none of that. So the callback that has the line calls the viewer's `send` in the task's place. Nearly always `send`
returns without waiting, and the task sleeps on. If `send` has to wait, the task is woken and awaits the rest.

To the code that runs, this is the task: `asyncio.current_task` and the context variables are the task's. A cancellation
meets it wherever it waits.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from types import CoroutineType, coroutine
from typing import Any, Final, TypeVar

__all__ = ["StandIn"]

T = TypeVar("T")
Calls = Generator[Any, Any, None]


class StandIn:
    """Stands in for the running task while that waits. Only one at a time may stand in for a task.

    `_enter_task` and `_leave_task` are made for this: "Extending" in the documentation of asyncio.

    Args:
        context: the task's own. `Task.get_context` comes with Python 3.12.

    Raises:
        RuntimeError: no task of asyncio's runs.
    """

    __slots__ = ("_begun", "_context", "_failure", "_loop", "_task", "waits")

    def __init__(self, context: Context) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a task of asyncio's has to make its own stand-in")
        self._task = task
        self._loop = task.get_loop()
        self._context = context
        self._begun: tuple[Calls, Any] | None = None  # and what it waits for
        self._failure: BaseException | None = None
        #: Whether `finishes` may be called: the task waits, and nothing has begun in its place. A caller that wakes the
        #: task sets this to `False`, and the task then sends everything itself until it waits again.
        self.waits = False

    def finishes(self, function: Callable[[T], Awaitable[None]], argument: T) -> bool:
        """Awaits `function(argument)` in the task's place while it `waits`. Says whether that is done.

        If it is not, because it has to wait or has failed, wake the task. It goes on there: see `wait`.

        Raises:
            RuntimeError: a task is running.
        """
        loop, task = self._loop, self._task
        _enter_task(loop, task)
        try:
            try:
                steps = _idle.pop()
            except IndexError:
                steps = _calls()
                steps.send(None)
            awaited = self._context.run(steps.send, (function, argument))
            if awaited is _DONE:
                _idle.append(steps)
                return True
            _note(awaited, False)  # others may wait for it before the task does
            self._begun = steps, awaited
        except BaseException as error:
            self._failure = error
        finally:
            _leave_task(loop, task)
        self.waits = False
        return False

    async def wait(self, news: Awaitable[None]) -> Awaitable[None] | None:
        """Waits for news, in the task.

        Returns:
            What `finishes` has begun and not finished.

        Raises:
            BaseException: what it has begun has failed.
        """
        self.waits = True
        try:
            await news
        except asyncio.CancelledError as error:
            if self._begun is None:
                raise
            (steps, awaited), self._begun = self._begun, None
            # As `Task.cancel` does: what is awaited passes the cancellation on.
            is_passed_on = asyncio.isfuture(awaited) and awaited.cancel(*error.args)
            return _rest(steps, awaited, None if is_passed_on else error)
        finally:
            self.waits = False
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                self._failure = None
        begun, self._begun = self._begun, None
        return None if begun is None else _rest(*begun, None)


#: What `_calls` yields when it is ready for the next call.
_DONE: Final = object()


@coroutine
def _calls() -> Calls:
    """Awaits one call after another. A coroutine of its own for each call would raise `StopIteration` at its end."""
    while True:
        function, argument = yield _DONE
        awaitable = function(argument)
        steps: Any = awaitable if type(awaitable) is CoroutineType else _as_coroutine(awaitable)
        yield from steps
        del function, argument, awaitable, steps


#: Coroutines of `_calls` that wait for the next call. All threads take them from here, each one for itself.
_idle: Final[list[Calls]] = []


def _note(awaited: Any, is_yielded: bool) -> None:
    """Marks a future that an `await` yielded. A task takes the mark back, and a second `await` refuses a marked one."""
    if asyncio.isfuture(awaited):
        awaited._asyncio_future_blocking = is_yielded


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


@coroutine
def _rest(steps: Calls, awaited: Any, error: BaseException | None) -> Generator[Any, None, None]:
    """Goes on with a call that waits for `awaited`, or throws an error at it where it waits."""
    while True:
        if error is None:
            _note(awaited, True)
            try:
                yield awaited
            except BaseException as thrown:
                error = thrown
        awaited = steps.send(None) if error is None else steps.throw(error)
        if awaited is _DONE:
            return
        error = None
