"""Dialects: how upstream frames become the frames a page expects.

The contract of every dialect, stated once:

* `map` takes whole frames (what `FrameSplitter.feed` returned) and returns whole canonical frames, numbered by the
  `FrameIds` it was made with. It never fails, whatever the frames hold.
* A dialect belongs to one run. It may hold back the beginning of a line (`unfinished` says how much); `flush` says it
  as it is.
* After the terminal frame `finished` is true, and `map`, `flush`, `gap` and `error` return nothing.
* `gap`, `missed` and `error` say what only the bridge can know, and nothing where the dialect has no word for it.
* `merge` and `missed` are about frames that were made already, and change nothing; they work after the end, too.

The upstream's shapes are those of `miosa-wire.md` §2.1 and §6; the frames are those of `design.md` §6.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, Protocol

from .events import Event, parse_frame
from .frames import canonical, count_alike, split
from .ids import FrameIds
from .merging import Merged, first_frames, merge

__all__ = ["DIALECTS", "Dialect", "Named", "Typed", "Verbatim"]

#: Characters of an unfinished line that are held back; then they go out as they are. Precedent: Go's line scanner.
MAX_UNFINISHED: Final = 64 * 1024

#: Bytes of frames from which on it pays to look whether they begin alike.
_LONG: Final = 2048

_Body = dict[str, Any]

# -- the normal frame: one plain line under its event name ------------------------------------------------------

_TAIL: Final = b'"}\n\n'
#: Every byte but the ones that a plain frame holds a fixed number of: control characters, quotes, backslashes.
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x100) if byte not in b'"\\')
_SPECIALS: Final = b'\n""""\n\n'
_UPSTREAM_HEADS: Final = {kind: b'event: %b\ndata: {"line":"' % kind for kind in (b"stdout", b"stderr")}
_HEAD_SIZE: Final = len(_UPSTREAM_HEADS[b"stdout"])
#: A text that holds nothing to be looked into: plain bytes (as ranges, which `re` is through with twice as fast as with
#: their opposite) and escapes that mean no line end; colours are `\u001b`. A carriage return is one only as `\r`, which
#: is how `merging` knows it.
_TEXT: Final = rb'[ !#-\[\]-\xff]*+(?:\\(?:["\\/bfrt]|u(?!000[aAdD])[0-9a-fA-F]{4})[ !#-\[\]-\xff]*+)*+'
#: Nothing but frames as above, with such texts.
_ESCAPED: Final = re.compile(rb'(?:event: std(?:out|err)\ndata: \{"line":"' + _TEXT + rb'"\}\n\n)*+')
#: One such frame, and with the white space other encoders write.
_SIMPLE: Final = re.compile(rb'event: ?(stdout|stderr)\ndata: ?\{"line": ?"(' + _TEXT + rb')"\}')

# -- the other shapes, miosa-wire.md §6 -------------------------------------------------------------------------

_STREAMS: Final = frozenset({"stdout", "stderr"})
_TEXT_KEYS: Final = ("line", "data", "output")
_EXIT_KEYS: Final = ("exit_code", "exitCode", "code", "exit")
#: Those that mean an exit whatever they hold. `code` and `exit` may be anything (an error's word, a way out): of these
#: only a number does.
_SURE_EXIT_KEYS: Final = ("exit_code", "exitCode")
#: What a snapshot of something that still runs has under `state` or `status`; its exit code is null until then.
_NOT_OVER: Final = ("queued", "pending", "starting", "running")
_HEARTBEATS: Final = frozenset({"heartbeat", "ping", "keepalive"})
_ALIASES: Final = {"output": "stdout", "timed_out": "timeout", **dict.fromkeys(_HEARTBEATS, "heartbeat")}
_KINDS: Final = frozenset({*_STREAMS, *_ALIASES, "exit", "error", "timeout"})
_KEY_OF_PLAIN_TEXT: Final = {"exit": "exit_code", "error": "message"}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_ERROR_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_LINE_END: Final = re.compile(r"[\r\n]")
_ID_LINE: Final = re.compile(rb"^id(?::[^\n]*)?\n", re.MULTILINE)
#: Levels of nesting; deeper objects are shown as text.
_MAX_DEPTH: Final = 100


