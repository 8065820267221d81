"""Shapes: what an upstream's objects mean, and which of them end a run.

`read` turns one event into its meaning. A `Shape` is the table it reads by: one for each kind of upstream. How a page
gets to see a meaning is the business of `mapping` and `dialects`; `failures` tells which objects report an error, and
`exits` finds exit codes.
The shapes that were seen and that are documented are listed in `docs/miosa.md`, section 3.

Only facts end a run: an exit code under one of the `sure_exit_keys`, and events that are called an exit, a timeout or
an error. An event that is called an output is output, whatever it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from .events import Event
from .exits import OTHER_EXIT_KEYS, STREAM_FAILED, exit_body, has_failed, integer, with_code
from .failures import failure_body, is_failure
from .objects import Body, read_object, read_value, without
from .salvage import salvage

__all__ = [
    "EVENT_STREAM",
    "EXEC",
    "HOST_JOB",
    "OUTPUTS",
    "DialectName",
    "Exit",
    "Failure",
    "Meaning",
    "Other",
    "Output",
    "Shape",
    "brief",
    "facts",
    "read",
]

#: What a dialect is called (see `dialects`).
DialectName: TypeAlias = Literal["typed", "named", "verbatim"]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How one kind of upstream writes its events."""

    #: What an event's name, or an object's `type`, stands for: `stdout`, `stderr`, `output` or `log` (of either
    #: stream), `exit`, `timeout`, `error` or `heartbeat`. Any other name is kept.
    kinds: Mapping[str, str]
    #: Keys of text, in the order in which they are looked for.
    text_keys: tuple[str, ...]
    #: The one of them whose text ends with a line. The others hold text that is cut anywhere.
    line_key: str
    #: Keys of a log's lines. In an event that is called `stdout` they count only if the object names its stream, too:
    #: otherwise it may be JSON that the script printed.
    log_keys: tuple[str, ...]
    #: Keys of the object's own word for the stream.
    stream_keys: tuple[str, ...]
    #: Keys of an exit code, in an event that is called an exit.
    exit_keys: tuple[str, ...]
    #: Those that say exit in every event, unless it is called an output.
    sure_exit_keys: tuple[str, ...]
    #: Values of `state` or `status` in a snapshot of something that still runs. Its exit code is null until it ends.
    running: tuple[str, ...]
    #: Whether the stream is about one command. Text is its output then under any name, and an object that holds
    #: the words of an error is one. In other streams these are data, unless they are unmistakable.
    is_command: bool
    #: Texts that say that the stream is over.
    end_marks: tuple[str, ...]
    #: The dialect of a run, unless the bridge was made with one: `typed`, `named` or `verbatim`.
    dialect: DialectName
    #: Whether the upstream keeps to this table. Then an event's name alone says what the event is, whatever its object
    #: holds; and an output with a null for its text is empty, rather than something that the script printed.
    is_strict: bool = False
    #: Values of `reason` that make an error a timeout.
    timeout_reasons: tuple[str, ...] = ()


#: A command's output.
EXEC: Final = Shape(
    kinds={
        "stdout": "stdout",
        "stderr": "stderr",
        "sandbox.exec.stdout": "stdout",
        "sandbox.exec.stderr": "stderr",
        "output": "output",
        "chunk": "output",
        "exec_chunk": "output",
        "log": "log",
        "exit": "exit",
        "exec_result": "exit",
        "error": "error",
        "exec_error": "error",
        "timeout": "timeout",
        "timed_out": "timeout",
        "heartbeat": "heartbeat",
        "ping": "heartbeat",
        "keepalive": "heartbeat",
    },
    text_keys=("line", "text", "data", "output"),
    line_key="line",
    log_keys=("message",),
    stream_keys=("stream", "fd", "channel", "source"),
    exit_keys=("exit_code", "exitCode", "code", "exit"),
    sure_exit_keys=("exit_code", "exitCode"),
    running=("queued", "pending", "starting", "running"),
    is_command=True,
    end_marks=(),
    dialect="typed",
)
#: Any event stream. A command's output is read as such; other events stay what they are.
EVENT_STREAM: Final = replace(EXEC, is_command=False, end_marks=("[DONE]",), dialect="verbatim")
#: The output of a job on a host. Its three events hold nothing that tells them apart, so their names have to.
HOST_JOB: Final = replace(
    EXEC,
    kinds={
        "exec_chunk": "output",
        "exec_result": "exit",
        "exec_error": "error",
        # The platform sends none of these. But all shapes read a plain frame alike (see `plain`), and pages take an
        # exit or an error for the end.
        "stdout": "stdout",
        "stderr": "stderr",
        "exit": "exit",
        "error": "error",
    },
    text_keys=("line", "data"),
    log_keys=(),
    stream_keys=("stream",),
    exit_keys=("exit_code",),
    sure_exit_keys=(),
    is_strict=True,
    timeout_reasons=("timeout",),
)

