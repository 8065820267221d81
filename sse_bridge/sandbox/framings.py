"""How the frames of `exec/stream` are spelled: as the platform does today, and as others of its servers do or did.

No I/O, no clock. `docs/miosa.md` §3 says where each spelling was seen.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from .output import LineEncoder, exit_frame
from .processes import Outcome

__all__ = [
    "FAILED_EXIT",
    "KEYS",
    "LINES",
    "NO_EXIT",
    "PIECES",
    "TIMEOUT_EVENT",
    "TYPES",
    "UNNAMED",
    "WHOLE",
    "Encoder",
    "Framing",
]

#: UTF-16 units of a piece: few, and no divisor of usual lengths, so that pieces begin and end anywhere in a line.
_PIECE: Final = 7


class Encoder(Protocol):
    """Turns stdout or stderr into frames. See `output.LineEncoder`, which is one."""

    @property
    def is_waiting(self) -> bool:
        """Whether `flush` would return something."""

    def feed(self, piece: bytes) -> bytes:
        """The frames that follow from a piece of output."""

    def flush(self) -> bytes:
        """The frames of what has waited long enough."""

    def finish(self) -> bytes:
        """The last frames."""


@dataclass(frozen=True, slots=True)
class Framing:
    """One way to spell a stream."""

    #: Makes the encoder of `stdout` or `stderr`.
    encoder: Callable[[str], Encoder]
    #: The frames that tell how the command ended.
    exit: Callable[[Outcome], bytes]


class _Pieces:
    """Sends text as it comes, newlines included, in pieces of `size` UTF-16 units at most.

    JavaScript cuts strings there, also between the halves of a character above U+FFFF.
    """

    def __init__(self, write: Callable[[str, str], bytes], stream: str, size: int | None = None) -> None:
        self._write = partial(write, stream)
        self._size = size
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def is_waiting(self) -> bool:
        return False

    def feed(self, piece: bytes) -> bytes:
        return self._frames(self._decoder.decode(piece))

    def flush(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return self._frames(self._decoder.decode(b"", final=True))

    def _frames(self, text: str) -> bytes:
        units = text.encode("utf-16-le")
        size = 2 * self._size if self._size else max(1, len(units))
        pieces = (units[begin : begin + size] for begin in range(0, len(units), size))
        return b"".join(self._write(piece.decode("utf-16-le", "surrogatepass")) for piece in pieces)


class _Whole:
    """Sends all text at the end, in one frame, even if there is none."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._output = bytearray()

    @property
    def is_waiting(self) -> bool:
        return False

    def feed(self, piece: bytes) -> bytes:
        self._output += piece
        return b""

    def flush(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return _frame({"text": self._output.decode("utf-8", "replace")}, self._stream)


def _frame(body: Mapping[str, object], event: str = "") -> bytes:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    frame = (f"event: {event}\n" if event else "") + f"data: {data}\n\n"
    return frame.encode("utf-8", "backslashreplace")  # half of a character, which UTF-8 lacks, becomes JSON's escape


def _exit_body(outcome: Outcome, key: str = "exit_code") -> dict[str, object]:
    return {key: outcome.exit_code, **({"timed_out": True} if outcome.timed_out else {})}


def _exit(outcome: Outcome) -> bytes:
    return exit_frame(outcome.exit_code, timed_out=outcome.timed_out)


def _failed_exit(outcome: Outcome) -> bytes:
    error = {"code": "STREAM_FAILED", "message": "the stream failed", "retryable": True}
    return _frame({"exit_code": -2, "error": error}, "exit")


def _unnamed_lines(stream: str) -> LineEncoder:
    return LineEncoder("")


def _pieces(write: Callable[[str, str], bytes], size: int | None = None) -> Callable[[str], Encoder]:
    return lambda stream: _Pieces(write, stream, size)


#: Today's: a frame for each line.
LINES: Final = Framing(LineEncoder, _exit)
#: Of runners: all output under `text` when the command ends.
WHOLE: Final = Framing(_Whole, _exit)
#: Output under `data`, cut anywhere, as consumers of the TypeScript SDK 3.2 see it.
PIECES: Final = Framing(_pieces(lambda stream, text: _frame({"data": text}, stream), _PIECE), _exit)
#: Of older servers: events without a name, so that stderr looks like stdout.
UNNAMED: Final = Framing(_unnamed_lines, lambda outcome: _frame(_exit_body(outcome)))
#: Of older servers: the name of the event stands in the object.
TYPES: Final = Framing(
    _pieces(lambda stream, text: _frame({"type": stream, "data": text})),
    lambda outcome: _frame({"type": "exit", **_exit_body(outcome)}),
)
#: Of older servers, and in MIOSA's documentation: other keys.
KEYS: Final = Framing(
    _pieces(lambda stream, text: _frame({"output": text}, stream)),
    lambda outcome: _frame(_exit_body(outcome, "exitCode"), "exit"),
)
#: Of older servers: a timeout is an event, rather than an exit.
TIMEOUT_EVENT: Final = Framing(
    LineEncoder, lambda outcome: _frame({}, "timeout") if outcome.timed_out else _exit(outcome)
)
#: The stream is over without an exit.
NO_EXIT: Final = Framing(LineEncoder, lambda outcome: b"")
#: The exit says that the stream has failed, and leaves open what became of the command. Its code and message are ours.
FAILED_EXIT: Final = Framing(LineEncoder, _failed_exit)