class Dialect(Protocol):
    """See the contract at the head of this module."""

    #: Whether `id:` lines are on unless somebody says otherwise.
    ids_by_default: bool
    #: Whether the dialect knows a terminal frame when it sees one. If not, the end of the stream is an end.
    sees_endings: bool
    #: The terminal frame has passed.
    finished: bool
    #: It was the exit of the work itself, so nothing of it runs any more.
    exited: bool
    ids: FrameIds

    #: Characters of unfinished lines that are held back.
    unfinished: int

    def map(self, frames: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def gap(self, dropped: int, size: int) -> bytes: ...
    def missed(self, dropped: int, size: int | None, last: int) -> bytes: ...
    def merge(self, frames: bytes, first: int, most: int | None) -> Merged: ...
    def error(self, code: str, message: str) -> bytes: ...


class _Lines(ABC):
    """What `Typed` and `Named` share: everything but how a frame is spelled."""

    ids_by_default = True
    sees_endings = True
    #: How the fast path begins a frame, by how the upstream begins it.
    heads: Mapping[bytes, bytes]

    __slots__ = (
        "_unfinished",
        "exited",
        "finished",
        "ids",
        "unfinished",
    )

    def __init__(self, ids: FrameIds) -> None:
        self.ids = ids
        self.finished = False
        self.exited = False
        #: Characters of unfinished lines that are held back.
        self.unfinished = 0
        self._unfinished: dict[str, str] = {}

    @staticmethod
    @abstractmethod
    def render(kind: str, body: _Body) -> bytes:
        """One frame, without its blank line. No key of `body` is called `type`."""

    def map(self, frames: bytes) -> bytes:
        """Maps whole frames. The fast path and the slow path say the same on every input (a property test)."""
        if self.finished:
            return b""
        if self.unfinished or not (frames.isascii() or _is_utf8(frames)):
            return self._map_each(frames, fast=False)
        return self._map_plain(frames) or self._map_each(frames, fast=True)

    def flush(self) -> bytes:
        """The unfinished lines, marked `partial`."""
        return self.ids.join(self._take_unfinished())

    def gap(self, dropped: int, size: int) -> bytes:
        """The notice that `dropped` frames of `size` bytes in all are missing here."""
        return b"" if self.finished else self.ids.join([self.render("gap", {"dropped": dropped, "bytes": size})])

    def missed(self, dropped: int, size: int | None, last: int) -> bytes:
        """The same for one reader, who does not get `dropped` frames up to number `last`.

        It stands under the number of the last of them, so that who resumes behind it goes on behind it. `size` is
        `None` where nobody knows any more.
        """
        body = {"dropped": dropped} if size is None else {"dropped": dropped, "bytes": size}
        return self.ids.at(last, self.render("gap", body))

    def merge(self, frames: bytes, first: int, most: int | None) -> Merged:
        """Fewer events that say the same: see `merging.merge`. `frames` are this dialect's own, from `first` on."""
        return merge(frames, self.heads.values(), self.ids, first, most)

    def error(self, code: str, message: str) -> bytes:
        """The terminal frame of a run that did not end well."""
        return b"" if self.finished else self.ids.join(self._finish("error", {"code": code, "message": message}))

    # -- the fast path: no JSON is parsed

    def _map_plain(self, frames: bytes) -> bytes | None:
        """Maps plain lines as a whole, or returns `None` if the frames are anything else.

        What is left of a plain frame without its plain bytes is a line feed, four quotes and two line feeds. If
        that is all there is, and each frame begins and ends as a plain one does, which accounts for every one of
        these, then no text holds any, nor is there a blank line too many. Where texts hold escapes, one regular
        expression has to do. Measured, ns a frame: 120 for one stream, 290 for two, 300 with escapes, 700 one by one.
        """
        head = frames[:_HEAD_SIZE]
        if head not in self.heads or not frames.endswith(_TAIL):
            return None
        specials = frames.translate(None, _PLAIN)
        count = len(specials) // len(_SPECIALS)
        if specials != _SPECIALS * count:
            if _ESCAPED.fullmatch(frames) is None:
                return None
            count = frames.count(_TAIL)
        if count == 1:  # most of what streams carry that print now and then
            return self.ids.one(self.heads[head] + frames[_HEAD_SIZE:])
        texts = frames[_HEAD_SIZE : -len(_TAIL)].split(_TAIL + head)
        if len(texts) == count:
            return self.ids.join(texts, self.heads[head], _TAIL)
        return self._map_plain_mixed(frames) if frames.count(_TAIL) == count else None

    def _map_plain_mixed(self, frames: bytes) -> bytes | None:
        heads = self.heads
        try:
            return self.ids.join([heads[frame[:_HEAD_SIZE]] + frame[_HEAD_SIZE:] for frame in split(frames)])
        except KeyError:
            return None

    def _map_each(self, frames: bytes, *, fast: bool) -> bytes:
        mapped: list[bytes] = []
        for frame in split(canonical(frames)):
            if self.finished:
                break
            simple = _SIMPLE.fullmatch(frame) if fast and not self.unfinished else None
            if simple is not None:
                mapped.append(b'%b%b"}' % (self.heads[_UPSTREAM_HEADS[simple[1]]], simple[2]))
            else:
                mapped += self.translate(parse_frame(frame))
        return self.ids.join(mapped)

    # -- the slow path: every shape there is

    def translate(self, event: Event) -> list[bytes]:
        """The frames, without blank lines, that stand for any one upstream event."""
        if event.data is None:
            return []
        body = _json_object(event.data)
        if body is None:
            kind = _known_kind(event.type) or "stdout"
            body = {_KEY_OF_PLAIN_TEXT.get(kind, "line"): event.data}
        else:
            kind = _kind(event.type, body)
        if kind in _STREAMS:
            return self._output(kind, body)
        if kind == "exit":
            return self._finish("exit", _exit_body(body))
        if kind == "timeout":
            return self._finish("exit", _exit_body({"exit_code": -1, **body, "timed_out": True}))
        if kind == "error":
            return self._finish("error", _error_body(body))
        return [] if kind == "heartbeat" else [self.render(kind, _without(body, "type"))]

    def _output(self, kind: str, body: _Body) -> list[bytes]:
        key = _text_key(body)
        rest = _without(body, "type", "line", key or "")
        if key in ("data", "output"):
            return self._piece(kind, body[key], rest)
        # A line that is no string still is one; an encoder that leaves out empty strings means an empty line.
        text = body["line"] if key else "" if body.get("line") is None else json.dumps(body["line"])
        lines = text.removesuffix("\n").split("\n")
        return self._take_unfinished(kind) + self._render_lines(kind, lines, rest)

    def _piece(self, kind: str, text: str, rest: _Body) -> list[bytes]:
        """Cuts text that comes in pieces into lines."""
        *lines, tail = (self._unfinished.pop(kind, "") + text).split("\n")
        if tail:
            self._unfinished[kind] = tail
        self._count_unfinished()
        frames = self._render_lines(kind, lines, rest)
        return frames if len(tail) < MAX_UNFINISHED else frames + self._take_unfinished(kind)

    def _render_lines(self, kind: str, lines: list[str], rest: _Body) -> list[bytes]:
        """What else the object held stands on its first line: on all of them it would multiply without bound.

        The others are written as one JSON array and cut apart, since a frame of a mebibyte may hold half a million:
        quote, comma, quote stands nowhere else, because a quote inside a text is escaped.
        """
        first = [self.render(kind, {"line": line, **rest}) for line in lines[:1]]
        if len(lines) < 2:
            return first
        head = self.heads[_UPSTREAM_HEADS[kind.encode()]]
        return first + [head + text + b'"}' for text in _json_bytes(lines[1:])[2:-2].split(b'","')]

    def _take_unfinished(self, *kinds: str) -> list[bytes]:
        held = [
            (kind, self._unfinished.pop(kind)) for kind in kinds or list(self._unfinished) if kind in self._unfinished
        ]
        self._count_unfinished()
        return [self.render(kind, {"line": text, "partial": True}) for kind, text in held]

    def _count_unfinished(self) -> None:
        self.unfinished = sum(map(len, self._unfinished.values()))

    def _finish(self, kind: str, body: _Body) -> list[bytes]:
        self.finished = True
        self.exited = kind == "exit"
        return [*self._take_unfinished(), self.render(kind, body)]


class Typed(_Lines):
    """Unnamed events, one JSON object each, with its kind under `type`: for `onmessage`."""

    __slots__ = ()

    heads = {head: b'data: {"type":"%b","line":"' % stream for stream, head in _UPSTREAM_HEADS.items()}  # noqa: RUF012

    @staticmethod
    def render(kind: str, body: _Body) -> bytes:
        return b"data: " + _json_bytes({"type": kind, **body})


class Named(_Lines):
    """The kind is the SSE event's name, the rest is its JSON: for `addEventListener("stdout", ...)`.

    A browser's `EventSource` hands the event named `error` to `onerror`, where it has `data`; a lost connection
    has none.
    """

    __slots__ = ()

    heads = {head: head for head in _UPSTREAM_HEADS.values()}  # noqa: RUF012

    @staticmethod
    def render(kind: str, body: _Body) -> bytes:
        name = _LINE_END.sub(" ", kind).encode("utf-8", "replace")
        return b"event: %b\ndata: %b" % (name, _json_bytes(body))


class Verbatim:
    """The upstream's frames unchanged but for line ends; without ids, not a byte is touched.

    With ids, ours replace the upstream's, and frames that held nothing but an id go.
    """

    ids_by_default = False
    sees_endings = False
    finished = False
    exited = False
    unfinished = 0

    __slots__ = ("ids",)

    def __init__(self, ids: FrameIds) -> None:
        self.ids = ids

    def map(self, frames: bytes) -> bytes:
        count = count_alike(frames) if len(frames) > _LONG else 0
        if not count:
            frames = canonical(frames)
        if not self.ids.visible:
            self.ids.next += count or frames.count(b"\n\n")
            return frames
        if b"id" in frames:
            frames = _ID_LINE.sub(b"", frames)
        return self.ids.join([frame for part in split(frames) if (frame := part.lstrip(b"\n"))])

    def flush(self) -> bytes:
        return b""

    def gap(self, dropped: int, size: int) -> bytes:
        return b""

    def missed(self, dropped: int, size: int | None, last: int) -> bytes:
        return b""

    def merge(self, frames: bytes, first: int, most: int | None) -> Merged:
        return first_frames(frames, most)

    def error(self, code: str, message: str) -> bytes:
        return b""


#: The dialects by the names that `SSEBridge(dialect=...)` takes.
DIALECTS: Final[Mapping[str, Callable[[FrameIds], Dialect]]] = {
    "typed": Typed,
    "named": Named,
    "verbatim": Verbatim,
}


# -- what the upstream's objects mean ---------------------------------------------------------------------------


def _known_kind(name: str) -> str | None:
    return _ALIASES.get(name, name) if name in _KINDS else None


def _kind(name: str, body: _Body) -> str:
    """The event's name decides; then what the body says; then what it looks like (`miosa-wire.md` §6)."""
    said = body.get("type")
    if name in ("", "message"):
        name = said if isinstance(said, str) else ""
    if known := _known_kind(name):
        return known
    if _text_key(body) is not None:
        return "stderr" if body.get("stream") == "stderr" else "stdout"
    if name not in ("", "message"):
        return name
    return "exit" if _is_exit(body) else "stdout"


def _is_exit(body: _Body) -> bool:
    """Whether an object that nobody named tells of an exit, perhaps one without a number (killed by a signal, say).

    An exit ends the run, so without a number it takes more: no text, not even one that is no string, and nothing that
    is said to go on.
    """
    if any(_integer(body.get(key)) is not None for key in _EXIT_KEYS):
        return True
    goes_on = body.get("state") in _NOT_OVER or body.get("status") in _NOT_OVER
    return not goes_on and not body.keys() & {*_TEXT_KEYS} and any(key in body for key in _SURE_EXIT_KEYS)


def _text_key(body: _Body) -> str | None:
    return next((key for key in _TEXT_KEYS if isinstance(body.get(key), str)), None)


def _exit_body(body: _Body) -> _Body:
    """`code` is `None` where the upstream said none that is a number: never a success by default."""
    key = next((key for key in _EXIT_KEYS if _integer(body.get(key)) is not None), "code")
    return {"code": _integer(body.get(key)), **_without(body, "type", "code", key)}


def _error_body(body: _Body) -> _Body:
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else body
    word = inner if isinstance(inner, str) and _ERROR_CODE.fullmatch(inner) else None
    code = facts.get("code", word)
    texts = (facts.get("message"), body.get("detail"), body.get("reason"), inner, *map(body.get, _TEXT_KEYS))
    message = next((text for text in texts if isinstance(text, str) and text), "The upstream reported an error.")
    said = {"code": "upstream_error" if code is None else str(code), "message": message}
    return {**said, **_without(body, "type", "code", "message")}


def _integer(value: object) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _without(body: _Body, *keys: str) -> _Body:
    return {key: value for key, value in body.items() if key not in keys}


# -- JSON -------------------------------------------------------------------------------------------------------


def _json_object(text: str) -> _Body | None:
    """The JSON object that `text` is, or `None` if it is anything else, or nothing a browser could read back."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not _is_deep(value) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if abs(number) != float("inf") else _refuse(digits)


def _is_deep(value: object) -> bool:
    """Whether writing the value could exhaust the stack although reading it did not."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [child for children in inner for child in children]
        if not level:
            return False
    return True


def _json_bytes(body: _Body | list[str]) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can say it
        return json.dumps(body, separators=(",", ":")).encode()


def _is_utf8(frames: bytes) -> bool:
    try:
        frames.decode()
    except UnicodeDecodeError:
        return False
    return True
