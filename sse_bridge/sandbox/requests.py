"""Reads what clients send: bodies of bounded size, checked value by value before a route acts on them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeGuard

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, invalid, missing

__all__ = [
    "MAX_BODY",
    "MAX_UPLOAD",
    "ExecRequest",
    "encoded",
    "environment",
    "integer",
    "json_object",
    "mapping",
    "optional_text",
    "seconds",
    "tail_of",
    "text",
]

#: Bytes. Enough for any command: a single argument is limited to 128 KiB on Linux.
MAX_BODY: Final = 1024 * 1024
#: Bytes, base64 included. The whole body is held in memory.
MAX_UPLOAD: Final = 64 * 1024 * 1024

#: Levels of objects and arrays in a body. Python's parser and its encoder give up at depths of their own, which depend
#: on the depth of the stack, so what one route accepts another could fail to send back.
_MAX_DEPTH: Final = 64
#: Seconds, some thirty years: a limit that floats and clocks handle.
_MAX_SECONDS: Final = 1e9
#: Seconds that a command may take: MIOSA's own limit (`docs/miosa.md` §4).
_MAX_TIMEOUT: Final = 86_400
#: Milliseconds that a command waits for its sandbox with `wait`: MIOSA's default, and its limit.
_WAIT: Final = 30_000
_MAX_WAIT: Final = 120_000
#: Lines of a log, and how clients write a number of them.
_TAIL: Final = 200
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")


async def json_object(request: Request, limit: int = MAX_BODY) -> dict[str, object]:
    """The request's body, which has to be a JSON object; an absent body counts as an empty object.

    Args:
        request: its body must be unread.
        limit: bytes.

    Raises:
        ApiError: 413 for a body above the limit, 400 for invalid JSON, 422 for JSON other than an object.
    """
    body = await _read(request, limit)
    try:
        value = _strict_json(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "INVALID_JSON", "the body is not JSON") from error
    if _is_deep(value):
        raise ApiError(400, "INVALID_JSON", f"the body must not be nested deeper than {_MAX_DEPTH} levels")
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object", field="body")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for each in level if isinstance(each, dict | list) for inner in _members(each)]
    return any(isinstance(each, dict | list) for each in level)


def _members(value: dict[str, object] | list[object]) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value


async def _read(request: Request, limit: int) -> bytes:
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise ApiError(413, "TOO_LARGE", f"the body must not exceed {limit} bytes")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise ApiError(400, "INCOMPLETE_BODY", "the client left before its body was complete") from error
    return b"".join(chunks)


def _strict_json(text: bytes) -> Any:
    """Parses JSON as RFC 8259 defines it: refuses Python's `NaN` and `Infinity`, and numbers that overflow.

    The bridge's `wire` repeats this rule for frames. The two share no code, so that tests of one against the other
    compare two readings of MIOSA's API.
    """

    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{number} is not JSON")

    def finite(number: str) -> float:  # Python reads `1e999` as infinity, which JSON cannot express
        value = float(number)
        return value if math.isfinite(value) else refuse(number)

    return json.loads(text, parse_constant=refuse, parse_float=finite)


def encoded(value: object, field: str) -> bytes:
    """A string as UTF-8.

    Raises:
        ApiError: 422, it is not a string, or holds a lone surrogate, which JSON allows and UTF-8 does not.
    """
    if not isinstance(value, str):
        raise invalid(f"{field} must be a string", field=field)
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise invalid(f"{field} must be valid text", field=field) from error


def text(value: object, field: str) -> str:
    """`value` as text that a process or a file system accepts.

    Raises:
        ApiError: 422, as `encoded`, and for a NUL, which ends a string in POSIX calls.
    """
    raw = encoded(value, field)
    if b"\0" in raw:
        raise invalid(f"{field} must not hold a NUL", field=field)
    return raw.decode()


def optional_text(value: object, field: str) -> str | None:
    """`value` as text, or `None` for `None`.

    Raises:
        ApiError: 422, as `text`.
    """
    return None if value is None else text(value, field)


def mapping(value: object, field: str) -> dict[str, object]:
    """`value` as a JSON object; `None` counts as an empty one.

    Raises:
        ApiError: 422, it is another type, or holds a lone surrogate.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{field} must be an object", field=field)
    encoded(json.dumps(value, ensure_ascii=False), field)
    return value


