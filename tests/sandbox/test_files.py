"""The files of a sandbox: `sse_bridge.sandbox.files`."""

from __future__ import annotations

import base64

import pytest

from tests.sandbox.helpers import Box


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("fs/write", {"content_base64": b64(b"\x00\xff")}),
        ("files", {"content": b64(b"\x00\xff")}),
    ],
)
def test_bytes_are_written_as_they_are(box: Box, route: str, body: dict[str, object]) -> None:
    """The older route reads `content` as base64. Missing folders are created."""
    response = box.http.post(f"{box.path}/{route}", json={"path": "/workspace/a/b.bin", **body})

    assert response.json() == {"data": {"path": "/workspace/a/b.bin", "size": 2}}
    assert box.read("/workspace/a/b.bin") == b"\x00\xff"


def test_text_is_written_as_it_is(box: Box) -> None:
    """The newer route takes `content` literally."""
    box.write("a.txt", "aGk=")

    assert box.read("a.txt") == b"aGk="


@pytest.mark.parametrize("route", ["fs/write-many", "files/write-many"])
def test_many_files_are_written_and_failures_are_listed(box: Box, route: str) -> None:
    """The files after a refused one are still written."""
    files = [
        {"path": "/workspace/a", "content_base64": b64(b"1")},
        {"path": "/etc/evil", "content_base64": b64(b"2")},
        {"path": "b", "content_base64": b64(b"3")},
        {"path": "c"},
    ]
    answer = box.http.post(f"{box.path}/{route}", json={"files": files}).json()["data"]

    assert answer["written"] == ["/workspace/a", "/workspace/b"]
    assert [each["path"] for each in answer["failed"]] == ["/etc/evil", "c"]
    assert (box.read("a"), box.read("b")) == (b"1", b"3")


def test_the_older_route_reads_by_path_in_the_url(box: Box) -> None:
    """The URL holds the path without its first slash, each part quoted."""
    box.write("/workspace/a b#c.txt", "x")

    assert box.http.get(f"{box.path}/files/workspace/a%20b%23c.txt").content == b"x"


@pytest.mark.parametrize("route", ["fs/stat", "files/stat"])
def test_stat_returns_kind_and_size(box: Box, route: str) -> None:
    """For files and for folders."""
    box.write("sub/a.txt", "12345")

    file = box.http.post(f"{box.path}/{route}", json={"path": "/workspace/sub/a.txt"}).json()["data"]
    folder = box.http.post(f"{box.path}/{route}", json={"path": "/workspace"}).json()["data"]

    assert (file["path"], file["name"], file["type"], file["size"]) == (
        "/workspace/sub/a.txt",
        "a.txt",
        "file",
        5,
    )
    assert (folder["path"], folder["name"], folder["is_dir"]) == ("/workspace", "workspace", True)


def test_a_listing_goes_as_deep_as_asked(box: Box) -> None:
    """One level by default. Links are listed as links, rather than followed."""
    box.write("b/c/d", "")
    box.write("a", "")
    box.exec("ln -s /etc b/link")

    def listed(**params: str) -> list[tuple[str, str]]:
        data = box.http.get(f"{box.path}/files", params=params).json()["data"]
        return [(each["path"].removeprefix("/workspace/"), each["type"]) for each in data["entries"]]

    assert listed() == [("a", "file"), ("b", "directory")]
    assert listed(path="/workspace/b", depth="1") == [("b/c", "directory"), ("b/link", "symlink")]
    assert [path for path, _ in listed(depth="9")] == ["a", "b", "b/c", "b/c/d", "b/link"]


def test_a_large_listing_is_cut_and_says_so(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """`truncated` says so; the limit bounds memory."""
    monkeypatch.setattr("sse_bridge.sandbox.files._MAX_ENTRIES", 20)
    box.exec("seq 21 | xargs touch")

    data = box.http.get(f"{box.path}/files").json()["data"]

    assert len(data["entries"]) == 20
    assert data["truncated"] is True


@pytest.mark.parametrize(
    ("method", "route", "arguments", "status", "code"),
    [
        ("POST", "fs/write", {"path": "/etc/x", "content": ""}, 400, "INVALID_PATH"),
        ("POST", "fs/write", {"path": "../x", "content": ""}, 400, "INVALID_PATH"),
        ("POST", "files", {"path": "../x", "content": ""}, 400, "INVALID_PATH"),
        ("POST", "fs/stat", {"path": "/workspace/../.."}, 400, "INVALID_PATH"),
        ("GET", "fs/download", {"path": "/etc/passwd"}, 400, "INVALID_PATH"),
        ("GET", "files/etc/passwd", {}, 400, "INVALID_PATH"),
        ("GET", "files", {"path": "/"}, 400, "INVALID_PATH"),
        ("GET", "files", {"depth": "0"}, 422, "VALIDATION_ERROR"),
        ("GET", "files", {"depth": "x"}, 422, "VALIDATION_ERROR"),
        ("GET", "files", {"path": "nothing"}, 404, "NOT_FOUND"),
        ("GET", "fs/download", {}, 400, "MISSING_PARAM"),
        ("GET", "fs/download", {"path": "nothing"}, 404, "NOT_FOUND"),
        ("GET", "fs/download", {"path": "/workspace"}, 422, "VALIDATION_ERROR"),
        ("POST", "fs/stat", {"path": "nothing"}, 404, "NOT_FOUND"),
        ("POST", "fs/stat", {}, 400, "MISSING_PARAM"),
        ("POST", "fs/write", {"path": "x"}, 400, "MISSING_PARAM"),
        ("POST", "fs/write", {"path": "x", "content": 7}, 422, "VALIDATION_ERROR"),
        ("POST", "fs/write", {"path": "x" * 300, "content": ""}, 422, "VALIDATION_ERROR"),
        ("POST", "fs/write", {"path": "/workspace", "content": ""}, 422, "VALIDATION_ERROR"),
        ("POST", "fs/write", {"path": "x", "content_base64": "?"}, 422, "VALIDATION_ERROR"),
        ("POST", "files", {"path": "x"}, 400, "MISSING_PARAM"),
        ("POST", "fs/write-many", {}, 422, "VALIDATION_ERROR"),
        ("POST", "fs/write-many", {"files": ["x"]}, 422, "VALIDATION_ERROR"),
    ],
)
def test_wrong_paths_and_values_are_refused(
    shared_box: Box, method: str, route: str, arguments: dict[str, object], status: int, code: str
) -> None:
    """Paths outside the workspace, paths of the wrong kind, values of the wrong type."""
    given = {"json": arguments} if method == "POST" else {"params": arguments}
    response = shared_box.http.request(method, f"{shared_box.path}/{route}", **given)  # type: ignore[arg-type]

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_lone_surrogate_is_refused(box: Box) -> None:
    """JSON allows it, but UTF-8 and file systems refuse it."""
    for body in (b'{"path":"\\ud800","content":""}', b'{"path":"a","content":"\\ud800"}'):
        assert box.http.post(f"{box.path}/fs/write", content=body).status_code == 422
    failed = box.http.post(f"{box.path}/fs/write-many", content=b'{"files":[{"path":"\\ud800"}]}').json()
    assert failed["data"]["failed"][0]["path"] == "?"