_UNNAMED: Final = ("", "message")
#: The kinds that are output.
OUTPUTS: Final = frozenset({"stdout", "stderr", "output", "log"})
_ENDINGS: Final = frozenset({"exit", "timeout", "error"})
#: The key for a payload of plain text.
_KEY_OF_PLAIN_TEXT: Final = {"exit": "exit_code", "error": "message"}
#: An object's own words for the two streams. Numbers are file descriptors.
_STREAMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("stdout", "out", "1", "standard_output"), "stdout"),
    **dict.fromkeys(("stderr", "err", "2", "standard_error"), "stderr"),
}
#: Characters of a stream's name that tell it from another one.
_MAX_WORD: Final = 32
_STATES: Final = frozenset({"state", "status", "timed_out", "error", "message"})


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
    #: The upstream's own name of the stream. Pieces of different streams never meet in one line.
    origin: str = ""


@dataclass(slots=True)
class Exit:
    """The work has ended. Its `code` is a number or `None`: success takes an explicit zero."""

    body: Body
    #: Text that the same object held.
    output: Output | None = None


@dataclass(slots=True)
class Failure:
    """The upstream gave up, with a `code` and a `message`. The work may run on."""

    body: Body
    #: Text that the same object held.
    output: Output | None = None


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
    return _read_text(event.type, event.data, shape) if body is None else _read_object(event, body, shape)


@lru_cache
def facts(shape: Shape) -> frozenset[str]:
    """The keys on which it depends whether an object ends a run, and how."""
    return _STATES | {"type", "reason", *OTHER_EXIT_KEYS, *shape.text_keys, *shape.exit_keys, *shape.sure_exit_keys}


def brief(ending: Exit | Failure) -> Exit | Failure:
    """An ending whose object was too large to keep: its code, and how it came."""
    keys = ("code", "timed_out") if isinstance(ending, Exit) else ("code", "message")
    return replace(ending, body={key: ending.body[key] for key in keys if key in ending.body}, output=None)


# -- objects


def _read_object(event: Event, body: Body, shape: Shape) -> Meaning | None:
    """The event's name decides, then the object's `type`; then what the object holds, unless the shape is strict."""
    name = _name(event.type, {} if shape.is_strict else body)
    kind = shape.kinds.get(name)
    if kind in OUTPUTS:
        return _named_output(kind, event.data or "", body, shape)
    if shape.is_strict and kind is None:
        return Other(name or "message", without(body, "type"))
    if ending := _ending(kind, name, body, shape):
        return ending
    if kind == "heartbeat":
        return None
    return _text(_text_keys(name, shape), "", body, shape) or Other(name or "message", without(body, "type"))


def _name(event_name: str, body: Body) -> str:
    """The event's name, else its object's `type`; empty if it has neither."""
    said = body.get("type")
    name = event_name if event_name not in _UNNAMED else said if isinstance(said, str) else ""
    return "" if name in _UNNAMED else name


def _ending(kind: str | None, name: str, body: Body, shape: Shape) -> Exit | Failure | None:
    if kind == "timeout" or (kind == "error" and body.get("reason") in shape.timeout_reasons):
        said = exit_body({"exit_code": -1, **body, "timed_out": True}, shape.exit_keys)
        return Exit(said) if said["code"] != STREAM_FAILED else Failure(failure_body(body, shape.text_keys))
    is_exit = kind == "exit" or _is_exit(name, body, shape)
    if not (is_exit or kind == "error" or is_failure(body, name, is_command=shape.is_command)):
        return None
    output = None if name else _text(shape.text_keys, "", body, shape)
    if is_exit:
        body = with_code(body, shape.exit_keys) if kind == "exit" else body
        said = exit_body(without(body, *shape.text_keys) if output else body, shape.exit_keys)
        if not has_failed(said["code"], body.get("error")):
            return Exit(said, output)
    return Failure(failure_body(body, shape.text_keys), output)


def _is_exit(name: str, body: Body, shape: Shape) -> bool:
    """Whether an object tells of an exit, whatever its event is called. The exit of a killed process may lack a number.

    An exit ends the run, so the number is only dispensable if the event is unnamed, if all keys of a text are missing,
    and if the object is in a final state.
    """
    codes = [body[key] for key in shape.sure_exit_keys if key in body]
    if any(integer(code) is not None for code in codes):
        return True
    goes_on = body.get("state") in shape.running or body.get("status") in shape.running
    return bool(codes) and not name and not goes_on and not body.keys() & {*shape.text_keys}


