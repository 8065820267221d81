"""MkDocs hooks: pages link to `examples/` as in a checkout, and the site has copies of these files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the examples to the site."""
    for path in sorted((ROOT / "examples").glob("**/*")):
        if path.is_file() and "__pycache__" not in path.parts:
            source = path.relative_to(ROOT).as_posix()
            files.append(File(source, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Lets links that leave `docs/` lead to the copies. MkDocs then checks them like any other link."""
    return markdown.replace("](../examples/", "](examples/")
