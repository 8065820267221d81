"""Source distribution and wheel: what a package index shows of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from markdown_it import MarkdownIt

from sse_bridge import __version__
from tests.support.documentation import README, ROOT

REPOSITORY = "https://code.example/owner/sse_bridge"


@dataclass(frozen=True)
class Built:
    """Both distributions, and the metadata that an index reads."""

    paths: list[Path]
    metadata: list[Message]

    @property
    def pages(self) -> list[str]:
        """What an index shows: it is in both."""
        return [payload for each in self.metadata if isinstance(payload := each.get_payload(), str)]


Build = Callable[..., Built]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds as much of the package as its metadata need, with this repository and this README."""

    def run(repository: str, readme: str = README.read_text()) -> Built:
        root = tmp_path_factory.mktemp("checkout")
        (root / "sse_bridge").mkdir()
        for name in ("hatch_build.py", "LICENSE", "sse_bridge/__init__.py"):
            shutil.copy(ROOT / name, root / name)
        project = (ROOT / "pyproject.toml").read_text()
        project, count = re.subn(r'^repository = ".*"$', f'repository = "{repository}"', project, flags=re.MULTILINE)
        assert count == 1
        (root / "pyproject.toml").write_text(project)
        (root / "README.md").write_text(readme)
        hatchling(root)
        (sdist,) = (root / "dist").glob("*.tar.gz")
        (wheel,) = (root / "dist").glob("*.whl")
        with tarfile.open(sdist) as archive, ZipFile(wheel) as package:
            information = archive.extractfile(f"sse_bridge-{__version__}/PKG-INFO")
            assert information is not None
            texts = [information.read(), package.read(f"sse_bridge-{__version__}.dist-info/METADATA")]
        return Built([sdist, wheel], [message_from_bytes(text) for text in texts])

    return run


def hatchling(root: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *arguments],
        cwd=root,
        env={**os.environ, "SSE_BRIDGE_PURE": "1"},
        check=True,
        capture_output=True,
    )


def test_the_source_distribution_has_what_contributors_are_told_to_use(tmp_path: Path) -> None:
    """The files that the pages for them name."""
    pages = [ROOT / "CONTRIBUTING.md", ROOT / "RELEASING.md"]
    named = {name for page in pages for name in re.findall(r"`([^`\s]+)`", page.read_text()) if (ROOT / name).is_file()}
    named |= {".ci/run", ".github/workflows/ci.yml", ".pre-commit-config.yaml"}

    hatchling(ROOT, "-t", "sdist", "-d", str(tmp_path))

    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        assert named - {name.partition("/")[2] for name in archive.getnames()} == set()


@pytest.fixture(scope="module", params=["", REPOSITORY, f"{REPOSITORY}/"], ids=["none", "one", "slash"])
def repository(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(build: Build, repository: str) -> Built:
    return build(repository)


def addresses(page: str) -> list[str]:
    """Of all links and images."""
    tokens = [token for block in MarkdownIt().parse(page) for token in block.children or []]
    found = [
        token.attrs.get("href") or token.attrs.get("src") for token in tokens if token.type in ("link_open", "image")
    ]
    return [str(address) for address in found]


def test_an_index_finds_no_relative_address(built: Built, repository: str) -> None:
    """Those of the repository's lead to files that it has, in the release's own state."""
    ours = f"{REPOSITORY}/(?:blob|raw)/v{re.escape(__version__)}/"
    for page in built.pages:
        found = addresses(page)
        assert "https://miosa.ai" in found
        assert [it for it in found if not it.startswith("https://")] == []
        paths = [re.split(ours, it)[1].partition("#")[0] for it in found if it.startswith(REPOSITORY)]
        assert len(paths) > 20 if repository else not paths
        assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(built.pages) == 2


def test_an_index_shows_the_urls_of_the_repository(built: Built, repository: str) -> None:
    files = f"{REPOSITORY}/blob/v{__version__}"
    urls = [f"Source, {REPOSITORY}", f"Documentation, {files}/docs/index.md", f"Changelog, {files}/CHANGELOG.md"]
    for metadata in built.metadata:
        assert sorted(metadata.get_all("Project-URL", [])) == (sorted(urls) if repository else [])
        assert metadata.get_all("Dynamic") is None


def test_an_index_shows_all_code_as_it_is(built: Built) -> None:
    """Brackets in code are no links."""
    code = re.findall(r"^```.*?^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert code
    for page in built.pages:
        assert re.findall(r"^```.*?^```", page, re.MULTILINE | re.DOTALL) == code


def test_an_index_takes_the_distributions(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr


PAGE = """\
# Title

See the [tutorial](docs/tutorial.md), ([more
of it](docs/more.md#part)), [a site](https://site.example), and `[code](docs/a.md)`.

![A picture](docs/figures/console.png)

```python
table[0](docs)  # [code](docs/b.md)
```

The `first
of two` and [the last](LICENSE) `code`.
"""


def test_without_a_repository_links_name_their_files(build: Build) -> None:
    expected = """\
# Title

See the tutorial (`docs/tutorial.md`), (more
of it: `docs/more.md`), [a site](https://site.example), and `[code](docs/a.md)`.

```python
table[0](docs)  # [code](docs/b.md)
```

The `first
of two` and the last (`LICENSE`) `code`.

`docs/`, `examples/` and the other files that this page names are in the source distribution.
"""
    for page in build("", PAGE).pages:
        assert page.strip() == expected.strip()


def test_with_a_repository_links_lead_there(build: Build) -> None:
    files = f"{REPOSITORY}/blob/v{__version__}"
    expected = (
        PAGE.replace("[tutorial](", f"[tutorial]({files}/")
        .replace("of it](", f"of it]({files}/")
        .replace("[the last](", f"[the last]({files}/")
        .replace("![A picture](", f"![A picture]({REPOSITORY}/raw/v{__version__}/")
    )
    for page in build(REPOSITORY, PAGE).pages:
        assert page.strip() == expected.strip()
