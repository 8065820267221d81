"""What hosts run for the repository. No test can run it; these compare what it says."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import yaml

from tests.support.documentation import ROOT

GITHUB: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
GITLAB: dict[str, Any] = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
IMAGE = "python:3.11-bookworm"


def test_both_hosts_run_everything_in_the_same_debian() -> None:
    """As root: there is no `sudo` in the image."""
    ours, theirs = GITHUB["test"], GITLAB["test"]

    assert ours["container"]["image"] == theirs["image"] == IMAGE
    assert [step["run"] for step in ours["steps"] if "run" in step] == theirs["script"] == [".ci/run"]
    assert f"{ours['timeout-minutes']} minutes" == theirs["timeout"] == "90 minutes"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_page_for_contributors_names_the_image() -> None:
    assert f"`{IMAGE}`" in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_oldest_and_the_newest_python_are_tried() -> None:
    """The oldest is what the package asks for."""
    pythons = [cell["python"] for cell in GITHUB["environments"]["strategy"]["matrix"]["include"]]

    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text()
    assert pythons[-1] == "3.x"


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".gitlab-ci.yml"])
def test_hosts_are_asked_for_targets_that_there_are(path: str) -> None:
    """And keep nothing for later runs, which others' changes could read."""
    text = (ROOT / path).read_text()
    targets = {*re.findall(r"target: ([\w-]+)", text), *re.findall(r"run: make ([\w-]+)$", text, re.MULTILINE)}

    assert [it for it in targets if not re.search(rf"^{it}:", (ROOT / "Makefile").read_text(), re.MULTILINE)] == []
    assert "cache:" not in text
