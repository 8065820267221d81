"""What an upstream's refusal means to a viewer: one row of a table for each status (`docs/miosa.md` §6).

The request id is the only text of the upstream's that viewers get. Its code and message are for the log and callers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

from ..errors import UpstreamRefused
from .checks import seconds_to_wait

__all__ = ["Refusal", "json_words", "refusal", "words"]

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,64}")
#: A text under `error` is a code only if it is one word. Else it is a sentence.
_ONE_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Where a code consists of several words: `SandboxNotRunning`, `VMStopped`, `sandbox.not-running`.
_BETWEEN_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-.:/ ]+")
#: Endings of the codes of a sandbox or machine that will take commands in a moment (`docs/miosa.md` §5), in upper case.
_BECOMES_READY: Final = ("_NOT_COMMAND_READY", "_STARTING")
#: Endings of the codes of one that is stopped or gone.
_IS_OVER: Final = ("_NOT_RUNNING", "_STOPPED", "_TERMINATED", "_DESTROYED", "_DELETED")


#: What objects call their sentence for people, in lower case and without `_`. The first one counts.
_SENTENCES: Final = (
    "message",
    "errormessage",
    "msg",
    "errormsg",
    "reason",
    "errordescription",
    "description",
    "detail",
    "error",
)
#: What holds details instead, as lists or objects.
_DETAILS: Final = ("detail", "errors", "details")
#: Of these, the first object may have the code. Its sentence alone would not say which field it is about.
_LISTS: Final = ("errors", "detail")
_PAGE: Final = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
#: Bytes of a plain text or page that are looked at. The log gets less.
_MOST_READ: Final = 4096
_TITLE: Final = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


class _Row(NamedTuple):
    """The status and code that a viewer gets, and the message."""

    status: int
    code: str
    message: str


_KEY_PROBLEM: Final = _Row(502, "upstream_unauthorized", "The upstream does not accept the server's key.")
_NOT_FOUND: Final = _Row(404, "not_found", "The sandbox or stream does not exist.")
_NOT_READY: Final = _Row(503, "not_ready", "The sandbox is not ready to run commands. Try again in a moment.")
_NOT_RUNNING: Final = _Row(409, "not_running", "The sandbox is not running.")
_BUSY: Final = _Row(503, "busy", "The upstream is taking no more requests at the moment. Try again shortly.")
_TABLE: Final = {
    204: _Row(204, "upstream_finished", "The stream is over."),
    401: _KEY_PROBLEM,
    402: _Row(502, "upstream_credits", "The server's account with the upstream has run out of credits."),
    403: _KEY_PROBLEM,
    404: _NOT_FOUND,
    409: _NOT_READY,
    410: _NOT_FOUND,
    429: _BUSY,
}
#: Statuses of an upstream with too much to do (503, and 529 as some write it). They pass if a time to wait comes along.
_OVERLOADED: Final = (503, 529)
_REJECTED: Final = _Row(502, "upstream_rejected", "The upstream rejected the server's request.")
_FAILED: Final = _Row(502, "upstream_failed", "The upstream failed.")
#: Statuses which prove that the upstream looked at the request and refused it (RFC 9110 15.5; 423: RFC 4918, 425:
#: RFC 8470, 428 to 431: RFC 6585, 451: RFC 7725). Other statuses prove less: proxies answer 408 when the server behind
#: them takes too long, and 460 or 499 when the client left; a 424 tells of a failure on the way.
_PROOFS: Final = frozenset({*range(400, 408), *range(409, 418), 421, 422, 423, 425, 426, 428, 429, 431, 451})
#: Seconds that a viewer is told to wait if the upstream names no time.
_RETRY_AFTER: Final = 2.0


class Refusal(UpstreamRefused):
    """An `UpstreamRefused` with what only `upstream` needs to know.

    Args:
        is_temporary: the upstream started nothing, and will say yes later.
        wait: seconds that the upstream asked us to wait; `None` if it left that open.
    """

    def __init__(
        self,
        row: _Row,
        *,
        upstream_status: int,
        retry_after: float | None,
        request_id: str | None,
        started_nothing: bool,
        is_temporary: bool,
        wait: float | None,
        upstream_code: str | None,
    ) -> None:
        status, code, message = row
        super().__init__(
            message,
            code=code,
            status=status,
            retry_after=retry_after,
            request_id=request_id,
            upstream_status=upstream_status,
            upstream_code=upstream_code,
            started_nothing=started_nothing,
        )
        self.is_temporary = is_temporary
        self.wait = wait

    @property
    def is_busy(self) -> bool:
        """Whether the upstream has too much to do at the moment."""
        return self.code == _BUSY.code


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Reads an answer that refuses, in any of the envelopes of `docs/miosa.md` §6."""
    envelope = _envelope(body)
    wait = _seconds(headers, envelope)
    row = _row(status, envelope, wait)
    return Refusal(
        row,
        upstream_status=status,
        retry_after=(_RETRY_AFTER if wait is None else wait) if row.status == 503 else None,
        request_id=_request_id(headers.get("x-request-id")) or _request_id(envelope.get("request_id")),
        started_nothing=status in _PROOFS,
        is_temporary=status == 429 or (status == 409 and _becomes_ready(envelope)),
        wait=wait,
        upstream_code=_spelled(_code(envelope)) or None,
    )


