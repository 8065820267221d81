"""`sse-bridge doctor`: what is wrong with a deployment, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import anyio
import typer

from .examining import look_at_install, look_at_platform, look_at_redis
from .finding import Finding
from .follow import Headers, headers_of, url_of
from .saying import missing, say

__all__ = ["doctor"]


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(parser=url_of, metavar="URL", help="URL of a bridge. One run is started there, and ended."),
    ] = None,
    header: Headers = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="The store that the workers share.")] = None,
    silence: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, max=600, help="How long to watch a stream at most; 0 skips it."),
    ] = 32.0,
) -> int:
    """Check the platform, the key and this installation; with a URL, a bridge and the proxies in front of it.

    Exit codes: 0 if nothing is wrong; 1 if something is; 2 for wrong arguments.
    """
    try:
        from ..client import follow  # noqa: F401 (looks whether it is there)
    except ModuleNotFoundError as error:
        return missing(error, "httpx_sse", "cli")
    findings = anyio.run(_look, url, headers_of(header), redis, silence)
    _print(findings)
    return int(any(finding.is_good is False for finding in findings))


async def _look(url: str | None, headers: dict[str, str], redis: str | None, silence: float) -> list[Finding]:
    findings = look_at_install()
    if url is None:
        findings += await look_at_platform()
    else:
        from .deployment import look_at_deployment
        from .visiting import Patience

        findings += await look_at_deployment(url, headers, Patience(silence=silence), say)
    if redis is not None:
        findings += await look_at_redis(redis)
    return findings


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = {True: Text("ok", "green"), False: Text("wrong", "red"), None: Text("")}[finding.is_good]
        table.add_row(mark, Text(finding.what), Text(finding.found))
        if finding.remedy:
            table.add_row("", "", Text(finding.remedy, "bold"))
    Console(width=None).print(table)
