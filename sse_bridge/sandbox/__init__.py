"""A server that speaks MIOSA's sandbox API over processes of this machine: for the demo, offline work and tests.

**There is no isolation.** A command runs as the user who runs the server, sees the machine's files and network,
and is kept apart from other sandboxes only by its working folder. Serve it to yourself, on loopback.

The folder shows the parts: `app` puts them together; `lifecycle`, `files` and `execs` are the routes; `state`
holds the sandboxes; `processes` runs commands; `output` makes event-stream frames of what they print; `paths` maps
`/workspace`; `requests` and `errors` are what every route reads and answers. It needs POSIX processes.
"""

from __future__ import annotations

from .app import create_app

__all__ = ["create_app"]
