"""Policies: what happens when a viewer falls behind. Each viewer has its own.

A policy is a plain value that answers questions about numbers; whoever asks keeps the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_HIGH_WATER", "Block"]

#: Bytes. A burst of some ten thousand lines passes without anybody waiting; two thousand stalled viewers cost 2 GB.
#: Precedents: asyncio's transports 64 KiB, nginx's `proxy_max_temp_file_size` 1 GB, Redis' pub/sub soft limit 8 MB.
DEFAULT_HIGH_WATER: Final = 1024 * 1024
#: Reading goes on below a quarter of the mark, as in asyncio's transports and in websockets.
_LOW_WATER_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Block:
    """Nothing is lost: while a viewer is more than `high_water` behind, the run stops reading.

    TCP then holds the sandbox back, and the script waits in its `print`. Reading goes on once the viewer is
    down to a quarter of the mark, so that a slow viewer does not cost a wake-up a frame.

    Args:
        high_water: bytes not yet handed to `send`; may be overstepped by what one chunk becomes.

    Raises:
        ValueError: `high_water` is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER

    def __post_init__(self) -> None:
        if self.high_water < 1:
            raise ValueError(f"high_water must be a positive number of bytes, not {self.high_water}")

    @property
    def low_water(self) -> int:
        """Bytes at which a run that waits goes on."""
        return self.high_water // _LOW_WATER_SHARE

    def holds(self, pending: int, held: bool) -> bool:
        """Whether a viewer with `pending` bytes makes the run wait, which it does already if `held`."""
        return pending > (self.low_water if held else self.high_water)
