"""Compiles the C twin (`sse_bridge/_speedups.c`) where there is a compiler: see `docs/speedups.md`.

setuptools runs the compiler, since it knows those of all systems. Where that fails, or `SSE_BRIDGE_PURE` is set, the
wheel is one of pure Python. An editable install compiles into the source tree.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

#: The first Python of the stable ABI that the source asks for.
STABLE: str = "cp311"


class Speedups(BuildHookInterface[Any]):
    """Hatchling calls this before it builds a wheel, or an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("SSE_BRIDGE_PURE", "0") not in ("", "0"):
            return
        is_stable = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded builds have no stable ABI
        directory = self.root if version == "editable" else mkdtemp()
        try:
            built = compiled(Path(self.root), Path(directory), is_stable=is_stable)
        except (Exception, SystemExit) as error:  # compilers fail in many ways
            self.app.display_warning(f"The C twin of sse_bridge is left out, Python does its work: {error}")
            return
        if version == "editable":
            return
        build_data["force_include"][str(built)] = f"sse_bridge/{built.name}"
        build_data["pure_python"] = False
        tag = self.build_config.builder.get_best_matching_tag()
        build_data["tag"] = f"{STABLE}-abi3-{tag.split('-', 2)[2]}" if is_stable else tag


def compiled(root: Path, directory: Path, *, is_stable: bool) -> Path:
    """Compiles the extension to a package `sse_bridge` in a directory; returns its path."""
    os.chdir(root)
    macros = [] if is_stable else [("Py_GIL_DISABLED", "1")]  # only some systems' pyconfig.h says that
    extension = Extension(
        "sse_bridge._speedups", ["sse_bridge/_speedups.c"], define_macros=macros, py_limited_api=is_stable
    )
    command = Distribution({"name": "sse_bridge", "ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(directory), mkdtemp()
    command.ensure_finalized()
    command.run()
    return directory / str(command.get_ext_filename(extension.name))
