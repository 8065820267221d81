"""A server that speaks part of MIOSA's sandbox API over processes of this machine: for the demo, offline work, tests.

**There is no isolation.** A command runs as the user of the server, sees the machine's files and network, and is kept
apart from other sandboxes only by its working folder. Serve it to yourself, on loopback.

It has 36 routes: creating, finding, listing and destroying sandboxes, pausing, stopping and resuming them, readiness,
events, logs, `exec`, `exec/stream`, processes, commands and files. For these, MIOSA's SDK works unchanged (2.19.2,
which the tests run); the rest of the platform's API answers 404.

The modules: `app` assembles the application; `lifecycle`, `resting`, `files`, `execs`, `background`, `commands`,
`events` and `logs` are the routes; `state` holds the sandboxes, `life` is what state each is in, and `feed` is what
happens in it, with ids from `ulids`; `profiles` are the servers that it can imitate and the faults that it can show,
made of `framings`, `runner`, `turns` and `faults`; `processes` runs commands, `pipes` is how their output is read,
`capture` is the output of those that a request waits for, `jobs` are those that it does not, `kept` is their last
output, and `following` streams that; `output` turns what is printed into frames of an event stream, which `outlet`
sends, and `lines` into whole lines; `paths` maps `/workspace`; `requests`, `errors` and `times` are what every route
reads and answers. It needs POSIX processes.
"""

from __future__ import annotations

from .app import create_app
from .profiles import PROFILES, Profile

__all__ = ["PROFILES", "Profile", "create_app"]
