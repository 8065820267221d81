"""Shell scripts, of the package and of the repository, pass shellcheck."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.skipping import skip

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path
    for path in [*(ROOT / "sse_bridge").rglob("*.sh"), *(ROOT / "scripts").glob("*")]
    if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_has_no_complaint(path: Path) -> None:
    """It reads scripts as POSIX sh, which is what sandboxes and small images have."""
    if shutil.which("shellcheck") is None:
        skip("shellcheck is missing; `make system` as root installs it")
    done = subprocess.run(["shellcheck", "--shell=sh", path], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_the_loop_that_ends_commands_is_among_them() -> None:
    """The search above may miss it otherwise."""
    assert "sse_bridge/upstream/miosa/end.sh" in [path.relative_to(ROOT).as_posix() for path in SCRIPTS]
