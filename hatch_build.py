"""What Hatchling asks of us when it builds the package: the page for package indexes, and the C twin.

The page is README.md. Its links lead to files beside it, which an index lacks, so they are pointed at the repository.

The C twin (`sse_bridge/_speedups.c`) is compiled where there is a compiler: see `docs/speedups.md`. setuptools runs the
compiler, since it knows those of all systems. Where that fails, or `SSE_BRIDGE_PURE` is set, the wheel is one of pure
Python. An editable install compiles into the source tree.
"""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from setuptools import Distribution, Extension

#: The first Python of the stable ABI that the source asks for.
STABLE: str = "cp311"

#: In Markdown: code, which stays as it is; or an image or a link, with the parentheses that it fills, if any.
LINK: re.Pattern[str] = re.compile(
    r"""(?P<code>^```.*?^```|`[^`]+`)
    |(?P<open>\((?=\[[^\]]*\]\([^)\s]+\)\)))?
    (?P<image>!)?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)
    (?(open)\))(?P<after>(?(image)\n*))""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
#: The last sentence of a page without links.
WHERE: str = "`docs/`, `examples/` and the other files that this page names are in the source distribution."


class IndexPage(MetadataHookInterface):
    """Hatchling calls this for the fields of the metadata that are dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = self.config["repository"].rstrip("/")
        tag = f"v{metadata['version']}"
        readme = Path(self.root, "README.md").read_text("utf-8")
        page = linked(readme, repository, tag) if repository else unlinked(readme)
        metadata["readme"] = {"content-type": "text/markdown", "text": page}
        pages = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md"}
        addresses = {name: f"{repository}/blob/{tag}/{path}" for name, path in pages.items()}
        metadata["urls"] = {"Source": repository, **addresses} if repository else {}


def linked(page: str, repository: str, tag: str) -> str:
    """The page with links to a repository's files, by paths that GitHub and GitLab understand."""

    def absolute(found: re.Match[str]) -> str:
        if not is_relative(found):
            return found[0]
        kind = "raw" if found["image"] else "blob"
        return found[0].replace(f"]({found['target']})", f"]({repository}/{kind}/{tag}/{found['target']})")

    return LINK.sub(absolute, page)


def unlinked(page: str) -> str:
    """The page with the names of files in place of links to them, and without images."""

    def named(found: re.Match[str]) -> str:
        if not is_relative(found):
            return found[0]
        if found["image"]:
            return ""
        file = f"`{found['target'].partition('#')[0]}`"
        return f"({found['text']}: {file})" if found["open"] else f"{found['text']} ({file})"

    return f"{LINK.sub(named, page)}\n{WHERE}\n"


def is_relative(found: re.Match[str]) -> bool:
    """Whether it is a link or an image with an address that needs the page's own."""
    return not found["code"] and re.match("[a-z]+:", found["target"]) is None


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
