"""`scripts/check-release`: version, changelog and tag agree, and the repository is known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = '[tool.hatch.metadata.hooks.custom]\nrepository = "{}"\n'
SCRIPT = Path(__file__).parents[1] / "scripts" / "check-release"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that may be released: its `make dist` does nothing."""
    (tmp_path / "sse_bridge").mkdir()
    (tmp_path / "sse_bridge" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-11-27\n\n## [1.2.2] - 2026-01-01\n")
    (tmp_path / "pyproject.toml").write_text(PROJECT.format("https://code.example/owner/sse_bridge"))
    (tmp_path / "Makefile").write_text("dist:\n\t@echo built\n")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Release")


def check(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_release_that_agrees_with_itself_is_built(checkout: Path) -> None:
    result = check(checkout)

    assert (result.returncode, result.stderr, result.stdout.strip()) == (0, "", "built")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("sse_bridge/__init__.py", '__version__ = "1.3"\n', "no __version__"),
        ("sse_bridge/__init__.py", '__version__ = "1.2.4"\n', r"CHANGELOG.md is \[1.2.3\], the version is 1.2.4"),
        ("CHANGELOG.md", "## [Unreleased]\n\n## [1.2.3] - 2026-11-27\n", r"is \[Unreleased\]"),
        ("CHANGELOG.md", "## [1.2.3]\n", "needs a date"),
        ("CHANGELOG.md", "## [1.2.3] - today\n", "needs a date"),
        ("pyproject.toml", PROJECT.format(""), r"set it in \[tool.hatch.metadata.hooks.custom\] of pyproject.toml"),
        ("pyproject.toml", PROJECT.format("git@code.example:owner/name"), "to the https:// address"),
        ("pyproject.toml", PROJECT.format("https://code.example"), "to the https:// address"),
    ],
)
def test_a_release_that_disagrees_is_refused(checkout: Path, name: str, content: str, fault: str) -> None:
    """It says what does not agree, and builds nothing."""
    (checkout / name).write_text(content)
    commit(checkout)
    git(checkout, "tag", "-f", "v1.2.3")

    refuse(check(checkout), fault)


def test_a_commit_without_its_tag_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "-d", "v1.2.3")

    refuse(check(checkout), "no tag v1.2.3")


def test_a_tree_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "new.txt").write_text("")

    refuse(check(checkout), "not committed")


def test_a_dry_run_needs_no_tag_no_date_and_no_repository(checkout: Path) -> None:
    git(checkout, "tag", "-d", "v1.2.3")
    (checkout / "pyproject.toml").write_text(PROJECT.format(""))
    (checkout / "CHANGELOG.md").write_text("## [Unreleased]\n")

    assert check(checkout, "--dry-run").returncode == 0


def refuse(result: subprocess.CompletedProcess[str], fault: str) -> None:
    assert result.returncode == 1
    assert "built" not in result.stdout
    assert re.search(fault, result.stderr), result.stderr
