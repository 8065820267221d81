"""Where `/workspace` is: from the paths that clients and commands write to the folder that is really there.

On the platform a sandbox has a file system of its own, in which `/workspace` is the working area. Here it is a
folder among others, and without isolation nothing can make it appear under that name. So the name is replaced
where it passes through this server: in `cwd`, in file paths, in the text of a command and in the values of its
environment. It is **not** replaced in what a command reads: a script that opens `/workspace/data.csv` by itself
fails here. Scripts that use paths relative to their working folder run the same in both places. What a command
prints is never changed, so `pwd` shows the real folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from .errors import ApiError

__all__ = ["WORKSPACE", "is_plain", "resolve", "substitute", "virtual"]

WORKSPACE: Final = "/workspace"

# A whole path component. In front of it must not stand what could be the end of another path (`x/workspace`,
# `$HOME/workspace`, `$(pwd)/workspace`, `*/workspace`); behind it not what could go on with the name
# (`/workspaces`, `/workspace-2`, `/workspace.old`). `-I/workspace` stays as it is: `x/workspace` looks the same.
_MENTION: Final = re.compile(r"(?<![\w./~)}\]*?%+@-])/workspace(?![\w.%+@~-])")

# The workspace itself, in front of what is in it.
_ROOT: Final = re.compile(r"\A/+workspace(?:/+|\Z)")

# What a shell leaves alone wherever it stands, within quotes and without.
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


def is_plain(folder: Path) -> bool:
    """Whether `folder` may stand in a command, whatever quotes are around it."""
    return _PLAIN.fullmatch(str(folder)) is not None


def substitute(text: str, folder: Path) -> str:
    """`text` with every `/workspace` that is a whole path component replaced by `folder`."""
    return _MENTION.sub(str(folder), text) if WORKSPACE in text else text


def resolve(path: str, folder: Path) -> Path:
    """The real path of what a client calls `path`: absolute under `/workspace`, or relative to it.

    Args:
        path: as the client wrote it.
        folder: the sandbox's workspace, without symbolic links in it.

    Raises:
        ApiError: 400, the path is outside of the workspace, also by way of `..` or a symbolic link, or no path.
    """
    try:
        real = Path(os.path.realpath(folder / _ROOT.sub("", path)))
    except ValueError as error:  # a NUL, or a lone surrogate
        raise _refused(path) from error
    if not real.is_relative_to(folder):
        raise _refused(path)
    return real


def virtual(real: Path, folder: Path) -> str:
    """What a client calls the path `real`, which is in `folder`."""
    return str(WORKSPACE / real.relative_to(folder))


def _refused(path: str) -> ApiError:
    return ApiError(400, "INVALID_PATH", f"path must be inside {WORKSPACE}", details={"path": path[:1000]})
