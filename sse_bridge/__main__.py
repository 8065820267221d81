"""`python -m sse_bridge`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":  # pragma: no branch (nobody imports it)
    sys.exit(main())
