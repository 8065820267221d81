"""Checks of what the platform's sources are made of: its limits, and what a command can be given (`docs/miosa.md` §4).

Each check takes the name of the source for its message, and raises `ConfigurationError`. Values stay out of messages.
"""

from __future__ import annotations

import inspect
from typing import Final, Protocol
from urllib.parse import unquote

from ...arguments import described, how_to_make_a_number, how_to_make_a_text, is_a, number, shown
from ...errors import ConfigurationError
from ..base import Upstream
from ..checks import http_url, is_mapping, is_text
from .client import Miosa

__all__ = [
    "HasId",
    "check_arguments",
    "check_command",
    "check_cwd",
    "check_env",
    "check_id",
    "check_path",
    "check_platform",
    "check_timeout",
    "id_of",
]

#: Seconds that the platform accepts as the timeout of a command: up to a day.
_MIN_TIMEOUT: Final = 1
_MAX_TIMEOUT: Final = 86_400


class HasId(Protocol):
    """A thing of the platform's that knows its id, such as the sandbox that MIOSA's SDK returns."""

    @property
    def id(self) -> str: ...


def id_of(value: object) -> object:
    """The id, given as it is or by a thing that has it. What is neither stays as it is, for `check_id` to refuse."""
    if is_a(value, type) or inspect.getattr_static(value, "id", None) is None:
        return value
    found: object = getattr(value, "id", None)
    return found if is_a(found, str) else value


def check_platform(source: str, upstream: Upstream) -> Miosa:
    """The platform, if that is the bridge's upstream, and if it has a key."""
    if not isinstance(upstream, Miosa):
        raise ConfigurationError(f"{source} runs on MIOSA: make the bridge with SSEBridge(Miosa(...), ...).")
    upstream.check_key()
    return upstream


def check_path(source: str, path: object) -> None:
    if not is_a(path, str):
        raise ConfigurationError(f"{source} needs a path as a string, not {described(path)}.{how_to_make_a_text(path)}")
    if not path.startswith("/") or path.startswith("//"):
        raise ConfigurationError(
            f"{source} needs a path below the base URL that begins with one slash, such as "
            "'/sandboxes/sbx_1/logs/stream'. The base URL is Miosa's."
        )
    if not path.isprintable() or "\\" in path or "#" in path:
        raise ConfigurationError(
            f"{source}: the path holds a control character, a backslash, a '#' or a lone surrogate. Quote what "
            "the path is made of: quote(name, safe='')."
        )
    parts = unquote(path.partition("?")[0]).replace("\\", "/").split("/")  # some servers decode before they route
    if "." in parts or ".." in parts:
        raise ConfigurationError(f"{source}: the path holds a '.' or '..', which would lead to another route.")
    if http_url(f"http://h{path}") is None:
        raise ConfigurationError(f"{source}: the path is too long for a request.")


def check_id(source: str, thing: str, value: object) -> None:
    """Checks the id of a thing of the platform's, such as a `sandbox`."""
    if not is_a(value, str):
        raise ConfigurationError(
            f"{source} needs the id of a {thing} as a string, such as {thing}.id, not {described(value)}."
            f"{how_to_make_a_text(value)}"
        )
    if not value.strip():
        raise ConfigurationError(f"{source} needs the id of a {thing}, and this one is blank.")
    if value in (".", ".."):  # quoting leaves them as they are, so they would lead to another route
        raise ConfigurationError(f"{source} needs the id of a {thing}, not a path.")
    _check_utf8(source, f"{thing}_id", value)


def check_command(source: str, command: object, *, instead_of_list: str = "Write shlex.join([...]).") -> None:
    """Checks a command, or the name of a program.

    Args:
        instead_of_list: what to write in place of a list.
    """
    if not is_a(command, str):
        remedy = f" {instead_of_list}" if is_a(command, list, tuple) else how_to_make_a_text(command)
        raise ConfigurationError(f"{source} needs a command as one string, not {described(command)}.{remedy}")
    if not command.strip():
        raise ConfigurationError(f"{source} needs a command, and this one is blank.")
    _check_utf8(source, "command", command)
    _check_nul(source, "command", command)


def check_arguments(source: str, args: object) -> None:
    if not is_a(args, list, tuple):
        raise ConfigurationError(f"{source}(args=...) takes a list or tuple of strings, not {described(args)}.")
    for text in args:
        if not is_a(text, str):
            raise ConfigurationError(
                f"{source}(args=...) takes strings, and holds {described(text)}.{how_to_make_a_text(text)}"
            )
        _check_utf8(source, "args", text)
        _check_nul(source, "args", text)


def check_cwd(source: str, cwd: object, *, may_be_relative: bool = False) -> None:
    if cwd is None:
        return
    if not is_a(cwd, str):
        raise ConfigurationError(
            f"{source}(cwd=...) takes a string or None, not {described(cwd)}.{how_to_make_a_text(cwd)}"
        )
    _check_utf8(source, "cwd", cwd)
    _check_nul(source, "cwd", cwd)
    if not may_be_relative and not cwd.startswith("/"):
        raise ConfigurationError(f"{source}(cwd=...) takes an absolute path, such as '/workspace', or None.")


def check_env(source: str, env: object) -> None:
    if env is None:
        return
    if not is_mapping(env):
        raise ConfigurationError(
            f"{source}(env=...) maps strings to strings, and {described(env)} does not. Write {{'NAME': 'value'}}."
        )
    for name, value in env.items():
        for text in (name, value):
            if not is_a(text, str):
                raise ConfigurationError(
                    f"{source}(env=...) maps strings to strings, and holds {described(text)}.{how_to_make_a_text(text)}"
                )
            _check_utf8(source, "env", text)
            _check_nul(source, "env", text)
        if not name or "=" in name:
            raise ConfigurationError(
                f"{source}(env=...) holds a name that is empty or has a '=' in it. Write {{'NAME': 'value'}}."
            )


def check_timeout(source: str, timeout: object) -> None:
    seconds = number(timeout)
    if timeout is not None and (seconds is None or not _MIN_TIMEOUT <= seconds <= _MAX_TIMEOUT):
        raise ConfigurationError(
            f"{source}(timeout=...) takes {_MIN_TIMEOUT} to {_MAX_TIMEOUT} seconds (a day), or None for the platform's "
            f"default, not {shown(timeout)}.{how_to_make_a_number(timeout)}"
        )


def _check_utf8(source: str, argument: str, text: str) -> None:
    if not is_text(text):
        raise ConfigurationError(
            f"{source}: {argument} holds a lone surrogate, which cannot be sent. Decode its bytes with "
            "errors='replace' rather than 'surrogateescape'."
        )


def _check_nul(source: str, argument: str, text: str) -> None:
    if "\0" in text:
        raise ConfigurationError(f"{source}: {argument} holds a NUL character, where the system would cut it off.")
