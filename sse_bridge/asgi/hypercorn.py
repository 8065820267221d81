"""What is special about hypercorn: how its workers hear of a stop, what SIGTERM does to them, and how a client leaves.

A worker gets no signal at a stop, but an event of `multiprocessing`, which it polls in a task ten times a second. The
end of that task is the first sign of a stop, and asyncio reports it. The application itself would hear of it only when
its requests are cancelled: after the graceful timeout (3 s) before Python 3.12, and never from 3.12 on. On trio, see
`accepting`.

As soon as one worker has ended, hypercorn sends SIGTERM to the others, which ends them at once: they leave it at its
default. An idle worker ends within a tenth of a second, so those with streams would leave their commands running.

hypercorn says once that a client has left, and its `send` discards in silence from then on.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .coroutines import coroutines, frames
from .messages import Message, Scope, Send
from .signals import Patience, Reaction

__all__ = ["at_default", "knows_of_leaving", "sending", "stream_of", "watch"]


def watch(stop: Callable[[], None], over: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Calls `stop` on the event loop when the hypercorn that runs on it begins to stop. Ignores other servers.

    Args:
        over: returns once there is no work left that no request waits for. hypercorn waits for its requests only, and
            its event loop would end in the midst of ending such work. It is made to wait for this as well.
    """
    trigger = getattr(sys.modules.get("hypercorn.utils"), "raise_shutdown", None)
    if trigger is None:
        return
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # trio
        return
    for task in tasks:
        if getattr(task.get_coro(), "cr_code", None) is trigger.__code__:
            task.add_done_callback(lambda _: _stop(stop, over))


def _stop(stop: Callable[[], None], over: Callable[[], Coroutine[Any, Any, object]]) -> None:
    stop()
    for frame in frames():
        if frame.f_code.co_name == "worker_serve" and "server_tasks" in frame.f_locals:
            # hypercorn gathers this set once its listeners are closed, for `graceful_timeout` at most.
            frame.f_locals["server_tasks"].add(asyncio.ensure_future(over()))


def at_default() -> dict[int, Reaction]:
    """What ends one of hypercorn's workers, as SIGTERM does by default. Empty for other servers."""
    is_worker = "hypercorn.utils" in sys.modules and multiprocessing.parent_process() is not None
    return {signal.SIGTERM: Reaction(_end_process, Patience.NOTHING)} if is_worker else {}


def _end_process(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


# -- the stream of a request


def stream_of(scope: Scope) -> Any:
    """hypercorn's stream of a request; `None` under other servers.

    The scope does not lead to it, and every framework wraps hypercorn's `send`, which does. So it is found in the task
    in which hypercorn began the request. That is the running task, unless middleware has moved on to a task of its own.
    """
    kind: Any = getattr(sys.modules.get("hypercorn.protocol.http_stream"), "HTTPStream", None)
    for coroutine in coroutines() if kind is not None else ():
        if getattr(getattr(coroutine, "cr_code", None), "co_name", "") == "_handle" and coroutine.cr_frame is not None:
            stream = getattr(coroutine.cr_frame.f_locals.get("send"), "__self__", None)
            # Middleware may copy the scope, but the state in it stays the request's own.
            if isinstance(stream, kind) and _state(stream.scope) is _state(scope):
                return stream
    return None


def knows_of_leaving(scope: Scope) -> Callable[[], bool]:
    """Returns a function that says whether hypercorn knows that the client has left; for other servers it says no."""
    stream = stream_of(scope)
    return _no if stream is None else lambda: bool(stream.closed)


def sending(send: Send, has_left: Callable[[], bool]) -> Send:
    """A `send` that raises `OSError` once the client has left (ASGI HTTP 2.4). hypercorn's own discards in silence."""
    if has_left is _no:
        return send

    def sends(message: Message) -> Awaitable[None]:
        if has_left():
            raise BrokenPipeError("the client has left")
        return send(message)

    return sends


def _no() -> bool:
    return False


def _state(scope: Scope) -> object:
    return scope.get("state", scope)