def words(body: bytes) -> str:
    """The upstream's code and message, as it wrote them. They may quote the request: see `wording.for_the_log`."""
    said = _loaded(body)
    if said is None:
        return _plain(body)
    return said if isinstance(said, str) else json_words(body)


def json_words(body: bytes) -> str:
    """The same of a body that need not tell of an error: only what JSON calls an error's code or message."""
    parts = list(_parts(_first(_loaded(body))))
    code = _code(_envelope(body)) or _number_in(parts)
    try:
        return ": ".join(filter(None, (code, _message(parts, code))))
    except RecursionError:
        return code


def _row(status: int, envelope: dict[str, Any], wait: float | None) -> _Row:
    if status == 409 and _is_over(envelope):
        return _NOT_RUNNING
    if status in _OVERLOADED and wait is not None:
        return _BUSY
    return _TABLE.get(status, _FAILED if status >= 500 else _REJECTED)


def _becomes_ready(envelope: dict[str, Any]) -> bool:
    return envelope.get("retryable") is True or _ends(envelope, _BECOMES_READY)


def _is_over(envelope: dict[str, Any]) -> bool:
    if _becomes_ready(envelope):
        return False
    return envelope.get("retryable") is False or _ends(envelope, _IS_OVER)


def _ends(envelope: dict[str, Any], endings: tuple[str, ...]) -> bool:
    return f"_{_spelled(_code(envelope))}".endswith(endings)


def _spelled(code: str) -> str:
    """A code as `UPPER_CASE`, however the upstream spells its codes."""
    return _BETWEEN_WORDS.sub("_", code).upper()


def _code(envelope: dict[str, Any]) -> str:
    """The upstream's code; empty if it gave none."""
    code: str = envelope["code"]
    return code


def _number_in(parts: list[dict[str, Any]]) -> str:
    """The first code that is a number; empty if there is none."""
    codes = (part.get("code") for part in parts)
    return next((str(code) for code in codes if isinstance(code, int) and not isinstance(code, bool)), "")


def _message(parts: list[dict[str, Any]], code: str) -> str:
    """The upstream's words for people: a sentence, or what it has in place of one; empty if it has neither."""
    sentences = (_sentence(part, code) for part in parts)
    details = (part.get(name) for part in parts for name in _DETAILS)
    dumped = (json.dumps(one, ensure_ascii=False) for one in details if isinstance(one, list | dict) and one)
    return next(filter(None, chain(sentences, dumped)), "")


def _sentence(part: dict[str, Any], code: str) -> str:
    """The title and the sentence of an object, whatever it calls them; empty if it has neither."""
    named = {key.lower().replace("_", ""): value for key, value in part.items()}
    said = (value.strip() for name in _SENTENCES if isinstance(value := named.get(name), str))
    sentence = next((one for one in said if one and one != code), "")
    title = named.get("title")
    return ": ".join(filter(None, (title, sentence))) if isinstance(title, str) and title != sentence else sentence


def _plain(body: bytes) -> str:
    """A text as it is. Of a page, its title; of bytes that are no text, nothing."""
    text = body[:_MOST_READ].decode("utf-8", "replace").strip()
    if b"\0" in body:
        return ""
    if text.startswith("<") and _PAGE.search(text):
        title = _TITLE.search(text)
        return " ".join(filter(None, (title and title[1].strip(), "(HTML)")))
    return text


def _loaded(body: bytes) -> object:
    """The JSON value; `None` for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _envelope(body: bytes) -> dict[str, Any]:
    """`code`, `retryable`, `retry_after`, `retry_after_ms` and `request_id`, wherever the envelope has them."""
    parts = list(_parts(_first(_loaded(body))))
    parts += filter(None, [_first(part.get(name)) for part in parts for name in _LISTS])
    merged = {key: value for part in reversed(parts) for key, value in part.items() if value is not None}
    return {**merged, "code": _code_in(parts)}


def _parts(said: object, depth: int = 3) -> Iterator[dict[str, Any]]:
    """An object and those within it that tell of the same error, the one that counts most first."""
    if isinstance(said, dict) and depth:
        yield from _parts(said.get("error"), depth - 1)
        yield said
        yield from _parts(said.get("detail"), depth - 1)


def _first(said: object) -> dict[str, Any] | None:
    """The object, or the first one of a list."""
    first = said[0] if isinstance(said, list) and said else said
    return first if isinstance(first, dict) else None


def _code_in(parts: list[dict[str, Any]]) -> str:
    """The first code that is a text; empty if there is none."""
    codes = [part.get("code") for part in parts]
    for code in codes:
        if isinstance(code, str) and _CODE.fullmatch(code):
            return code
    errors = [part.get("error") for part in parts]
    return next((error for error in errors if isinstance(error, str) and _ONE_WORD.fullmatch(error)), "")


def _request_id(value: object) -> str | None:
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None


def _seconds(headers: Mapping[str, str], envelope: dict[str, Any]) -> float | None:
    """The wait that the upstream asks for; `None` if it leaves that open."""
    exact = seconds_to_wait(_number(envelope.get("retry_after_ms")) / 1000)
    return seconds_to_wait(headers.get("retry-after") or envelope.get("retry_after")) if exact is None else exact


def _number(value: object) -> float:
    """A number, or its text; `nan` for everything else."""
    try:
        return float(str(value))
    except ValueError:
        return math.nan