# -- output


def _named_output(kind: str, text: str, body: Body, shape: Shape) -> Output:
    """An object in an event that is called an output. One without a text of the platform's was printed by the script,
    and is shown as it stands."""
    if output := _text(shape.text_keys, kind, body, shape):
        return output
    is_log = kind == "log" or any(word.lower() in _STREAMS for word in _words(body, shape))
    if is_log and (output := _text(shape.log_keys, kind, body, shape)):
        return output
    if shape.is_strict and any(key in body and body[key] is None for key in shape.text_keys):
        return Output(_stream(kind, body, shape)[0], "", True, {})
    line = body.get(shape.line_key)
    if line is None:
        return Output(_stream(kind, {}, shape)[0], text, False, {})
    stream, origin = _stream(kind, body, shape)
    return Output(stream, json.dumps(line), False, without(body, "type", shape.line_key), origin)


def _text_keys(name: str, shape: Shape) -> tuple[str, ...]:
    """The keys whose text is output in an event that is not called one."""
    if not name:
        return (*shape.text_keys, *shape.log_keys)
    return shape.text_keys if shape.is_command else (shape.line_key,)


def _text(keys: tuple[str, ...], kind: str, body: Body, shape: Shape) -> Output | None:
    key = next((key for key in keys if isinstance(body.get(key), str)), None)
    if key is None:
        return None
    stream, origin = _stream(kind, body, shape)
    is_piece = key != shape.line_key and key not in shape.log_keys
    return Output(stream, body[key], is_piece, without(body, "type", shape.line_key, key), origin)


def _stream(kind: str, body: Body, shape: Shape) -> tuple[str, str]:
    """The stream, and its name if that is another than ours.

    The object's own word counts; then the event's name, then the object's `type`. A stream of another name goes under
    stdout, or under what the event is called.
    """
    words = _words(body, shape)
    for word in words:
        if known := _STREAMS.get(word.lower()):
            return known, ""
    said = None if shape.is_strict else body.get("type")
    stream = kind if kind in ("stdout", "stderr") else "stderr" if said == "stderr" else "stdout"
    return stream, words[0][:_MAX_WORD] if words else ""


def _words(body: Body, shape: Shape) -> list[str]:
    """The object's own words for its stream."""
    return [word for key in shape.stream_keys if (word := _word(body.get(key)))]


def _word(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) else ""


# -- text that is no JSON object, or none that a browser would read


def _read_text(name: str, text: str, shape: Shape) -> Meaning | None:
    """An ending counts even if a browser would refuse what stands beside it. All else is shown as it stands."""
    kind = shape.kinds.get(name)
    if shape.is_strict and kind is None:
        return Other("message" if name in _UNNAMED else name, {"data": text})
    if kind == "exit":
        text = _bare(text)
        if (body := read_object(text)) is not None:
            return _read_object(Event(name), body, shape)
    found = salvage(text, facts(shape))
    if found is not None and kind not in OUTPUTS and (found.is_whole or kind in _ENDINGS):
        said = _name(name, found.body)
        if ending := _ending(shape.kinds.get(said), said, found.body, shape):
            return replace(ending, body=_certain(ending.body))
    if kind in _ENDINGS:
        return _ending(kind, name, {_KEY_OF_PLAIN_TEXT.get(kind, shape.line_key): text}, shape)
    if kind == "heartbeat" or (kind not in OUTPUTS and text.strip() in shape.end_marks):
        return None
    body = found.body if found is not None and found.is_whole else {}
    return _shown(name, kind or "", text, body, shape)


def _bare(text: str) -> str:
    """The text of an exit without a byte order mark, a list of one, and quotes around an object or a word."""
    text = text.strip("\ufeff \t\r\n")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].strip()
    said = read_value(text) if text.startswith('"') else None
    return said.strip() if isinstance(said, str) else text.strip('"')


def _certain(body: Body) -> Body:
    """What is known of salvaged members: nested ones may have been cut."""
    return {key: value for key, value in body.items() if key == "code" or isinstance(value, str | int | float)}


def _shown(name: str, kind: str, text: str, body: Body, shape: Shape) -> Output | Other:
    """Text as it stands. A `body` says whose it is, if it is an object."""
    is_unnamed = name in _UNNAMED
    holds_text = any(isinstance(body.get(key), str) for key in shape.text_keys)
    is_line = (text or shape.is_command) and not body if is_unnamed else text and shape.is_command
    if kind in OUTPUTS or holds_text or is_line:
        stream, origin = _stream(kind, body if holds_text else {}, shape)
        return Output(stream, text, False, {}, origin)
    return Other("message" if is_unnamed else name, {"data": text})
