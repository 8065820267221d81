"""What was passed, in words: values are left out, and the caller's code is left alone."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from sse_bridge.arguments import (
    accepts,
    described,
    how_to_make_a_number,
    how_to_make_a_text,
    is_a,
    number,
    offers,
    shown,
    yields,
)


class Watchful:
    """Fails when a check asks it for anything that runs its code."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    def __repr__(self) -> str:
        raise AssertionError("printed")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __bool__(self) -> bool:
        raise AssertionError("weighed")


async def coroutine() -> None: ...


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        ("secret", "a str"),
        (b"secret", "a bytes object"),
        (1234, "an int"),
        (["secret"], "a list"),
        (OSError("secret"), "an OSError"),
        (pathlib.PurePosixPath, "the class PurePosixPath"),
        (lambda: "secret", "a function"),
        ("secret".upper, "a builtin_function_or_method"),
    ],
)
def test_a_value_is_described_by_its_type(value: object, words: str) -> None:
    """It may be a secret."""
    assert described(value) == words


def test_a_coroutine_is_described_as_one() -> None:
    """The caller called a function instead of passing it."""
    called = coroutine()
    assert described(called) == "a coroutine"
    called.close()


@pytest.mark.parametrize(("value", "words"), [(10, "10"), (-0.5, "-0.5"), (nan, "nan"), (True, "True"), ("x", "a str")])
def test_a_number_can_be_shown(value: object, words: str) -> None:
    """A mistaken limit may stand in a message."""
    assert shown(value) == words


def test_a_number_that_python_refuses_to_print_is_described() -> None:
    """`repr` raises above 4,300 digits."""
    assert shown(10**5000) == "an int"


class Size(IntEnum):
    """An `int` of the caller's own kind."""

    SMALL = 3


@pytest.mark.parametrize(("value", "is_number"), [
    (0, True), (-1.5, True), (inf, True), (Size.SMALL, True),
    (nan, False), (True, False), ("1", False), (None, False), (10**400, False), (1j, False),
    (Decimal(1), False), (Fraction(1, 2), False),
])  # fmt: skip
def test_a_number_is_an_int_or_a_float(value: object, is_number: bool) -> None:
    """Other kinds of number fail where times and sizes are added up, and `True` is a mistake."""
    assert number(value) == (float(value) if is_number else None)  # type: ignore[arg-type]


def test_a_value_is_left_alone() -> None:
    """`isinstance` would ask it for its class, and a message for its `repr`."""
    value = Watchful()

    assert (described(value), shown(value)) == ("a Watchful", "a Watchful")
    assert number(value) is None
    assert not is_a(value, str, int)
    assert not offers(value, "work")
    assert (how_to_make_a_number(value), how_to_make_a_text(value)) == ("", "")
    assert is_a(Size.SMALL, str, int)


class Half:
    """Has a method and a property."""

    def work(self) -> None: ...

    @property
    def other(self) -> None:
        raise AssertionError("asked")


def test_an_attribute_is_found_without_asking_for_it() -> None:
    """Properties run code."""
    assert offers(Half(), "work")
    assert offers(Half(), "other")
    assert not offers(Half(), "open")


# -- functions


def no_arguments() -> None: ...
def one(request: object) -> None: ...
def two(request: object, run: object) -> None: ...
def one_or_two(request: object, run: object = None) -> None: ...
def any_number(*arguments: object) -> None: ...
def one_by_name(*, request: object) -> None: ...
def one_and_a_name(request: object, *, run: object) -> None: ...
def one_and_an_option(request: object, *, run: object = None) -> None: ...
async def one_later(request: object) -> None: ...


class Methods:
    """One function of each binding."""

    def none(self) -> None: ...
    def one(self, request: object) -> None: ...

    @classmethod
    def of_the_class(cls, request: object) -> None: ...

    @staticmethod
    def static(request: object) -> None: ...

    def __call__(self, request: object) -> None: ...


class CalledWithNothing:
    """An instance that takes no argument."""

    def __call__(self) -> None: ...


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the second argument."""

    @functools.wraps(function)
    def wrapper(request: object) -> Any:
        return function(request, None)

    return wrapper


@pytest.mark.parametrize(("function", "takes_one", "takes_two"), [
    (no_arguments, False, False),
    (one, True, False),
    (two, False, True),
    (one_or_two, True, True),
    (any_number, True, True),
    (one_by_name, False, False),
    (one_and_a_name, False, False),
    (one_and_an_option, True, False),
    (one_later, True, False),
    (lambda: None, False, False),
    (Methods().none, False, False),
    (Methods().one, True, False),
    (Methods.one, False, True),
    (Methods.of_the_class, True, False),
    (Methods.static, True, False),
    (Methods(), True, False),
    (CalledWithNothing(), False, False),
    (decorated(two), True, False),
    (functools.partial(two, None), True, False),
    (functools.partial(two, run=None), True, False),
    (functools.partial(two, request=None), False, False),
    (functools.partial(one_and_a_name, run=None), True, False),
    (functools.partial(Methods().one), True, False),
    (functools.partial(functools.partial(two, None), None), False, False),
    (print, True, True),  # unknown, hence trusted
])  # fmt: skip
def test_what_a_function_takes_is_told_without_calling_it(
    function: Callable[..., Any], takes_one: bool, takes_two: bool
) -> None:
    """Whatever Python would accept is accepted."""
    assert (accepts(function, 1), accepts(function, 2)) == (takes_one, takes_two)


def generator(request: object) -> Any:
    yield request


async def async_generator(request: object) -> Any:
    yield request


@pytest.mark.parametrize(
    ("function", "does"),
    [(generator, True), (async_generator, True), (functools.partial(generator), True), (one, False), (print, False)],
)
def test_a_generator_function_is_told_without_calling_it(function: Callable[..., Any], does: bool) -> None:
    """Calling it returns an object that counts as true, and leaves its body for later."""
    assert yields(function) is does
