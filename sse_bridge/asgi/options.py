"""What a bridge is made with: the types of its arguments, and checks that say what to pass instead.

Each check raises `ConfigurationError`, and leaves the application's code alone: functions are called by requests only.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Final, TypeAlias, cast, get_args

from starlette.requests import Request

from ..arguments import accepts, described, how_to_make_a_number, is_a, number, offers, shown, type_name, yields
from ..errors import ConfigurationError
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Coalesce, Drop, Policy
from ..relay.watching import Watcher
from ..stores.redis.config import RedisStore
from ..upstream.base import Source
from ..wire.dialects import DIALECTS, TYPED, Dialect
from ..wire.shapes import DialectName

__all__ = [
    "DEFAULT_REPLAY",
    "ChoosePolicy",
    "ChooseRate",
    "DialectName",
    "Resolve",
    "a_choice",
    "a_dialect",
    "a_function",
    "a_policy",
    "a_policy_or_function",
    "a_rate",
    "a_rate_or_function",
    "a_resolve",
    "a_source",
    "a_text_or_none",
    "cancel_time",
    "flags",
    "functions",
    "not_negative",
    "positive",
    "size",
    "whole",
]

#: Bytes. What was handed to `send` may not have arrived when a connection is cut: kernels held 3.9 MB (measured).
DEFAULT_REPLAY: Final = 8 * 1024 * 1024

#: Seconds.
_DAY: Final = 24 * 60 * 60

Resolve: TypeAlias = Callable[[Request], Source | Awaitable[Source]]
ChoosePolicy: TypeAlias = Callable[[Request], Policy | Awaitable[Policy]]
ChooseRate: TypeAlias = Callable[[Request], TokenBucket | Awaitable[TokenBucket | None] | None]


# -- what is chosen by a value


def a_dialect(name: object) -> Dialect:
    """The dialect of that name. `None` leaves it to the source; what is said without a source is typed then."""
    if name is None:
        return TYPED
    text = str.__str__(name) if is_a(name, str) else ""
    if text not in DIALECTS:
        what = repr(text) if is_a(name, str) else described(name)
        raise ConfigurationError(f"dialect must be one of {', '.join(get_args(DialectName))}, or None, not {what}.")
    return DIALECTS[text]


def a_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not is_a(value, str) or value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}.")


def a_policy(policy: object) -> Policy:
    if not is_a(policy, Block, Drop, Coalesce):
        raise ConfigurationError(
            "policy must be Block(), Drop(), Coalesce(), or a function of the request that returns one, "
            f"not {described(policy)}.{_call_of(policy)}"
        )
    return cast(Policy, policy)


def a_store(store: object) -> RedisStore:
    if not is_a(store, RedisStore):
        raise ConfigurationError(
            f"store must be a RedisStore('redis://...') or None, not {described(store)}.{how_to_make_a_store(store)}"
        )
    return store


def how_to_make_a_store(value: object) -> str:
    """A sentence that says how to make a store of the value."""
    return " Write RedisStore(...) around the URL." if is_a(value, str) else ""


def a_rate(rate: object) -> TokenBucket | None:
    if rate is not None and not is_a(rate, TokenBucket):
        written = shown(rate) if type(rate) in (int, float) else "rate"
        raise ConfigurationError(
            "rate must be a TokenBucket, None, or a function of the request that returns one, "
            f"not {shown(rate)}. Write TokenBucket({written})."
        )
    return rate


def a_source(source: object, must: str = "resolve must return") -> Source:
    if is_a(source, type) or not (offers(source, "work") or offers(source, "__getattr__")):
        raise ConfigurationError(
            f"{must} a source, such as SandboxExec(...), not {described(source)}.{_call_of(source)}"
        )
    return cast(Source, source)


def a_watcher(watcher: object) -> Watcher:
    if not is_a(watcher, Watcher):
        raise ConfigurationError(f"watch must get an instance of a subclass of Watcher, not {described(watcher)}.")
    return watcher


def a_text_or_none(**values: object) -> None:
    for name, value in values.items():
        if value is not None and not is_a(value, str):
            raise ConfigurationError(f"{name} must be a string or None, not {shown(value)}.")


def flags(**values: object) -> None:
    for name, value in values.items():
        if not is_a(value, bool):
            raise ConfigurationError(f"{name} must be True or False, not {shown(value)}.")


# -- functions of the application


def a_function(name: str, function: object, does: str, *, takes: int = 1) -> None:
    """Checks a function that the bridge will call with `takes` positional arguments."""
    must = f"{name} must be a function that {does}"
    if is_a(function, type) or not callable(function):
        raise ConfigurationError(f"{must}, not {described(function)}.{_function_of(name, function)}")
    if yields(function):
        raise ConfigurationError(f"{must}, and this one is a generator. Write return instead of yield.")
    if not accepts(function, takes):
        arguments = "one argument" if takes == 1 else f"{takes} arguments"
        raise ConfigurationError(f"{must}: it is called with {arguments}, which this one does not take.")


def a_resolve(resolve: object) -> Resolve:
    a_function("resolve", resolve, "takes a request and returns a source")
    return cast(Resolve, resolve)


def functions(takes: int, **values: tuple[object, str]) -> None:
    """Checks functions that may be left out, each with what it does."""
    for name, (function, does) in values.items():
        if function is not None:
            a_function(name, function, does, takes=takes)


def a_policy_or_function(policy: object) -> None:
    if is_a(policy, type) or not callable(policy):
        a_policy(policy)
    else:
        a_function("policy", policy, "takes a request and returns Block(), Drop() or Coalesce()")


def a_rate_or_function(rate: object) -> None:
    if is_a(rate, type) or not callable(rate):
        a_rate(rate)
    else:
        a_function("rate", rate, "takes a request and returns a TokenBucket or None")


def _function_of(name: str, value: object) -> str:
    """A sentence that says how to make a function of the value."""
    if offers(value, "work"):
        return f" Write lambda request: {type_name(value)}(...)."
    if is_a(value, type):
        return f" Write the name of a function, or {type_name(value)}() if its instances can be called."
    return f" Write {name}=function, without calling it." if is_a(value, CoroutineType) else ""


def _call_of(value: object) -> str:
    return f" Write {type_name(value)}()." if is_a(value, type) else ""


# -- numbers


def positive(**limits: object) -> None:
    for name, value in limits.items():
        if value is not None and not _number(value) > 0:
            raise _out_of_range(name, "above zero, or None for no limit", value)


def not_negative(**limits: object) -> None:
    for name, value in limits.items():
        if value is not None and not _number(value) >= 0:
            raise _out_of_range(name, "zero or more, or None for no limit", value)


def whole(**limits: object) -> None:
    for name, value in limits.items():
        if value is not None and not (is_a(value, int) and number(value) is not None):
            raise _out_of_range(name, "a whole number", value)


def cancel_time(**limits: object) -> None:
    """Checks the seconds that ending work may take. It takes a command, and platforms end commands after a day."""
    for name, value in limits.items():
        if not 0 < _number(value) <= _DAY:
            raise _out_of_range(name, f"seconds above zero, at most {_DAY}", value)


def size(**limits: object) -> None:
    for name, value in limits.items():
        if not is_a(value, int) or not _number(value) >= 0:
            raise _out_of_range(name, "a whole number of bytes, zero or more", value)


def _number(value: object) -> float:
    """The value as a float, or `nan` for everything else: `nan` is outside every range."""
    converted = number(value)
    return math.nan if converted is None else converted


def _out_of_range(name: str, need: str, value: object) -> ConfigurationError:
    remedy = how_to_make_a_number(value)
    if value is False and "None" in need:
        remedy = " Write None."
    elif is_a(value, float) and value.is_integer() and "whole" in need:
        remedy = f" Write {value:.0f}."
    return ConfigurationError(f"{name} must be {need}, not {shown(value)}.{remedy}")
