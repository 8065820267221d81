"""`sse-bridge follow`: a run of any bridge, by its URL."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from ..errors import BridgeError
from .saying import BROKEN_PIPE, FAILED, exit_status, fail, missing, say, words_of

if TYPE_CHECKING:
    from ..client.options import Settings
    from .printing import Printer

__all__ = ["Headers", "follow", "headers_of"]

Headers = Annotated[
    list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Sent with each request.")
]


def headers_of(given: list[str] | None) -> dict[str, str]:
    """Headers from the command line."""
    pairs = [text.partition(":") for text in given or []]
    for name, colon, _ in pairs:
        if not colon:
            raise typer.BadParameter(f"not a header: {name!r}. Write 'Name: value'.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def follow(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of a run, or of a bridge, which starts one.")],
    header: Headers = None,
    accept_gaps: Annotated[bool, typer.Option("--accept-gaps", help="Go on where output is missing.")] = False,
    cancel_on_exit: Annotated[bool, typer.Option("--cancel-on-exit", help="Ctrl-C ends the command.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> int:
    """Follow a run through lost connections: its output here, its exit code ours. Ctrl-C leaves it running."""
    try:
        from ..client.options import Options, settings
    except ModuleNotFoundError as error:
        return missing(error, "httpx_sse", "cli")
    from .printing import Printer

    try:
        options: Options = {"headers": headers_of(header), "gaps": "yield" if accept_gaps else "raise"}
        checked = settings(url, {**options, "cancel_on_exit": cancel_on_exit})
        return anyio.run(_follow, checked, Printer(as_json=as_json))
    except BridgeError as error:
        return fail(words_of(error), FAILED)
    except KeyboardInterrupt:
        say("left the run" + ("" if cancel_on_exit else ", which goes on while it has viewers, and for its grace"))
        return 128 + signal.SIGINT


async def _follow(checked: Settings, printer: Printer) -> int:
    from ..client.asynchronous import FollowedRun
    from ..client.course import Course
    from ..client.lines import Items
    from .run import ignore_stdout

    async with FollowedRun(checked, Course(checked, Items()), None) as run:
        try:
            async for item in run:
                await printer.show([item])
        except BrokenPipeError:
            ignore_stdout()
            return BROKEN_PIPE
    return exit_status(run.exit_code or 0)
