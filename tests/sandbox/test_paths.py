"""`/workspace` mapped to a real folder: `sse_bridge.sandbox.paths`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sse_bridge.sandbox.errors import ApiError
from sse_bridge.sandbox.paths import is_plain, resolve, substitute, virtual

REAL = Path("/srv/box")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/workspace", "/srv/box"),
        ("python3 -u /workspace/a.py", "python3 -u /srv/box/a.py"),
        ("cd /workspace && ls '/workspace/b c' \"/workspace\"", "cd /srv/box && ls '/srv/box/b c' \"/srv/box\""),
        ("--dir=/workspace;x>/workspace/log", "--dir=/srv/box;x>/srv/box/log"),
        ("/usr/bin:/workspace/bin:/workspace", "/usr/bin:/srv/box/bin:/srv/box"),
        ("$(cat /workspace/x)`/workspace/y`{/workspace,/tmp}", "$(cat /srv/box/x)`/srv/box/y`{/srv/box,/tmp}"),
    ],
)
def test_a_whole_component_is_replaced(text: str, expected: str) -> None:
    """The virtual folder becomes the real one wherever a path begins with it."""
    assert substitute(text, REAL) == expected


@pytest.mark.parametrize(
    "text",
    [
        "/workspaces",
        "/workspace2",
        "/workspace-old/a",
        "/workspace.d",
        "/x/workspace",
        "x/workspace",
        "./workspace",
        "~/workspace",
        "$HOME/workspace",
        "${HOME}/workspace",
        "$(pwd)/workspace/a",
        "*/workspace",
        "http://host/workspace",
        "workspace",
    ],
)
def test_similar_names_are_left_alone(text: str) -> None:
    """Longer names, and other paths that end alike."""
    assert substitute(text, REAL) == text


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/workspace", "."),
        ("/workspace/", "."),
        ("//workspace//a", "a"),
        ("/workspace/a/../b", "b"),
        ("a.py", "a.py"),
        (".", "."),
        ("a /workspace", "a /workspace"),
    ],
)
def test_paths_inside_resolve(tmp_path: Path, path: str, inside: str) -> None:
    """Absolute under the virtual folder, or relative to it."""
    assert resolve(path, tmp_path) == tmp_path / inside


def test_the_real_path_is_accepted_too(tmp_path: Path) -> None:
    """A client may know it from the output of `pwd`."""
    assert resolve(f"{tmp_path}/a", tmp_path) == tmp_path / "a"


@pytest.mark.parametrize(
    "path", ["..", "/workspace/../x", "/etc/passwd", "/workspaces/a", "a/../../b", "a\0b", "\ud800"]
)
def test_paths_outside_are_refused(tmp_path: Path, path: str) -> None:
    """However they leave the workspace; invalid paths are refused, too."""
    with pytest.raises(ApiError) as refusal:
        resolve(path, tmp_path / "box")

    assert (refusal.value.status, refusal.value.code) == (400, "INVALID_PATH")


def test_a_symbolic_link_does_not_lead_outside(tmp_path: Path) -> None:
    """A command may create one; the API refuses to follow it."""
    (tmp_path / "out").symlink_to("/etc")

    with pytest.raises(ApiError):
        resolve("out/passwd", tmp_path)


def test_answers_name_the_virtual_path() -> None:
    """Clients can ignore the real one."""
    assert virtual(REAL / "a" / "b", REAL) == "/workspace/a/b"
    assert virtual(REAL, REAL) == "/workspace"


def test_a_plain_folder_needs_no_quotes() -> None:
    """Its path goes into commands, inside quotes of any kind and outside."""
    assert is_plain(Path("/tmp/sse_bridge-x1/sbx_2"))
    assert not is_plain(Path("/tmp/my folder"))
    assert not is_plain(Path("/tmp/$HOME"))
