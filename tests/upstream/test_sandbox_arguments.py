"""`SandboxExec`: arguments that the platform would refuse are refused when they are passed."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import traceback
from datetime import timedelta
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from sse_bridge import ConfigurationError, SandboxExec
from sse_bridge.upstream.base import Cancelled
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.upstreams import dead_url, serve_raw
from tests.upstream.platform import KEY, output, read, work_on

pytestmark = pytest.mark.anyio


class Sandbox:
    """Has an id, as the SDK's has."""

    def __init__(self, id: Any) -> None:
        self.id = id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sandbox_id": None}, "the id of a sandbox as a string, such as sandbox.id, not None"),
        ({"sandbox_id": Sandbox(None)}, "such as sandbox.id, not a Sandbox"),
        ({"sandbox_id": Sandbox(1234)}, "such as sandbox.id, not a Sandbox"),
        ({"sandbox_id": Sandbox(" ")}, "id of a sandbox, and this one is blank"),
        ({"sandbox_id": Sandbox("..")}, "not a path"),
        ({"sandbox_id": Sandbox}, "such as sandbox.id, not the class Sandbox"),
        ({"sandbox_id": UUID(int=0)}, r"not a UUID. Write str\(\.\.\.\) around it"),
        ({"sandbox_id": b"secret"}, r"not a bytes object. Decode it first"),
        ({"sandbox_id": ""}, "id of a sandbox, and this one is blank"),
        ({"sandbox_id": " "}, "id of a sandbox, and this one is blank"),
        ({"sandbox_id": ".."}, "not a path"),
        ({"sandbox_id": "."}, "not a path"),
        ({"command": ["echo", "secret"]}, r"a command as one string, not a list. Write shlex.join\(\[...\]\)"),
        ({"command": ("echo", "secret")}, r"not a tuple. Write shlex.join\(\[...\]\)"),
        ({"command": b"echo secret"}, r"not a bytes object. Decode it first"),
        ({"command": Path("/secret")}, r"not a PosixPath. Write str\(...\) around it"),
        ({"command": None}, "not None"),
        ({"command": lambda: "secret"}, "not a function"),
        ({"command": ""}, "a command, and this one is blank"),
        ({"command": " \n"}, "a command, and this one is blank"),
        ({"command": "echo secret\0"}, "command holds a NUL"),
        ({"cwd": Path("/secret")}, r"takes a string or None, not a PosixPath. Write str\(...\) around it"),
        ({"cwd": b"/secret"}, "not a bytes object. Decode it first"),
        ({"cwd": 7}, "takes a string or None, not an int"),
        ({"cwd": "secret"}, "takes an absolute path"),
        ({"cwd": ""}, "takes an absolute path"),
        ({"cwd": "~/secret"}, "takes an absolute path"),
        ({"cwd": "/secret\0"}, "cwd holds a NUL"),
        ({"env": ["A=secret"]}, r"maps strings to strings, and a list does not. Write {'NAME': 'value'}"),
        ({"env": "A=secret"}, "and a str does not"),
        ({"env": [("A", "secret")]}, "and a list does not"),
        ({"env": {"A": 1234}}, r"maps strings to strings, and holds an int. Write str\(...\) around it"),
        ({"env": {"A": None}}, "and holds None"),
        ({"env": {"A": True}}, "and holds a bool"),
        ({"env": {"A": b"secret"}}, "and holds a bytes object. Decode it first"),
        ({"env": {b"secret": "A"}}, "and holds a bytes object"),
        ({"env": {1: "A"}}, "and holds an int"),
        ({"env": {"": "secret"}}, "a name that is empty or has a '='"),
        ({"env": {"A=secret": ""}}, "a name that is empty or has a '='"),
        ({"env": {"secret\0": "A"}}, "env holds a NUL"),
        ({"env": {"A": "secret\0"}}, "env holds a NUL"),
    ],
)
def test_arguments_that_the_platform_would_refuse_are_refused_here(options: Any, message: str) -> None:
    """The message says what to pass instead, and leaves out what may be secret."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        SandboxExec(**{"sandbox_id": "sbx", "command": "ls", **options})

    assert not re.search("secret|1234", str(caught.value))


@pytest.mark.parametrize(
    ("timeout", "words"),
    [
        (0, "not 0."),
        (-1, "not -1."),
        (0.5, "not 0.5."),
        (86_400.5, "not 86400.5."),
        (100_000, "not 100000."),
        (10**400, "not an int."),
        (nan, "not nan."),
        (inf, "not inf."),
        (True, "not True."),
        ("60", "not a str. Convert it with float(...) or int(...) first."),
        (Decimal(60), "not a Decimal. Convert it"),
        (timedelta(minutes=1), "not a timedelta. Write .total_seconds() behind it."),
    ],
)
def test_a_timeout_that_the_platform_would_refuse_is_refused_here(timeout: Any, words: str) -> None:
    """The message names the limits (`docs/miosa.md` §4)."""
    with pytest.raises(ConfigurationError, match=re.escape("takes 1 to 86400 seconds (a day), or None")) as caught:
        SandboxExec("sbx", "ls", timeout=timeout)

    assert words in str(caught.value)


@pytest.mark.parametrize("timeout", [None, 1, 1.0, 1.5, 86_400])
def test_a_timeout_that_the_platform_takes_is_taken(timeout: float | None) -> None:
    """Its limits included."""
    assert SandboxExec("sbx", "ls", timeout=timeout).timeout == timeout


def test_a_sandbox_stands_for_its_id() -> None:
    """The id is kept, so that sources compare by value. A later change of the sandbox does not reach the source."""
    sandbox = Sandbox("sbx_1")
    source = SandboxExec(sandbox, "ls", cwd="/")
    sandbox.id = "sbx_2"

    assert source == SandboxExec("sbx_1", "ls", cwd="/") == dataclasses.replace(source, cwd="/")
    assert repr(source) == "SandboxExec(sandbox_id='sbx_1', cwd='/', timeout=None)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.sandbox_id = "sbx_3"  # type: ignore[misc]


@pytest.mark.parametrize("env", [{}, {"A": "", "b.c": "=ü\n"}, MappingProxyType({"A": "1"}), os.environ])
def test_any_mapping_of_strings_is_an_environment(env: Any) -> None:
    """Names may be odd, and values may be anything but NUL."""
    assert SandboxExec("sbx", "ls", env=env).env is env


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("sandbox_id", {"sandbox_id": "secret\ud800"}),
        ("command", {"command": "echo secret\udcff"}),
        ("cwd", {"cwd": "/secret\udcff"}),
        ("env", {"env": {"A": "secret\udcff"}}),
        ("env", {"env": {"secret\udcff": "A"}}),
    ],
)
def test_text_that_cannot_be_sent_is_refused_without_quoting_it(argument: str, options: Any) -> None:
    """UTF-8 has no lone surrogates, which undecodable file names hold."""
    with pytest.raises(ConfigurationError, match=f"{argument} holds a lone surrogate") as caught:
        SandboxExec(**{"sandbox_id": "sbx", "command": "ls", **options})

    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_the_reason_why_a_command_was_not_ended_is_in_the_log(anyio_backend: str, caplog: Any) -> None:
    """At DEBUG, beside the warning that it may run on."""
    with caplog.at_level(logging.DEBUG, "sse_bridge"):
        assert await work_on(dead_url()).cancel(0.1) is Cancelled.REQUESTED

    assert "could not be asked to end" in caplog.text
    assert "ConnectError" in caplog.text
    assert KEY not in caplog.text


async def test_a_request_that_cannot_be_built_starts_nothing(anyio_backend: str) -> None:
    """The caller may change the environment after the check. Then there is no work to end."""
    env: Any = {"A": "1"}
    with serve_raw(output) as upstream:
        work = work_on(upstream.url, env=env)
        env["A"] = object()
        with pytest.raises(TypeError):
            await read(work)

    assert not work.may_run
    assert upstream.requests == []


def test_it_needs_the_platform() -> None:
    """The message says how to get it."""
    with pytest.raises(ConfigurationError, match="SSEBridge\\(Miosa"):
        SandboxExec("sbx", "ls").work(HTTPUpstream(), None)


def test_it_does_not_show_its_command_or_environment() -> None:
    """Both may hold secrets."""
    assert "secret" not in repr(SandboxExec("sbx", "login --key secret", env={"KEY": "secret"}))
