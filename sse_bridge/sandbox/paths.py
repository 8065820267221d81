"""Maps `/workspace`, as clients and commands write it, to the sandbox's real folder.

On the platform a sandbox has a file system of its own, in which `/workspace` is the working area. Here it is a folder
among others, and without isolation it cannot appear under that name. So this server replaces the name where it passes
through: in `cwd`, in file paths, in the text of a command and in the values of its environment. It leaves alone what a
command reads: a script that opens `/workspace/data.csv` by itself fails here. Scripts that use paths relative to their
working folder run the same in both places. Output is passed on as it is, so `pwd` shows the real folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from .errors import ApiError

__all__ = ["WORKSPACE", "is_plain", "resolve", "shown", "substitute", "virtual"]

WORKSPACE: Final = "/workspace"

# A whole path component. The text before it must not be the end of another path (`x/workspace`, `$HOME/workspace`,
# `$(pwd)/workspace`, `*/workspace`), and the text behind must not continue the name (`/workspaces`, `/workspace-2`,
# `/workspace.old`). `-I/workspace` stays as it is: it looks like `x/workspace`.
_MENTION: Final = re.compile(r"(?<![\w./~)}\]*?%+@-])/workspace(?![\w.%+@~-])")

# The workspace at the beginning of a path.
_ROOT: Final = re.compile(r"\A/+workspace(?:/+|\Z)")

# Characters that a shell takes literally, quoted or unquoted.
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


def is_plain(folder: Path) -> bool:
    """Whether the path of `folder` means itself in a command, inside quotes of any kind and outside."""
    return _PLAIN.fullmatch(str(folder)) is not None


def substitute(text: str, folder: Path) -> str:
    """`text` with every `/workspace` that is a whole path component replaced by `folder`."""
    return _MENTION.sub(str(folder), text) if WORKSPACE in text else text


def resolve(path: str, folder: Path) -> Path:
    """The real path for a client's `path`, which is absolute under `/workspace` or relative to it.

    Args:
        path: as the client wrote it.
        folder: the sandbox's workspace, with symbolic links resolved.

    Raises:
        ApiError: 400, the path leads outside the workspace, `..` and symbolic links included, or is invalid.
    """
    try:
        real = Path(os.path.realpath(folder / _ROOT.sub("", path)))
    except (ValueError, OSError, RecursionError) as error:  # a NUL, a lone surrogate; a thousand links in a row
        raise _refused(path) from error
    if not real.is_relative_to(folder):
        raise _refused(path)
    return real


def virtual(real: Path, folder: Path) -> str:
    """The path `real`, which is in `folder`, as clients write it."""
    return shown(str(WORKSPACE / real.relative_to(folder)))


def shown(name: str) -> str:
    """A name of the file system as text. Names are bytes there; what is invalid UTF-8 becomes U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def _refused(path: str) -> ApiError:
    return ApiError(400, "INVALID_PATH", f"path must be inside {WORKSPACE}", details={"path": path[:1000]})
