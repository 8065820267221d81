"""`scripts/check-release`: version, changelog and tag agree, and what is built is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = '[tool.hatch.metadata.hooks.custom]\nrepository = "{}"\n'
MAKEFILE = """\
dist:
\t@mkdir -p dist
\t@git archive --prefix=sse_bridge-1.2.3/ -o dist/sse_bridge-1.2.3.tar.gz HEAD
\t@git archive -o dist/sse_bridge-1.2.3-py3-none-any.zip HEAD sse_bridge
\t@mv dist/sse_bridge-1.2.3-py3-none-any.zip dist/sse_bridge-1.2.3-py3-none-any.whl
\t@echo built
"""
SCRIPT = Path(__file__).parents[1] / "scripts" / "check-release"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that may be released. Its distributions have what is committed."""
    (tmp_path / "sse_bridge").mkdir()
    (tmp_path / "sse_bridge" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-11-27\n\n## [1.2.2] - 2026-01-01\n")
    (tmp_path / "pyproject.toml").write_text(PROJECT.format("https://code.example/owner/sse_bridge"))
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / ".gitignore").write_text("dist/\n.env\n")
    git(tmp_path, "init", "-q")
    release(tmp_path)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def release(root: Path) -> None:
    """Commits all changes, and tags the commit."""
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Release")
    git(root, "tag", "-f", "v1.2.3")


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
    release(checkout)

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


def test_a_release_that_is_built_incomplete_is_refused(checkout: Path) -> None:
    """Of files that only the repository has, it says which."""
    (checkout / ".gitattributes").write_text("CHANGELOG.md export-ignore\n__init__.py export-ignore\n")
    release(checkout)

    result = check(checkout)

    assert result.returncode == 1
    assert sorted(result.stderr.splitlines()) == [
        "check-release: sse_bridge-1.2.3-py3-none-any.whl lacks sse_bridge/__init__.py",
        "check-release: sse_bridge-1.2.3.tar.gz lacks CHANGELOG.md",
        "check-release: sse_bridge-1.2.3.tar.gz lacks sse_bridge/__init__.py",
    ]


def test_a_release_with_a_file_that_is_not_committed_is_refused(checkout: Path) -> None:
    """Ignored files do not show in `git status`."""
    (checkout / ".env").write_text("")
    (checkout / "Makefile").write_text(
        MAKEFILE.replace(" -o dist/sse_bridge-1.2.3.tar", " --add-file=.env -o dist/sse_bridge-1.2.3.tar")
    )
    release(checkout)

    result = check(checkout)

    assert result.returncode == 1
    assert result.stderr == "check-release: sse_bridge-1.2.3.tar.gz has .env, which is not committed\n"


def refuse(result: subprocess.CompletedProcess[str], fault: str) -> None:
    assert result.returncode == 1
    assert "built" not in result.stdout
    assert re.search(fault, result.stderr), result.stderr
