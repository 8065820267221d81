"""What was passed as an argument, and what to write instead: words for messages about wrong arguments.

Everything here leaves the caller's code alone. `isinstance` would ask a value for its `__class__`, and `hasattr` for
the attribute.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from numbers import Number
from os import PathLike
from types import CoroutineType, FunctionType, MethodType
from typing import Any, Final, TypeGuard, TypeVar
from uuid import UUID

__all__ = [
    "accepts",
    "described",
    "how_to_make_a_number",
    "how_to_make_a_text",
    "is_a",
    "number",
    "offers",
    "shown",
    "type_name",
    "yields",
]

T = TypeVar("T")

#: Integers with more bits than this are named by their size: Python refuses to print very long ones.
_MOST_BITS: Final = 64
_GENERATES: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
#: Keeps a place among the arguments of a `partial` (Python 3.14).
_PLACEHOLDER: Final[object] = getattr(functools, "Placeholder", object())


def is_a(value: object, *types: type[T]) -> TypeGuard[T]:
    """Whether the value is an instance of one of the types, whatever class it claims to have."""
    return issubclass(type(value), types)


def described(value: object) -> str:
    """What the value is, by its type alone: it may hold a secret."""
    if value is None:
        return "None"
    if is_a(value, type):
        return f"the class {type_name(value)}"
    if is_a(value, FunctionType, MethodType):
        return "a function"
    if is_a(value, CoroutineType):
        return "a coroutine"
    name = type_name(value)
    if name == "bytes":
        return "a bytes object"
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def shown(value: object) -> str:
    """A number, `True` or `False` as it is written, for arguments that are no secrets; anything else by its type."""
    is_short = type(value) in (float, bool) or (type(value) is int and value.bit_length() <= _MOST_BITS)
    return repr(value) if is_short else described(value)


def type_name(value: object) -> str:
    """The name of a class, or of the value's class."""
    name: str = type.__getattribute__(value if is_a(value, type) else type(value), "__name__")
    return name


def number(value: object) -> float | None:
    """The value as a float, if it is an `int` or a `float` of finite or infinite size; else `None`.

    `True` and `nan` are values of these types, and are rejected all the same.
    """
    if is_a(value, bool):
        return None
    try:
        if is_a(value, int):
            return int.__float__(value)
        converted = float.__float__(value) if is_a(value, float) else None
    except OverflowError:
        return None
    return converted if converted == converted else None


def offers(value: object, name: str) -> bool:
    """Whether it has an attribute of that name. Those that a `__getattr__` makes up go unseen."""
    return inspect.getattr_static(value, name, None) is not None


# -- remedies


def how_to_make_a_number(value: object) -> str:
    """A sentence that says how, where the value is likely to stand for a number; else an empty string."""
    if is_a(value, str, bytes) or (issubclass(type(value), Number) and not is_a(value, int, float)):
        return " Convert it with float(...) or int(...) first."
    return " Write .total_seconds() behind it." if is_a(value, timedelta) else ""


def how_to_make_a_text(value: object) -> str:
    """A sentence that says how, where the value is likely to stand for a text; else an empty string."""
    if is_a(value, bytes, bytearray):
        return " Decode it first: .decode()."
    has_text = issubclass(type(value), (Number, PathLike, UUID)) or type(value).__name__ == "URL"
    return " Write str(...) around it." if has_text and not is_a(value, bool) else ""


# -- functions


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many positional arguments; `True` if that is unknown.

    Reads what the function itself takes. Decorators leave another signature in `__wrapped__` or `__signature__`.
    """
    given: set[str] = set()
    plain, bound = _plain(function, given)
    if plain is None:
        return True
    code, count = plain.__code__, bound + count
    names = code.co_varnames[: code.co_argcount]
    only_by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    optional = given | {*(plain.__kwdefaults__ or {}), *names[len(names) - len(plain.__defaults__ or ()) :]}
    has_room = count <= len(names) or code.co_flags & inspect.CO_VARARGS
    return bool(has_room) and not given & {*names[:count]} and {*names[count:], *only_by_name} <= optional


def yields(function: Callable[..., Any]) -> bool:
    """Whether it is a generator function: calling it returns a generator."""
    plain, _ = _plain(function, set())
    flags = 0 if plain is None else plain.__code__.co_flags
    return bool(flags & _GENERATES) and not flags & inspect.CO_ITERABLE_COROUTINE


def _plain(function: Any, given: set[str]) -> tuple[FunctionType | None, int]:
    """The Python function behind a callable, and how many positional arguments are bound already.

    Args:
        given: gets the names of arguments that are bound by name.
    """
    bound = 0
    while type(function) is not FunctionType:
        if type(function) is MethodType:
            function, bound = function.__func__, bound + 1
        elif type(function) is functools.partial:
            given.update(function.keywords)
            bound += sum(argument is not _PLACEHOLDER for argument in function.args)
            function = function.func
        else:
            call = inspect.getattr_static(type(function), "__call__", None)
            if type(call) is not FunctionType:
                return None, 0
            function, bound = call, bound + 1
    return function, bound
