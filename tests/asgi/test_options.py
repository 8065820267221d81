"""Arguments of `SSEBridge`: a wrong one fails when the bridge is made, and the message says what to write instead."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from math import inf, nan
from typing import Any
from unittest.mock import AsyncMock, Mock

import httpx
import miosa as sdk
import pytest
from starlette.requests import Request

from sse_bridge import (
    Block,
    Coalesce,
    ConfigurationError,
    Drop,
    EventStream,
    HTTPUpstream,
    Miosa,
    SandboxExec,
    Source,
    SSEBridge,
    TokenBucket,
)
from sse_bridge.wire.dialects import TYPED
from tests.support.asgi import Page
from tests.support.site import never

SOURCE = EventStream("http://127.0.0.1/")


def resolve(request: Request) -> Source:
    raise AssertionError("called")


def refused(*arguments: Any, **options: Any) -> str:
    """The message of the `ConfigurationError`."""
    with pytest.raises(ConfigurationError) as caught:
        SSEBridge(*(arguments or (None, resolve)), **options)
    return str(caught.value)


# -- upstream


@pytest.mark.parametrize(
    ("upstream", "remedy"),
    [
        (Miosa, "not the class Miosa. Write Miosa()."),
        (HTTPUpstream, "not the class HTTPUpstream. Write HTTPUpstream()."),
        (type("Own", (HTTPUpstream,), {}), "not the class Own. Write Own()."),
        (SandboxExec, "not the class SandboxExec."),
        ("https://user:secret@api.miosa.ai", "not a str. Write Miosa(base_url=...)"),
        (httpx.URL("https://api.miosa.ai/?key=secret"), "not a URL. Write Miosa(base_url=...)"),
        (b"secret", "not a bytes object."),
        (httpx.AsyncClient(), "not an AsyncClient. Write Miosa(client=...) or HTTPUpstream(client)"),
        (httpx.Client(), "not a Client. Write Miosa(client=...) or HTTPUpstream(client), with an httpx.AsyncClient."),
        (SOURCE, "not an EventStream. A source is what resolve returns"),
        (resolve, "not a function. A function is resolve, which comes second"),
        (lambda request: SOURCE, "not a function. A function is resolve, which comes second"),
        (
            sdk.Miosa(api_key="secret", base_url="http://127.0.0.1"),
            "not a Miosa. That is the SDK's client: write Miosa.from_sdk(client)",
        ),
        (7, "not an int."),
        (object(), "not an object."),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_an_upstream_opens_streams(upstream: Any, remedy: str) -> None:
    """Everything else is named by its type: addresses may hold credentials."""
    message = refused(upstream, resolve)

    assert message.startswith("upstream must be Miosa(), HTTPUpstream() or None, ")
    assert remedy in message
    assert "secret" not in message


class OwnUpstream:
    """An upstream of the application's own."""

    def open(self, method: str, url: str, *, headers: Any, body: bytes | None = None) -> Any: ...


class Lazy:
    """Stands for something that is made later, as frameworks' proxies do."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


@pytest.mark.parametrize("upstream", [None, Miosa(), HTTPUpstream(), OwnUpstream(), Mock(), AsyncMock()])
def test_whatever_opens_streams_is_an_upstream(upstream: Any) -> None:
    """Clients of the application's own, too, and the ones of its tests."""
    SSEBridge(upstream, resolve)


def test_a_proxy_is_an_upstream() -> None:
    """It stands for an upstream that is made later, and is asked for the first time by a request."""
    SSEBridge(Lazy(), resolve)


# -- functions


class Called:
    """Instances are functions of a request."""

    def __call__(self, request: Request) -> Source: ...  # type: ignore[empty-body]


class CalledWithNothing:
    """Instances take no argument."""

    def __call__(self) -> Source: ...  # type: ignore[empty-body]


def no_arguments() -> Source: ...  # type: ignore[empty-body]
def two_arguments(request: Request, more: object) -> Any: ...


def generator(request: Request) -> Iterator[Source]:
    yield SOURCE


async def async_generator(request: Request) -> AsyncIterator[Source]:
    yield SOURCE


async def later(request: Request) -> Source: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (SOURCE, "not an EventStream. Write lambda request: EventStream(...)."),
        (SandboxExec("sbx", "echo secret"), "not a SandboxExec. Write lambda request: SandboxExec(...)."),
        (SandboxExec, "not the class SandboxExec. Write lambda request: SandboxExec(...)."),
        (EventStream, "not the class EventStream. Write lambda request: EventStream(...)."),
        (Called, "not the class Called. Write the name of a function, or Called()"),
        (None, "not None."),
        ("pipeline", "not a str."),
        ({"sandbox": "secret"}, "not a dict."),
        (no_arguments, "called with one argument"),
        (CalledWithNothing(), "called with one argument"),
        (two_arguments, "called with one argument"),
        (generator, "Write return instead of yield."),
        (async_generator, "Write return instead of yield."),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_resolve_is_a_function_of_the_request(function: Any, remedy: str) -> None:
    """The message says what to write, and the function stays uncalled."""
    message = refused(None, function)

    assert message.startswith("resolve must be a function that takes a request and returns a source")
    assert remedy in message
    assert "secret" not in message