def environment(value: object, field: str = "env") -> dict[str, str]:
    """`value` as environment variables; `None` counts as an empty map.

    Raises:
        ApiError: 422, it is not a map of strings, or a name is empty or contains `=`.
    """
    pairs = mapping(value, field)
    if any(not name or "=" in name for name in pairs):
        raise invalid(f"{field} must have names without '='", field=field)
    return {text(name, field): text(each, f"{field}.{name}") for name, each in pairs.items()}


def seconds(value: object, field: str) -> float | None:
    """`value` as a time span in seconds, or `None` for `None`.

    Raises:
        ApiError: 422, it is zero, negative, more than thirty years, or another type.
    """
    if value is None:
        return None
    if not (_is_integer(value) or isinstance(value, float)) or not 0 < value < _MAX_SECONDS:
        raise invalid(f"{field} must be a positive number of seconds", field=field)
    return float(value)


def integer(value: object, field: str) -> int | None:
    """`value` as an integer, or `None` for `None`.

    Raises:
        ApiError: 422, it is another type.
    """
    if value is None or _is_integer(value):
        return value
    raise invalid(f"{field} must be an integer", field=field)


def tail_of(query: Mapping[str, str], field: str) -> int:
    """The number of lines that a query asks for; 200 if it does not say, as in MIOSA's SDK.

    Raises:
        ApiError: 422, it is something else than a positive integer.
    """
    value = query.get(field, str(_TAIL))
    if not _COUNT.fullmatch(value):
        raise invalid(f"{field} must be a positive number of lines", field=field)
    return int(value)


def _timeout(value: object) -> int | None:
    """`value` as the seconds that a command may take, or `None` for `None`.

    Raises:
        ApiError: 400, it is something else than an integer from 1 to 86,400.
    """
    if value is None or (_is_integer(value) and 1 <= value <= _MAX_TIMEOUT):
        return value
    message = f"timeout must be an integer from 1 to {_MAX_TIMEOUT}, in seconds"
    raise ApiError(400, "INVALID_TIMEOUT", message, details={"field": "timeout"})


def _wait(body: dict[str, object]) -> float:
    """The seconds that a command waits for its sandbox to become ready.

    Raises:
        ApiError: 422, `wait` is something else than a boolean, or `wait_timeout_ms` than a positive integer.
    """
    wait, limit = body.get("wait"), body.get("wait_timeout_ms")
    if wait is not None and not isinstance(wait, bool):
        raise invalid("wait must be true or false", field="wait")
    if limit is None:
        limit = _WAIT
    if not _is_integer(limit) or limit < 1:
        raise invalid("wait_timeout_ms must be a positive integer", field="wait_timeout_ms")
    return min(limit, _MAX_WAIT) / 1000 if wait else 0.0


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)  # JSON's `true` is an int to Python


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A checked request to `exec` or `exec/stream`."""

    #: A command line for the shell.
    command: str
    #: The folder to run it in, as the client wrote it. `None`: the workspace.
    cwd: str | None
    env: dict[str, str]
    #: Seconds. `None`: unlimited.
    timeout: int | None
    #: Seconds to wait for a sandbox that is still starting.
    wait: float
    #: What the command can read from its standard input.
    stdin: bytes | None = None
    #: Bytes of stdout and stderr together, beyond which it is killed. `None`: unlimited.
    max_output: int | None = None

    @classmethod
    def parse(cls, body: dict[str, object]) -> ExecRequest:
        """Checks a request's body. Unknown keys are ignored, as on the platform.

        Raises:
            ApiError: 400 for a missing command or a wrong `timeout`, 422 for another wrong value.
        """
        if body.get("command") is None:
            raise missing("command")
        command = text(body["command"], "command")
        if not command.strip():
            raise invalid("command must not be empty", field="command")
        cwd = optional_text(body.get("cwd"), "cwd")
        return cls(command, cwd, environment(body.get("env")), _timeout(body.get("timeout")), _wait(body))
