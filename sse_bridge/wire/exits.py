"""Exits: which of an object's values is the exit code, and whether the exit tells of a failed stream instead."""

from __future__ import annotations

import re
from typing import Final

from .objects import Body, read_object, without

__all__ = ["OTHER_EXIT_KEYS", "STREAM_FAILED", "exit_body", "has_failed", "integer", "with_code"]

#: More keys of an exit code, in an event that is called an exit and lacks the shape's; and of what may hold the code.
OTHER_EXIT_KEYS: Final = ("status", "exit_status", "returncode", "data")
_WRAPPERS: Final = ("data", "result")
_INTEGER: Final = re.compile(r"([+-]?[0-9]{1,18})(?:\.0+)?")
#: The platform's code for "the stream failed, not the command".
STREAM_FAILED: Final = -2


def has_failed(code: int | None, error: object) -> bool:
    """Whether an exit tells of its stream's failure. Beside a number, a text is a word about the exit."""
    if isinstance(error, str):
        return code == STREAM_FAILED or (code is None and bool(error.strip()))
    return code == STREAM_FAILED or (isinstance(error, dict) and bool(error))


def exit_body(body: Body, exit_keys: tuple[str, ...]) -> Body:
    """The object with its exit code under `code`, which is `None` if it lacks one."""
    key = next((key for key in exit_keys if integer(body.get(key)) is not None), "code")
    return {"code": integer(body.get(key)), **without(body, "type", "code", key)}


def with_code(body: Body, exit_keys: tuple[str, ...]) -> Body:
    """The object of an event that is called an exit, with its code where one is looked for."""
    if any(integer(body.get(key)) is not None for key in exit_keys):
        return body
    for key in _WRAPPERS:
        inner = _object_in(body.get(key))
        if inner is not None:
            found = with_code(inner, exit_keys)
            if found is not inner or inner.get("error") or inner.keys() & {*exit_keys}:
                return {**without(body, key), **found}
    other = next((key for key in OTHER_EXIT_KEYS if integer(body.get(key)) is not None), None)
    return body if other is None else {**without(body, other), exit_keys[0]: body[other]}


def _object_in(value: object) -> Body | None:
    """An object, also one in a list of its own or written as text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return read_object(value)
    return value if isinstance(value, dict) else None


def integer(value: object) -> int | None:
    """The value as an integer, also from its digits; `None` for everything else."""
    if isinstance(value, str):
        match = _INTEGER.fullmatch(value.strip())
        return None if match is None else int(match[1])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
