"""Policies: what happens when a viewer falls behind. Each viewer has its own.

A policy is a plain value that answers questions; the caller keeps the state. All policies answer the same ones (see
`Policy`), so that callers treat them alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Final, Literal, TypeAlias

__all__ = ["DEFAULT_HIGH_WATER", "Block", "Coalesce", "Drop", "Policy"]

#: Bytes. A burst of some ten thousand lines passes without a pause; two thousand stalled viewers cost 2 GB.
#: Precedents: asyncio's transports 64 KiB, nginx's `proxy_max_temp_file_size` 1 GB, Redis' pub/sub soft limit 8 MB.
DEFAULT_HIGH_WATER: Final = 1024 * 1024
#: The run reads on once a viewer is down to a quarter of the mark, as asyncio's transports and websockets do.
_LOW_WATER_SHARE: Final = 4
#: Events a second: the rate at which screens repaint.
_DEFAULT_MAX_RATE: Final = 60.0
#: Seconds, as many as one `send` may take by default. nginx's `send_timeout` is 60.
_DEFAULT_STALL_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Block:
    """Delivers every frame: while a viewer is more than `high_water` behind, the run stops reading.

    TCP then holds the sandbox back, and the script waits in its `print`. The run reads on once the viewer is down to a
    quarter of the mark, so that a slow viewer costs one wake-up for many frames.

    Args:
        high_water: bytes waiting to be handed to `send`. The frames of one chunk may exceed it.
        stall_timeout: seconds that a viewer may hold the run up without taking a frame; then the bridge disconnects
            it, and it may come back. `None`: it may hold the run up indefinitely.

    Raises:
        ValueError: an argument is zero, negative or of another kind.
    """

    high_water: int = DEFAULT_HIGH_WATER
    stall_timeout: float | None = _DEFAULT_STALL_TIMEOUT
    may_lose: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    max_rate: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        _check_mark(self.high_water)
        _check_stall_timeout(self.stall_timeout)

    def holds(self, pending: int, held: bool) -> bool:
        """Whether the run must wait for a viewer with `pending` bytes. `held`: whether it is waiting already."""
        return _is_beyond(self.high_water, pending, held)


@dataclass(frozen=True, slots=True)
class Drop:
    """The run reads on: a viewer that is more than `high_water` behind loses its oldest frames.

    A `gap` with their exact number goes out before the next frame. The terminal frame always arrives.

    Args:
        high_water: bytes waiting to be handed to `send`. The frames of one chunk may exceed it.

    Raises:
        ValueError: `high_water` is zero, negative or of another kind.
    """

    high_water: int = DEFAULT_HIGH_WATER
    may_lose: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    max_rate: ClassVar[float | None] = None
    stall_timeout: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        _check_mark(self.high_water)

    def holds(self, pending: int, held: bool) -> bool:
        """Always false: the run reads on. See `Block.holds`."""
        return False


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The browser gets few events: consecutive lines of a stream are merged into one.

    The merged event's `line` holds the lines joined by newlines; its id is that of the last one. Of a line that a
    script overwrites with carriage returns, as progress bars do, it holds the last state. All lines arrive, unless
    `beyond` is `"drop"`.

    Args:
        high_water: bytes waiting to be handed to `send`, measured before merging. The frames of one chunk may exceed
            it.
        max_rate: the most events a second; `None` for unlimited. Any frame but a plain line is an event of its own.
            While the run waits for the viewer, the limit is lifted.
        beyond: what happens to a viewer that is more than `high_water` behind. `"block"`: the run waits for it, as
            under `Block`. `"drop"`: the run reads on, and the viewer loses its oldest frames, as under `Drop`.
        stall_timeout: seconds that a viewer may hold the run up, as under `Block`. Irrelevant with `"drop"`.

    Raises:
        ValueError: a number is zero, negative or of another kind, or `beyond` is another word.
    """

    high_water: int = DEFAULT_HIGH_WATER
    max_rate: float | None = _DEFAULT_MAX_RATE
    beyond: Literal["block", "drop"] = "block"
    stall_timeout: float | None = _DEFAULT_STALL_TIMEOUT
    merges: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_mark(self.high_water)
        if self.max_rate is not None and not (_is_positive(self.max_rate) and self.max_rate < inf):
            raise ValueError(f"max_rate must be events a second above zero or None, not {self.max_rate!r}")
        if self.beyond not in ("block", "drop"):
            raise ValueError(f'beyond must be "block" or "drop", not {self.beyond!r}')
        _check_stall_timeout(self.stall_timeout)

    @property
    def may_lose(self) -> bool:
        """Whether frames beyond the mark are given up."""
        return self.beyond == "drop"

    def holds(self, pending: int, held: bool) -> bool:
        """Whether the run must wait. See `Block.holds`."""
        return not self.may_lose and _is_beyond(self.high_water, pending, held)


#: What all of them answer:
#:
#: * `high_water`: bytes that a viewer may be behind before the policy acts;
#: * `may_lose`: whether frames beyond the mark are given up;
#: * `merges`: whether consecutive lines become one event;
#: * `max_rate`: the most events a second, spread evenly; `None` for unlimited;
#: * `holds(pending, held)`: whether the run must wait;
#: * `stall_timeout`: seconds for which a viewer may make it wait; `None` for no limit.
Policy: TypeAlias = Block | Drop | Coalesce


def _is_beyond(high_water: int, pending: int, held: bool) -> bool:
    """Whether a viewer is too far behind. Once the run waits, until the viewer is down to a quarter of the mark."""
    return pending > (high_water // _LOW_WATER_SHARE if held else high_water)


def _check_mark(high_water: int) -> None:
    if not isinstance(high_water, int) or high_water < 1:
        raise ValueError(f"high_water must be a positive number of bytes, not {high_water!r}")


def _check_stall_timeout(seconds: float | None) -> None:
    if seconds is not None and not _is_positive(seconds):
        raise ValueError(f"stall_timeout must be seconds above zero or None, not {seconds!r}")


def _is_positive(number: float) -> bool:
    return isinstance(number, int | float) and number > 0
