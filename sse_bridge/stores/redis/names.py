"""What stands in Redis: the names of keys, and how tokens, owners, keys and sources are written there.

A token is a capability and an owner's name is personal, so neither stands there as it is. Frames hold the token in
their ids all the same: a reader of this Redis can follow every run.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import Final

from ...upstream.base import Source
from ..memory import Key

__all__ = ["VERSION", "Names", "fingerprint", "new_worker", "owner_mark", "run_name"]

#: Of the format. A worker leaves runs of another version alone.
VERSION: Final = b"1"


class Names:
    """The names of all keys.

    Args:
        prefix: the bridge's.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        #: A hash: worker to its beat.
        self.workers = f"{prefix}w"

    def stream(self, run: str) -> str:
        """The frames of a run."""
        return f"{self._prefix}{{{run}}}:s"

    def meta(self, run: str) -> str:
        """What is known of a run beside its frames."""
        return f"{self._prefix}{{{run}}}:m"

    def claim(self, run: str) -> str:
        """Which worker ends the work of a dead one."""
        return f"{self._prefix}{{{run}}}:c"

    def key(self, key: Key) -> str:
        """The run that stands behind a key of an identity."""
        said = repr((key.owner, key.word, key.is_of_source)).encode("utf-8", "surrogatepass")
        return f"{self._prefix}k:{_digest(said)}"

    def heir(self, key: Key, run: str) -> str:
        """Which worker takes a key from a run that it stood for."""
        return f"{self.key(key)}:{run}"

    def runs(self, worker: str) -> str:
        """A worker's runs, with what it takes to end them."""
        return f"{self.workers}:{worker}:runs"

    def inbox(self, worker: str) -> str:
        """What other workers tell a worker."""
        return f"{self.workers}:{worker}:in"


def new_worker() -> str:
    """A name for a worker: random, for each process and event loop."""
    return secrets.token_hex(8)


def run_name(token: str) -> str:
    """What a run is called in Redis."""
    return _digest(token.encode())


def owner_mark(owner: str | None, token: str) -> str:
    """An owner, in a form that only a worker which is given the name can compare; empty for an anonymous one."""
    return "" if owner is None else _digest(owner.encode("utf-8", "surrogatepass"), token.encode())


def fingerprint(source: Source, token: str) -> str:
    """A source, so that an equal one is recognised.

    Of a source that is no dataclass only the class counts.
    """
    said: object = type(source).__qualname__
    if is_dataclass(source):
        said = (said, [(each.name, getattr(source, each.name)) for each in fields(source) if each.compare])
    return _digest(repr(said).encode("utf-8", "surrogatepass"), token.encode())


def _digest(said: bytes, key: bytes = b"") -> str:
    return urlsafe_b64encode(blake2b(said, digest_size=16, key=key[:64]).digest()).decode().rstrip("=")