def test_a_function_that_was_called_is_told_from_the_function() -> None:
    """`resolve()` for `resolve`, of an async function."""
    called: Any = later(None)  # type: ignore[arg-type]
    message = refused(None, called)
    called.close()

    assert "not a coroutine. Write resolve=function, without calling it." in message


@pytest.mark.parametrize("authorize", [True, "ann", Called, lambda request: True, lambda: True, generator])
def test_authorize_takes_a_request_and_a_run(authorize: Any) -> None:
    """A class or a generator would allow everything: what it returns counts as true."""
    assert refused(authorize=authorize).startswith("authorize must be a function that takes a request and a run")


def any_number(*arguments: object) -> Any: ...


@pytest.mark.parametrize("function", [resolve, later, Called(), Mock(), any_number])
def test_functions_of_every_kind_are_taken(function: Any) -> None:
    """Sync, async, objects, and functions that take more than they are given."""
    SSEBridge(None, function, policy=function, rate=function, authorize=two_arguments)


@pytest.mark.parametrize("source", ["ls", None, SandboxExec, {"command": "secret"}])
@pytest.mark.anyio
async def test_what_resolve_returns_is_a_source(anyio_backend: str, source: Any) -> None:
    """Else the request fails with a message that names its type, before anything is started."""
    bridge = SSEBridge(None, lambda request: source)
    page = Page()
    with pytest.raises(ConfigurationError, match=r"resolve must return a source, such as SandboxExec\(\.\.\.\), not"):
        await bridge(page.scope, page.receive, page.send)

    assert bridge.statistics().runs_started == 0
    assert page.sent == []


# -- policies and rates


@pytest.mark.parametrize(
    ("policy", "remedy"),
    [
        (Drop, "not the class Drop. Write Drop()."),
        (Block, "not the class Block. Write Block()."),
        (Coalesce, "not the class Coalesce. Write Coalesce()."),
        (None, "not None."),
        ("drop", "not a str."),
        (TokenBucket(10), "not a TokenBucket."),
        (1024, "not an int."),
    ],
)
def test_a_policy_is_made_before_it_is_passed(policy: Any, remedy: str) -> None:
    """Classes can be called, as functions of the request can, so they are told apart."""
    message = refused(policy=policy)

    assert message.startswith("policy must be Block(), Drop(), Coalesce(), or a function of the request")
    assert remedy in message


@pytest.mark.parametrize(
    ("rate", "remedy"),
    [
        (10, "not 10. Write TokenBucket(10)."),
        (0.5, "not 0.5. Write TokenBucket(0.5)."),
        ("10", "not a str. Write TokenBucket(rate)."),
        (True, "not True. Write TokenBucket(rate)."),
        ((10, 5), "not a tuple. Write TokenBucket(rate)."),
        (TokenBucket, "not the class TokenBucket. Write TokenBucket(rate)."),
        (Drop(), "not a Drop. Write TokenBucket(rate)."),
    ],
)
def test_a_rate_is_a_bucket(rate: Any, remedy: str) -> None:
    """A number leaves open how large a burst may be."""
    message = refused(rate=rate)

    assert message.startswith("rate must be a TokenBucket, None, or a function of the request")
    assert remedy in message


@pytest.mark.parametrize("name", ["policy", "rate"])
@pytest.mark.parametrize("function", [no_arguments, two_arguments, generator, CalledWithNothing()])
def test_policy_and_rate_may_be_functions_of_the_request(name: str, function: Any) -> None:
    """Of the request alone."""
    assert refused(**{name: function}).startswith(f"{name} must be a function that takes a request and returns")


@pytest.mark.parametrize(
    ("name", "wrong"), [("policy", Drop), ("policy", "drop"), ("rate", 10), ("rate", TokenBucket), ("policy", None)]
)
@pytest.mark.anyio
async def test_what_these_functions_return_is_checked_alike(anyio_backend: str, name: str, wrong: Any) -> None:
    """The message is the same."""
    chooses: dict[str, Any] = {name: lambda request: wrong}
    bridge = SSEBridge(None, lambda request: SOURCE, **chooses)
    page = Page()
    with pytest.raises(ConfigurationError, match=re.escape(refused(**{name: wrong}))):
        await bridge(page.scope, page.receive, page.send)


@pytest.mark.parametrize("dialect", ["yaml", "Typed", "", False, TYPED, type(TYPED), ["typed"], b"typed"])
def test_a_dialect_is_one_of_three_names(dialect: Any) -> None:
    """The message lists them."""
    assert refused(dialect=dialect).startswith("dialect must be one of typed, named, verbatim, or None, not ")


