"""The profiles that a sandbox can have: which of MIOSA's servers it imitates, and which fault it shows.

A profile is one entry of `PROFILES`. It concerns `exec`, `exec/stream`, readiness and destruction. To add one, add an
entry; for another number in one, `dataclasses.replace`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from . import framings, runner
from .errors import ApiError, invalid
from .framings import Framing
from .output import HEARTBEAT
from .processes import Outcome
from .requests import ExecRequest, optional_text

__all__ = ["PROFILES", "Heartbeat", "Profile", "choose"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The comments in a silent stream."""

    comment: bytes = HEARTBEAT
    #: Seconds of silence before each. `None`: what the application was made with.
    interval: float | None = None
    #: Whether one comes as soon as the stream is open.
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """How a sandbox behaves. The defaults are `api.miosa.ai`."""

    framing: Framing = framings.LINES
    heartbeat: Heartbeat = Heartbeat()
    #: Reads the body of a request to `exec` or `exec/stream`.
    parse: Callable[[dict[str, object]], ExecRequest] = ExecRequest.parse
    #: What is reported in place of an exit; `None` for an exit.
    failure: Callable[[Outcome], ApiError | None] = lambda outcome: None
    #: Whether `exec` says how long the command took.
    says_duration: bool = True
    #: Whether a second command is refused while one runs.
    one_at_a_time: bool = False
    #: Whether a destruction is answered with the sandbox, rather than 204.
    shows_destroyed: bool = False
    #: Seconds after its creation in which it refuses commands, unless its `metadata` says another number.
    ready_after: float = 0
    #: Seconds between the start of a command and the headers of its stream.
    header_delay: float = 0
    #: Frames behind which the connection of a stream breaks, comments included. The command runs on.
    cut_after: int | None = None
    #: Whether it breaks in the middle of the next frame.
    cuts_inside: bool = False


#: The profiles by their names: the values of `runtime_profile` in a request, and of `--profile`.
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        # `api.miosa.ai`, and the name that the SDK sends for `runtime="firecracker"`.
        "standard": Profile(),
        # Runners, and the name that the SDK sends for `runtime="soma"`.
        "soma": Profile(
            framing=framings.WHOLE,
            heartbeat=Heartbeat(b": running\n\n", interval=10, at_once=True),
            parse=runner.parse,
            failure=runner.failure,
            says_duration=False,
            one_at_a_time=True,
            shows_destroyed=True,
        ),
        # Other spellings.
        "pieces": Profile(framing=framings.PIECES),
        "legacy-unnamed": Profile(framing=framings.UNNAMED),
        "legacy-types": Profile(framing=framings.TYPES),
        "legacy-keys": Profile(framing=framings.KEYS),
        "legacy-timeout": Profile(framing=framings.TIMEOUT_EVENT),
        "no-exit": Profile(framing=framings.NO_EXIT),
        "failed-exit": Profile(framing=framings.FAILED_EXIT),
        # Faults. The numbers are small, because tests wait for them.
        "late-start": Profile(ready_after=1),
        "slow-headers": Profile(header_delay=1),
        "silent": Profile(heartbeat=Heartbeat(interval=math.inf)),
        "cut": Profile(cut_after=2),
        "cut-inside": Profile(cut_after=2, cuts_inside=True),
    }
)


def choose(name: object, default: Profile) -> Profile:
    """The profile that a request asks for.

    Args:
        name: the request's `runtime_profile`. `None` and `auto` leave the choice to the server. The SDK sends `auto`
            for `runtime="auto"`.
        default: the server's choice.

    Raises:
        ApiError: 422, there is no such profile. What MIOSA answers is unknown.
    """
    wanted = optional_text(name, "runtime_profile")
    if wanted in (None, "auto"):
        return default
    if wanted not in PROFILES:
        raise invalid(f"runtime_profile must be auto or one of {', '.join(PROFILES)}", field="runtime_profile")
    return PROFILES[wanted]
