"""Skipping a test where the environment allows that."""

from __future__ import annotations

import os

import pytest


def skip(reason: str) -> None:
    """Skips the test, or fails it where all tests have to run (CI sets `SSE_BRIDGE_NO_SKIPS`)."""
    if os.environ.get("SSE_BRIDGE_NO_SKIPS"):
        pytest.fail(f"SSE_BRIDGE_NO_SKIPS is set, but {reason}")
    pytest.skip(reason)