# -- numbers


class Setting(IntEnum):
    """Numbers of the application's own kind."""

    TEN = 10


SECONDS = ("heartbeat", "grace", "send_timeout", "commit_after")
COUNTS = ("max_frame_size", "retry_ms", "max_viewers", "max_runs")
OTHERS = ("cancel_timeout", "replay")


@pytest.mark.parametrize("name", [*SECONDS, *COUNTS, *OTHERS])
@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("10", "not a str. Convert it with float(...) or int(...) first."),
        (b"10", "not a bytes object. Convert it"),
        (Decimal(10), "not a Decimal. Convert it"),
        (Fraction(10), "not a Fraction. Convert it"),
        (timedelta(seconds=10), "not a timedelta. Write .total_seconds() behind it."),
        (True, "not True."),
        (False, "not False."),
        (nan, "not nan."),
        (-1, "not -1."),
        (-inf, "not -inf."),
        (10**400, "not an int."),
        (1j, "not a complex. Convert it"),
        ([10], "not a list."),
        (int, "not the class int."),
        (lambda request: 10, "not a function."),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_numbers_are_numbers(name: str, value: Any, remedy: str) -> None:
    """Of times and sizes alike. `True` is one second to Python, and a mistake."""
    message = refused(**{name: value})

    assert message.startswith(f"{name} must be ")
    assert remedy in message


@pytest.mark.parametrize("name", [*SECONDS, *COUNTS])
def test_what_can_be_switched_off_is_switched_off_with_none(name: str) -> None:
    """`False` is refused, with that hint."""
    SSEBridge(None, resolve, **{name: None})  # type: ignore[arg-type]

    assert refused(**{name: False}).endswith("or None for no limit, not False. Write None.")


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_switched_off_does_not_offer_none(name: str) -> None:
    """Their messages leave it out."""
    assert "None" not in refused(**{name: -1})
    assert refused(**{name: None}).endswith("not None.")


@pytest.mark.parametrize("name", [*COUNTS, "replay"])
@pytest.mark.parametrize(("value", "remedy"), [(1.0, "Write 1."), (1e6, "Write 1000000."), (1.5, ""), (inf, "")])
def test_counts_are_whole(name: str, value: float, remedy: str) -> None:
    """A `float` that is whole becomes an `int` by hand."""
    message = refused(**{name: value})

    assert message.startswith(f"{name} must be a whole number")
    assert message.endswith(f"not {value}.{' ' if remedy else ''}{remedy}")


@pytest.mark.parametrize("name", ["heartbeat", "send_timeout", *COUNTS, "cancel_timeout"])
def test_zero_is_too_little_for_these(name: str) -> None:
    """The message says so."""
    assert "above zero" in refused(**{name: 0})


@pytest.mark.parametrize("seconds", [inf, 86_400.5, 1e300, 10**300])
def test_ending_a_command_takes_a_day_at_most(seconds: float) -> None:
    """Ending one is a command, too, and platforms end commands after a day."""
    assert refused(cancel_timeout=seconds).startswith("cancel_timeout must be seconds above zero, at most 86400, not ")


@pytest.mark.parametrize("options", [
    {"grace": 0}, {"grace": inf}, {"commit_after": 0.0}, {"replay": 0}, {"heartbeat": inf}, {"heartbeat": 0.5},
    {"cancel_timeout": 86_400}, {"cancel_timeout": 0.1}, {"max_viewers": Setting.TEN}, {"grace": Setting.TEN},
])  # fmt: skip
def test_numbers_at_the_edges_are_taken(options: dict[str, Any]) -> None:
    """An infinite time switches a limit off, as `None` does."""
    SSEBridge(None, resolve, **options)


@pytest.mark.parametrize("name", ["ids", "allow_cross_site", "identity_encoding"])
@pytest.mark.parametrize("value", ["false", "no", 1, 0, [], object()])
def test_switches_are_true_or_false(name: str, value: Any) -> None:
    """`"false"`, read from the environment, would count as true."""
    assert refused(**{name: value}).startswith(f"{name} must be True or False, not ")


@pytest.mark.parametrize("name", ["hartbeat", "upstreams", "max_viewer"])
def test_a_misspelt_name_is_pythons_own_error(name: str) -> None:
    """The signature knows every name."""
    with pytest.raises(TypeError, match=name):
        SSEBridge(None, resolve, **{name: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"ids": False}, {"dialect": "verbatim"}])
def test_a_viewer_that_is_to_come_back_needs_a_place(options: Any) -> None:
    """Without ids it would start a new run."""
    with pytest.raises(ConfigurationError, match="needs ids=True"):
        SSEBridge(None, never, max_viewer_time=60, **options)


def test_an_upstream_may_be_left_out() -> None:
    """Where no source needs a platform. What to run is always the application's to say."""
    SSEBridge(resolve=never)
    with pytest.raises(ConfigurationError, match="resolve must be a function"):
        SSEBridge()
