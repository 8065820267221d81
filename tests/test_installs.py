"""The pages promise only installs that work: the package is on no index."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import Any

import pytest

from tests.support.documentation import DOCS, README, ROOT

PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md")), *sorted(ROOT.glob("examples/**/*.py"))]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = set(PROJECT["project"]["optional-dependencies"])


def promised() -> list[tuple[str, str]]:
    """Each page with each package or path behind its `pip install`s."""
    return [
        (str(page.relative_to(ROOT)), word)
        for page in PAGES
        for line in re.findall(r"\bpip install ([^`\n]*)", page.read_text())
        for word in shlex.split(re.split("#|&&", line)[0])
        if not word.startswith("-")
    ]


def named(requirement: str) -> str:
    """The package's name, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def on_an_index() -> set[str]:
    """Packages that our own installs take from there."""
    listed = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    listed += PROJECT["dependency-groups"].values()
    return {named(it) for packages in listed for it in packages if isinstance(it, str)} - {"sse-bridge"}


@pytest.mark.parametrize(("page", "requirement"), promised())
def test_a_promised_install_works(page: str, requirement: str) -> None:
    """This package comes from a checkout, with extras that it has; others are on an index."""
    path = re.fullmatch(r"(?:\.|\.\./sse_bridge)(?:\[([\w,]+)\])?", requirement)

    if path is None:
        assert named(requirement) in on_an_index()
    else:
        assert set((path[1] or "").split(",")) - {""} <= EXTRAS


def test_the_pages_promise_installs() -> None:
    """Else the test above sees none."""
    assert {"README.md", "docs/tutorial.md", "docs/command-line.md", "docs/metrics.md"} <= {
        page for page, _ in promised()
    }
