"""Checks of values that go into requests."""

from __future__ import annotations

import pytest

from sse_bridge.upstream.checks import ceil_seconds


@pytest.mark.parametrize(("seconds", "whole"), [(0.001, 1), (1, 1), (1.01, 2), (600, 600)])
def test_seconds_are_rounded_up(seconds: float, whole: int) -> None:
    """Zero would lift the limit."""
    assert ceil_seconds(seconds) == whole
