"""Shapes: what an upstream's objects mean, and which of them end a run.

`read` turns one event into its meaning. A `Shape` is the table it reads by: one for each kind of upstream. How a page
gets to see a meaning is the business of `mapping` and `dialects`. The shapes that were seen and that are documented
are listed in `docs/miosa.md`, section 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from .events import Event
from .objects import Body, read_object, without

__all__ = ["EVENT_STREAM", "EXEC", "SHAPES", "Exit", "Failure", "Meaning", "Other", "Output", "Shape", "read"]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How one kind of upstream writes its events."""

    name: str
    #: What an event's name, or an object's `type`, stands for: `stdout`, `stderr`, `exit`, `timeout`, `error` or
    #: `heartbeat`. Any other name is kept.
    kinds: Mapping[str, str]
    #: Keys of text, in the order in which they are looked for.
    text_keys: tuple[str, ...]
    #: The one of them whose text ends with a line. The others hold text that is cut anywhere.
    line_key: str
    #: Keys of an exit code.
    exit_keys: tuple[str, ...]
    #: Those that mean an exit whatever they hold. The others may hold anything (an error's word, a way out), and only
    #: a number makes them an exit.
    sure_exit_keys: tuple[str, ...]
    #: Values of `state` or `status` in a snapshot of something that still runs. Its exit code is null until it ends.
    running: tuple[str, ...]


#: A command's output.
EXEC: Final = Shape(
    name="exec",
    kinds={
        "stdout": "stdout",
        "stderr": "stderr",
        "output": "stdout",
        "exit": "exit",
        "error": "error",
        "timeout": "timeout",
        "timed_out": "timeout",
        "heartbeat": "heartbeat",
        "ping": "heartbeat",
        "keepalive": "heartbeat",
    },
    text_keys=("line", "data", "output"),
    line_key="line",
    exit_keys=("exit_code", "exitCode", "code", "exit"),
    sure_exit_keys=("exit_code", "exitCode"),
    running=("queued", "pending", "starting", "running"),
)
#: Any event stream. It is read as a command's output is.
EVENT_STREAM: Final = replace(EXEC, name="event_stream")
#: All shapes by their names.
SHAPES: Final[Mapping[str, Shape]] = {shape.name: shape for shape in (EXEC, EVENT_STREAM)}

_STREAMS: Final = frozenset({"stdout", "stderr"})
#: The key for a payload of plain text.
_KEY_OF_PLAIN_TEXT: Final = {"exit": "exit_code", "error": "message"}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_ERROR_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(slots=True)
class Output:
    """Text that the work printed."""

    #: `stdout` or `stderr`.
    stream: str
    text: str
    #: Whether `text` was cut anywhere. Otherwise it ends with a line.
    is_piece: bool
    #: What else the object held.
    rest: Body


@dataclass(slots=True)
class Exit:
    """The work has ended. Its `code` is a number or `None`: success takes an explicit zero."""

    body: Body


@dataclass(slots=True)
class Failure:
    """The upstream gave up, with a `code` and a `message`. The work may run on."""

    body: Body


@dataclass(slots=True)
class Other:
    """Anything else, under its own name."""

    kind: str
    body: Body


Meaning = Output | Exit | Failure | Other


def read(event: Event, shape: Shape) -> Meaning | None:
    """What an upstream's event means; `None` for heartbeats and for frames that lack data."""
    if event.data is None:
        return None
    body = read_object(event.data)
    if body is None:
        kind = shape.kinds.get(event.type, "stdout")
        body = {_KEY_OF_PLAIN_TEXT.get(kind, shape.line_key): event.data}
    else:
        kind = _kind(event.type, body, shape)
    if kind in _STREAMS:
        return _output(kind, body, shape)
    if kind == "exit":
        return Exit(_exit_body(body, shape))
    if kind == "timeout":
        return Exit(_exit_body({"exit_code": -1, **body, "timed_out": True}, shape))
    if kind == "error":
        return Failure(_error_body(body, shape))
    return None if kind == "heartbeat" else Other(kind, without(body, "type"))


def _kind(name: str, body: Body, shape: Shape) -> str:
    """The event's name decides; then what the body says; then what it looks like."""
    said = body.get("type")
    if name in ("", "message"):
        name = said if isinstance(said, str) else ""
    if known := shape.kinds.get(name):
        return known
    if _text_key(body, shape) is not None:
        return "stderr" if body.get("stream") == "stderr" else "stdout"
    if name not in ("", "message"):
        return name
    return "exit" if _is_exit(body, shape) else "stdout"


def _text_key(body: Body, shape: Shape) -> str | None:
    return next((key for key in shape.text_keys if isinstance(body.get(key), str)), None)


def _is_exit(body: Body, shape: Shape) -> bool:
    """Whether an unnamed object tells of an exit. The exit of a killed process may lack a number.

    An exit ends the run, so the number is only dispensable if all keys of a text are missing, too, and if the object
    is in a final state.
    """
    if any(_integer(body.get(key)) is not None for key in shape.exit_keys):
        return True
    goes_on = body.get("state") in shape.running or body.get("status") in shape.running
    return not goes_on and not body.keys() & {*shape.text_keys} and any(key in body for key in shape.sure_exit_keys)


def _output(stream: str, body: Body, shape: Shape) -> Output:
    """Shows a line of another type as JSON. A missing line is empty: some encoders leave out empty strings."""
    key = _text_key(body, shape)
    rest = without(body, "type", shape.line_key, key or shape.line_key)
    if key is not None:
        return Output(stream, body[key], key != shape.line_key, rest)
    line = body.get(shape.line_key)
    return Output(stream, "" if line is None else json.dumps(line), False, rest)


def _exit_body(body: Body, shape: Shape) -> Body:
    key = next((key for key in shape.exit_keys if _integer(body.get(key)) is not None), "code")
    return {"code": _integer(body.get(key)), **without(body, "type", "code", key)}


def _error_body(body: Body, shape: Shape) -> Body:
    """Finds code and message in the envelopes that platforms use: flat, or inside `error`."""
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else body
    word = inner if isinstance(inner, str) and _ERROR_CODE.fullmatch(inner) else None
    code = facts.get("code", word)
    texts = (facts.get("message"), body.get("detail"), body.get("reason"), inner, *map(body.get, shape.text_keys))
    message = next((text for text in texts if isinstance(text, str) and text), "The upstream reported an error.")
    said = {"code": "upstream_error" if code is None else str(code), "message": message}
    return {**said, **without(body, "type", "code", "message")}


def _integer(value: object) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
