"""`sse-bridge follow`: a run of any bridge, by its URL."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
import typer

from .saying import fail_before, missing

__all__ = ["Headers", "follow", "headers_of", "url_of"]


def url_of(text: str) -> str:
    """A URL from the command line."""
    from ..upstream.checks import http_url

    if http_url(text) is None:
        raise typer.BadParameter(f"not a URL: {text!r}. Write one such as https://example.org/run-sse/.")
    return text


def header_of(text: str) -> str:
    """A header from the command line."""
    from ..upstream.checks import is_header_value, is_token

    name, colon, value = text.partition(":")
    if not (colon and is_token(name.strip()) and is_header_value(value.strip())):
        raise typer.BadParameter(f"not a header: {name!r}. Write 'Name: value', in printable ASCII.")
    return text


Headers = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", parser=header_of, metavar="'NAME: VALUE'", help="Sent with each request."),
]


def headers_of(given: list[str] | None) -> dict[str, str]:
    """Headers from the command line."""
    pairs = [text.partition(":") for text in given or []]
    return {name.strip(): value.strip() for name, _, value in pairs}


def follow(
    url: Annotated[
        str, typer.Argument(parser=url_of, metavar="URL", help="URL of a run, or of a bridge, which then starts one.")
    ],
    header: Headers = None,
    accept_gaps: Annotated[bool, typer.Option("--accept-gaps", help="Go on where output is missing.")] = False,
    cancel_on_exit: Annotated[
        bool, typer.Option("--cancel-on-exit", help="Ctrl-C, and any other way out, ends the command.")
    ] = False,
    give_up_after: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time without news after which the server counts as gone.")
    ] = 60.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON; the last one says how it ended.")
    ] = False,
) -> int:
    """Follow a run through lost connections; print its output, and exit with its code. Ctrl-C leaves it running.

    Exit codes:
    0 to 255: the command's own; 0 for a stream without a command.
    124: the command's time was up, and the platform ended it.
    125: the exit code is unknown (output is missing, or the server has vanished), or output could not be written.
    130, 143, 129, 131: Ctrl-C, SIGTERM, SIGHUP, SIGQUIT.
    141: the reader of the pipe has left.
    2: wrong arguments.
    """
    try:
        from ..client.options import Options, settings
        from .following import Following
        from .printing import Printer
    except ModuleNotFoundError as error:
        return missing(error, "httpx_sse", "cli", partial(fail_before, as_json=as_json))

    async def whole() -> int:
        options: Options = {"headers": headers_of(header), "gaps": "yield" if accept_gaps else "raise"}
        checked = settings(url, {**options, "give_up_after": give_up_after})
        return await Following(checked, Printer(as_json=as_json), cancels=cancel_on_exit).run()

    return anyio.run(whole)
