"""`RedisStore` as a value: wrong arguments show when it is made, and importing the package imports no `redis`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sse_bridge import ConfigurationError, EventStream, RedisStore, SSEBridge

URL = "redis://user:secret@localhost:1/0"


def bridge(store: Any, **options: Any) -> SSEBridge:
    return SSEBridge(resolve=lambda request: EventStream("http://h"), store=store, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None,), {}, "RedisStore needs the URL of Redis, such as 'redis://localhost:6379/0', not None"),
        ((b"redis://h",), {}, "not a bytes object"),
        ((URL,), {"lease": 0.5}, r"lease=\.\.\.\) takes seconds, 1 or more, not 0.5"),
        ((URL,), {"lease": None}, r"lease=\.\.\.\) takes seconds"),
        ((URL,), {"linger": -1}, r"linger=\.\.\.\) takes seconds, 0 or more"),
        ((URL,), {"prefix": b"p"}, r"prefix=\.\.\.\) takes a string"),
        ((URL,), {"replay": -1}, r"replay=\.\.\.\) takes a whole number of bytes, 0 or more, .* not -1"),
        ((URL,), {"replay": 1e6}, r"replay=\.\.\.\) takes a whole number of bytes"),
        ((URL,), {"replay": True}, r"replay=\.\.\.\) takes a whole number of bytes, .* not True"),
        ((URL,), {"when_down": "wait"}, r"when_down=\.\.\.\) takes 'local', .* or 'refuse', to answer 503, not 'wait'"),
        ((URL,), {"when_down": None}, r"when_down=\.\.\.\) takes 'local', .* not None"),
    ],
)
def test_an_argument_that_is_unfit_is_refused(arguments: Any, options: Any, message: str) -> None:
    """The message says what to write, and quotes no URL."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        RedisStore(*arguments, **options)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            URL,
            r"store must be a RedisStore\('redis://...'\) or None, not a str. Write RedisStore\(...\) around the URL",
        ),
        (RedisStore, "store must be a RedisStore"),
        (RedisStore("localhost:6379"), "the URL of Redis is malformed"),
    ],
)
def test_what_is_no_store_is_refused_when_the_bridge_is_made(store: Any, message: str) -> None:
    """With the words that mend it."""
    with pytest.raises(ConfigurationError, match=message):
        bridge(store)


def test_a_store_serves_one_bridge() -> None:
    """The users of another bridge may differ."""
    store = RedisStore(URL)
    bridge(store)
    with pytest.raises(ConfigurationError, match="belongs to another bridge"):
        bridge(store)


def test_its_url_stays_out_of_its_repr() -> None:
    """It may hold a password."""
    assert "secret" not in repr(RedisStore(URL))


def test_drain_needs_a_store() -> None:
    """Without one, the viewers of a run that goes on have nowhere to go."""
    with pytest.raises(ConfigurationError, match="drain needs store="):
        bridge(None, drain=5)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_has_no_store(anyio_backend: str) -> None:
    """redis-py does not run there, which shows with the first request."""
    from tests.support.asgi import Page

    page = Page()
    with pytest.raises(ConfigurationError, match="needs asyncio"):
        await bridge(RedisStore(URL))(page.scope, page.receive, page.send)


def test_the_package_imports_no_redis() -> None:
    """Only a bridge that is made with a store does."""
    code = "import sys, sse_bridge; sse_bridge.RedisStore('redis://h'); sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
