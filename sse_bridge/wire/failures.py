"""Failures: which of an upstream's objects report an error, and what it says.

An error ends the run, and output that follows it is lost. So an object whose event is called something else than an
error has to be unmistakable: an `error` object, an RFC 9457 problem, or an envelope that holds nothing but an error's
keys. Everything else is data.

In a stream that is about more than one command, an event tells of an error that happened elsewhere: to a sandbox, a
deployment or a request. There a name other than an error's makes it data, and so does a key that says what or when.
"""

from __future__ import annotations

import re
from typing import Final

from .objects import Body, without

__all__ = ["failure_body", "is_failure"]

#: Keys that error envelopes consist of. In a command's stream, keys that end in `id` may stand beside them.
_ENVELOPE: Final = frozenset(
    [
        "ok",
        "success",
        "error",
        "errors",
        "error_code",
        "error_description",
        "error_uri",
        "code",
        "status",
        "status_code",
        "statusCode",
        "message",
        "msg",
        "detail",
        "details",
        "reason",
        "title",
        "type",
        "instance",
        "retryable",
        "retry_after",
        "retry_after_ms",
        "retryAfter",
        "timestamp",
        "time",
        "ts",
        "path",
        "method",
        "param",
        "hint",
        "documentation_url",
    ]
)
#: More of them, in a command's stream.
_MORE: Final = frozenset(
    ["errorDetail", "errorMessage", "errorType", "traceback", "stackTrace", "event", "kind", "apiVersion"]
)
#: Those of them that log entries and notices hold as well: what it is about, and when it happened.
_OF_ENTRIES: Final = frozenset(["timestamp", "time", "ts", "path", "method"])
_ENVELOPE_IN_EVENTS: Final = _ENVELOPE - _OF_ENTRIES
#: Ids of the request that failed, in lower case and without separators. Other ids name what an entry is about.
_REQUEST_IDS: Final = frozenset(["requestid", "traceid", "correlationid"])
_MESSAGES: Final = ("message", "msg", "detail", "error_description", "description", "reason", "title", "errorMessage")
_CODES: Final = ("status_code", "statusCode", "status")
#: A code in words, such as `RATE_LIMITED`. The platform uses upper and lower case.
_ERROR_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
#: A status in digits, perhaps with its reason phrase.
_STATUS: Final = re.compile(r"[0-9]{3}(?![^ ])", re.ASCII)
#: Words under `code` that report no error.
_HARMLESS: Final = frozenset(
    ["ok", "success", "succeeded", "ready", "done", "completed", "trace", "debug", "info", "notice", "warn", "warning"]
)
#: A `type` that RFC 9457 allows: a URI, or a reference to one.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S*|\S*/\S*")
#: Names of events that say that something went wrong.
_NAMES_A_FAILURE: Final = re.compile(r"error|fail", re.IGNORECASE)
_UNKNOWN: Final = "The upstream reported an error."


def is_failure(body: Body, name: str, *, is_command: bool) -> bool:
    """Whether an object says that the upstream gave up.

    Args:
        body: the object.
        name: what the event, or else the object's `type`, is called; empty if it is unnamed.
        is_command: whether the stream is about one command. Weaker signs count then, too.
    """
    if _is_problem(body, name, is_command):
        return True
    if name and not is_command:
        return False
    error = body.get("error")
    is_object = isinstance(error, dict) and bool(error)
    if is_command and not name and (is_object or _wraps_an_error(body)):
        return True
    if not _is_envelope(body, is_command):
        return False
    if name and not _NAMES_A_FAILURE.search(name):
        return is_object
    has_message = any(isinstance(body.get(key), str) and body[key] for key in _MESSAGES)
    if is_command and has_message and _is_of_platform(body):
        return True
    if error:
        return has_message or isinstance(error, str | dict) or _first(error) is not None
    if _first(body.get("errors")) is not None:
        return True
    if body.get("ok") is False or body.get("success") is False:
        return has_message or body.get("code") is not None
    return (has_message and _has_error_status(body)) or (is_command and _has_words(body, has_message))


