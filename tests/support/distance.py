"""A server of this machine as if it were far away: behind TLS, and with a delay in either direction."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Distant", "distant"]


@dataclass(frozen=True)
class Distant:
    url: str
    #: For the environment of a process that is to trust the certificate.
    environment: dict[str, str]


@contextmanager
def distant(port: int, delay: float, folder: Path) -> Iterator[Distant]:
    """Serves a TLS proxy to a port of this machine.

    Args:
        delay: seconds that each piece takes in either direction.
        folder: for the authority's certificate.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    await asyncio.sleep(delay)
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, back), pump(there, writer))
        finally:
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(carry, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        yield Distant(url, {"SSL_CERT_FILE": str(folder / "authority.pem")})
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()