def failure_body(body: Body, text_keys: tuple[str, ...]) -> Body:
    """Finds code and message in the envelopes that platforms use: flat, inside `error`, or the first of `errors`."""
    data = body.get("data")
    if isinstance(data, dict) and not body.keys() & {"error", "errors", *_MESSAGES}:
        said = failure_body(data, text_keys)
        return {"code": said["code"], "message": said["message"], **without(body, "type", "code", "message")}
    inner = body.get("error")
    within = inner if isinstance(inner, dict) else _first(body.get("errors")) or _first(inner) or {}
    word = inner if isinstance(inner, str) and _ERROR_CODE.fullmatch(inner) else None
    codes = (
        *(facts.get(key) for facts in (within, body) for key in ("code", "error_code")),
        word,
        within.get("type"),
        body.get("errorType"),
        within.get("status"),
        *_codes(within),
        *_codes(body),
    )
    code = next((_spelled(code) for code in codes if _is_code(code)), "upstream_error")
    texts = (
        *map(within.get, _MESSAGES),
        *map(body.get, _MESSAGES),
        *map((_first(body.get("detail")) or {}).get, _MESSAGES),
        inner,
        *map(body.get, text_keys),
    )
    message = next((text for text in texts if isinstance(text, str) and text), _UNKNOWN)
    return {"code": code, "message": message, **without(body, "type", "code", "message")}


def _is_of_platform(body: Body) -> bool:
    """The envelopes of Lambda, Kubernetes and gRPC (its codes of failures go from 1 to 16)."""
    code = body.get("code")
    is_status = body.get("kind") == "Status" and body.get("status") == "Failure"
    is_grpc = isinstance(body.get("details"), list) and isinstance(code, int) and 1 <= code <= 16
    return bool(body.get("errorMessage")) or is_status or is_grpc


def _wraps_an_error(body: Body) -> bool:
    """Whether `data` is all that a body holds, and holds an `error` object."""
    data = body.get("data")
    error = data.get("error") if isinstance(data, dict) and len(body) == 1 else None
    return isinstance(error, dict) and bool(error)


def _is_problem(body: Body, name: str, is_command: bool) -> bool:
    """RFC 9457. With a type of its own it may have more members than the standard's."""
    kind = body.get("type")
    if not (isinstance(body.get("title"), str) and _is_error_status(body.get("status"))):
        return False
    is_typed = isinstance(kind, str) and name == kind and _URI.fullmatch(kind) is not None
    return is_typed or (not name and _is_envelope(body, is_command))


def _is_envelope(body: Body, is_command: bool) -> bool:
    """Whether an object holds nothing but an error's keys, and does not tell of success."""
    if body.get("ok") is True or body.get("success") is True:
        return False
    absent: tuple[object, ...] = (None, [], {}) if is_command else (None,)
    return all(value in absent or _is_of_envelope(key, is_command) for key, value in body.items())


def _is_of_envelope(key: str, is_command: bool) -> bool:
    if is_command:
        return key in _ENVELOPE or key in _MORE or key.lower().endswith("id")
    return key in _ENVELOPE_IN_EVENTS or key.lower().replace("_", "").replace("-", "") in _REQUEST_IDS


def _has_error_status(body: Body) -> bool:
    return body.get("status") == "error" or any(map(_is_error_status, (body.get("code"), *_codes(body))))


def _has_words(body: Body, has_message: bool) -> bool:
    """A code in words beside a message, or a detail alone."""
    code = body.get("code")
    if isinstance(code, str):
        return has_message and _ERROR_CODE.fullmatch(code) is not None and code.lower() not in _HARMLESS
    says_more = any(body.get(key) is not None for key in ("code", "status", "message", "msg"))
    return not says_more and (isinstance(body.get("detail"), str) or _first(body.get("detail")) is not None)


def _codes(body: Body) -> tuple[object, ...]:
    """Codes of an error. A status may be a word about anything, so only a number is one."""
    codes = map(body.get, _CODES)
    return tuple(code for code in codes if not isinstance(code, str) or code.isdecimal())


def _is_error_status(value: object) -> bool:
    """An HTTP status of 400 or more, as a number or in digits."""
    if isinstance(value, str) and _STATUS.match(value):
        value = int(value[:3])
    if isinstance(value, float) and not value.is_integer():
        return False
    return isinstance(value, int | float) and 400 <= value <= 599


def _is_code(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value != "")


def _spelled(code: object) -> str:
    return str(int(code) if isinstance(code, float) else code)


def _first(errors: object) -> Body | None:
    """The first of several errors, in a list or by field: an object, or a text as one. `None` for anything else."""
    entries = list(errors.values()) if isinstance(errors, dict) else errors
    entry = entries[0] if isinstance(entries, list) and entries else None
    if isinstance(entry, list):
        return _first(entry)
    return entry if isinstance(entry, dict) else {"message": entry} if isinstance(entry, str) else None
