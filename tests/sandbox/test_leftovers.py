"""What commands leave behind, and what clients store, against the routes that meet it later.

The fault: a route breaks, or hangs, or breaks another route, because of a file, a folder, a link or a value that an
earlier request or command left in the sandbox. Each has to be refused or shown, and every other route has to go on
working.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from sse_bridge.sandbox import create_app
from tests.sandbox.helpers import KEY, Box
from tests.support.servers import serve
from tests.support.skipping import skip

#: What makes each kind of leftover under the name `it`, and what a listing says of it.
LEFTOVERS = {
    "a FIFO": ("mkfifo it", "fifo"),
    "a FIFO with a reader": ("mkfifo it; cat it > /dev/null 2>&1 & sleep 0.05", "fifo"),
    "a link to a FIFO": ("mkfifo fifo; ln -s fifo it", "symlink"),
    "a socket": ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"it\")'", "socket"),
    "a device": ("ln -s /dev/zero it", "symlink"),
    "a dangling link": ("ln -s nowhere/at/all it", "symlink"),
    "a cyclic link": ("ln -s it it", "symlink"),
    "two links in a circle": ("ln -s other it; ln -s it other", "symlink"),
    "a thousand links in a row": (
        'python3 -c \'import os; [os.symlink(f"l{n + 1}", f"l{n}") for n in range(1100)]\'; mv l0 it',
        "symlink",
    ),
    "a link out of the workspace": ("ln -s /etc/passwd it", "symlink"),
    "a folder": ("mkdir it", "directory"),
    "a folder deeper than any path": (
        'python3 -c \'import os\nfor n in range(300): os.mkdir("it" if n == 0 else "d" * 100); '
        'os.chdir("it" if n == 0 else "d" * 100)\'',
        "directory",
    ),
}


@pytest.fixture(params=list(LEFTOVERS.values()), ids=list(LEFTOVERS))
def leftover(box: Box, request: pytest.FixtureRequest) -> str:
    """Makes one in the sandbox; returns its type."""
    command, kind = request.param
    box.exec(command)
    return str(kind)


def listed(box: Box) -> dict[str, Any]:
    answer = box.http.get(f"{box.path}/files", params={"depth": 99}).raise_for_status()
    return {each["name"]: each for each in answer.json()["data"]["entries"]}


def test_a_listing_shows_it(box: Box, leftover: str) -> None:
    """With all that is beside it, also at the greatest depth."""
    box.write("zz", "beside")

    entries = listed(box)

    assert entries["it"]["type"] == leftover
    assert entries["it"]["is_dir"] is (leftover == "directory")
    assert "zz" in entries


ROUTES: list[tuple[str, str, object]] = [
    ("POST", "fs/write", {"path": "it", "content": "x"}),
    ("POST", "fs/write", {"path": "it/below", "content": "x"}),
    ("POST", "files", {"path": "it", "content": "eA=="}),
    ("POST", "fs/stat", {"path": "it"}),
    ("POST", "fs/stat", {"path": "it/below"}),
    ("GET", "fs/download?path=it", None),
    ("GET", "files/workspace/it", None),
    ("GET", "files/workspace/it/below", None),
    ("GET", "files?path=it&depth=9", None),
    ("POST", "exec", {"command": "true", "cwd": "it"}),
    ("POST", "exec/stream", {"command": "true", "cwd": "it"}),
]


def test_no_route_fails_or_hangs(box: Box, leftover: str) -> None:
    """Each answers, with what it was asked for or with a refusal."""
    for method, route, body in ROUTES:
        response = box.http.request(method, f"{box.path}/{route}", json=body)
        assert response.status_code in (200, 400, 404, 422), (route, response.text)


@pytest.mark.parametrize("seconds", [6_249_223_622_400, 253_402_300_800, -99_999_999_999])
def test_a_time_that_python_cannot_express_is_left_out(seconds: int) -> None:
    """A file may be of the year 200,000, or older than the year 1."""
    memory = Path("/dev/shm")  # other file systems may lack such times
    if not memory.is_dir():
        skip("there is no /dev/shm")
    with TemporaryDirectory(dir=memory) as root, serve(create_app(key=KEY, root=Path(root))) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http:
            box = Box(http)
            box.exec(f"touch it zz; touch -d @{seconds} it")
            entries = listed(box)
            stat = http.post(f"{box.path}/fs/stat", json={"path": "it"}).json()["data"]
            box.destroy()

    assert (entries["it"]["mtime"], stat["mtime"]) == (None, None)
    assert entries["zz"]["mtime"]


def test_many_at_once_leave_all_other_routes_working(box: Box) -> None:
    """A write to a FIFO used to take one of forty threads for good."""
    box.exec("mkfifo it; ln -s it link")
    for number in range(50):
        path = ("it", "link")[number % 2]
        assert box.http.post(f"{box.path}/fs/write", json={"path": path, "content": "x"}).status_code == 422
        assert box.http.get(f"{box.path}/fs/download", params={"path": path}).status_code == 422
    files = [{"path": "it", "content": "1"}, {"path": "after", "content": "2"}]
    answer = box.http.post(f"{box.path}/fs/write-many", json={"files": files}).json()["data"]

    assert answer["written"] == ["/workspace/after"]
    assert [each["path"] for each in answer["failed"]] == ["it"]
    assert box.read("after") == b"2"


def test_a_reader_of_a_fifo_is_left_alone(box: Box) -> None:
    """To open the FIFO, and to close it again, would tell the reader that its input has ended."""
    box.exec("mkfifo it; (cat it; echo ended > end) > /dev/null 2>&1 & sleep 0.1")
    box.http.post(f"{box.path}/fs/write", json={"path": "it", "content": "x"})
    box.http.get(f"{box.path}/fs/download", params={"path": "it"})
    box.exec("sleep 0.2")

    assert box.read("end") is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", "caf\ufffd"),
        (b"\xff", "\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a lone surrogate, as UTF-8 would encode it
        (b"a\nb\t\x1b[31m", "a\nb\t\x1b[31m"),
        ("ünï".encode(), "ünï"),
    ],
)
def test_a_name_may_be_any_bytes(box: Box, name: bytes, shown: str) -> None:
    """Listings show it, as a file, as a folder, as the target of a link; a write through the link answers."""
    box.write(
        "make.py",
        f"import os\nname = {name!r}\nos.mkdir(name)\nopen(name + b'/file' + name, 'w')\n"
        "os.symlink(name + b'/linked', 'link')\n",
    )
    box.exec("python3 make.py")

    entries = listed(box)
    written = box.http.post(f"{box.path}/fs/write", json={"path": "link", "content": "x"})

    assert {shown, f"file{shown}", "link"} <= entries.keys()
    assert entries[f"file{shown}"]["path"] == f"/workspace/{shown}/file{shown}"
    assert written.json()["data"]["path"] == f"/workspace/{shown}/linked"
    assert box.read("link") == b"x"


def test_a_file_that_grows_or_shrinks_can_be_read(box: Box) -> None:
    """A length that is promised first and broken later would break the connection."""
    size = 30_000_000
    box.exec(f"head -c {size} /dev/zero > it")
    for change in ("head -c 1000000 /dev/zero >> it", "truncate -s 1000 it"):
        with box.http.stream("GET", f"{box.path}/fs/download", params={"path": "it"}) as response:
            parts = response.iter_raw()
            length = len(next(parts))
            box.exec(change)
            length += sum(map(len, parts))
        assert 0 < length <= size + 1_000_000


@pytest.mark.parametrize(
    "command",
    [
        'rm -rf "$PWD"',
        'rm -rf "$PWD"; echo > "$PWD"',
        'd="$PWD"; rm -rf "$d"; ln -s /etc "$d"',
        'd="$PWD"; rm -rf "$d"; ln -s "$d" "$d"',
        'd="$PWD"; rm -rf "$d"; mkfifo "$d"',
    ],
    ids=["removed", "a file", "a link out", "a cyclic link", "a FIFO"],
)
def test_a_workspace_that_is_gone_or_replaced_breaks_nothing_else(http: httpx.Client, command: str) -> None:
    """Its routes answer, other sandboxes go on, and destroying it removes what is there."""
    box, other = Box(http), Box(http)
    folder = Path(str(box.exec("pwd")["stdout"]).strip())
    box.exec(command)
    for method, route, body in (
        ("POST", "exec", {"command": "echo ok"}),
        ("POST", "fs/write", {"path": "a", "content": ""}),
        ("GET", "files", None),
        ("GET", "fs/download?path=a", None),
    ):
        answer = http.request(method, f"{box.path}/{route}", json=body)
        assert answer.status_code in (200, 400, 404, 422)

    assert other.exec("echo ok")["stdout"] == "ok\n"
    assert http.delete(box.path).status_code == 204
    assert not os.path.lexists(folder)
    other.destroy()


def test_commands_run_on_in_a_workspace_that_was_removed(box: Box) -> None:
    """It is made again."""
    box.exec('rm -rf "$PWD"')

    assert box.exec("echo ok; ls | wc -l")["stdout"] == "ok\n0\n"


def test_a_folder_too_deep_to_be_removed_one_by_one_is_removed(http: httpx.Client) -> None:
    """The server descends by recursion, which Python bounds."""
    box = Box(http)
    folder = Path(str(box.exec("pwd")["stdout"]).strip())
    box.exec('python3 -c \'import os\nfor n in range(1200): os.mkdir("d"); os.chdir("d")\'')

    assert http.delete(box.path).status_code == 204
    assert not folder.exists()


# -- folders that are closed to the server: root may enter them, so the server is another user


@pytest.fixture(scope="module")
def modest() -> Iterator[httpx.Client]:
    """A client of a server to which permissions apply."""
    drop = "-dac_override,-dac_read_search,-fowner"
    setpriv = ["setpriv", "--bounding-set", drop, "--inh-caps", drop] if os.geteuid() == 0 else []
    if setpriv and shutil.which("setpriv") is None:
        skip("root needs setpriv (util-linux) to give up its rights")
    command = [*setpriv, sys.executable, "-m", "sse_bridge", "sandbox", "--port", "0"]
    env = {**os.environ, "MIOSA_API_KEY": KEY}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = None
        while not url:
            line = process.stdout.readline()
            assert line, "the server did not start"
            url = re.search(r"export MIOSA_BASE_URL=(\S+)", line)
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{url[1]}/api/v1", headers=headers, timeout=20) as client:
            yield client
        process.terminate()


@pytest.mark.parametrize("mode", ["000", "100", "200", "400"])
def test_closed_files_and_folders_are_refused_or_shown(modest: httpx.Client, mode: str) -> None:
    """A listing shows what it can find out, and goes on beside them."""
    box = Box(modest)
    box.exec(f"mkdir -p dir/sub; touch dir/in file zz; chmod {mode} file dir")

    entries = listed(box)
    answers = [
        box.http.post(f"{box.path}/fs/write", json={"path": path, "content": "x"})
        for path in ("file", "dir/in", "dir/x")
    ]
    answers += [box.http.get(f"{box.path}/fs/download", params={"path": path}) for path in ("file", "dir/in")]
    answers += [box.http.post(f"{box.path}/fs/stat", json={"path": path}) for path in ("file", "dir/in")]
    answers += [box.http.get(f"{box.path}/files", params={"path": "dir"})]
    answers += [box.http.post(f"{box.path}/exec", json={"command": "true", "cwd": "dir"})]

    assert {"dir", "file", "zz"} <= entries.keys()
    if mode == "400":  # its names can be read, and no more
        assert (entries["in"]["type"], entries["in"]["size"]) == ("unknown", None)
    assert {answer.status_code for answer in answers} <= {200, 404, 422}
    assert 422 in {answer.status_code for answer in answers}
    box.destroy()


def test_a_sandbox_with_closed_folders_is_removed(modest: httpx.Client) -> None:
    """No folder stays behind."""
    box = Box(modest)
    folder = Path(str(box.exec("pwd")["stdout"]).strip())
    box.exec("mkdir -p a/b/c; touch a/b/c/file; chmod 000 a/b/c a/b a .")

    assert modest.delete(box.path).status_code == 204
    assert not folder.exists()


# -- values that clients store


def nested(depth: int, brackets: str) -> str:
    opening, closing = brackets.split()
    return opening * depth + closing * depth


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 990, 995, 5_000, 100_000])
@pytest.mark.parametrize("brackets", ["[ ]", '{"a": }'])
@pytest.mark.parametrize("key", ["metadata", "env", "other"])
def test_a_deeply_nested_value_is_refused(http: httpx.Client, depth: int, brackets: str, key: str) -> None:
    """Python's encoder gives up sooner than its parser: what was taken could not be sent back."""
    value = nested(depth, brackets).replace("{}", "{ }").replace(":}", ":0}")
    response = http.post("/sandboxes", content=f'{{"{key}":{{"a":{value}}}}}')

    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_JSON")
    assert http.get("/sandboxes").status_code == 200


@pytest.mark.parametrize(
    "metadata",
    [
        nested(40, "[ ]"),
        '"' + "x" * 900_000 + '"',
        "[" + "1," * 300_000 + "1]",
        "9" * 4_000,
        "-0.0",
        "1e-400",
        '"\\u2028\\u0000\\ud83d\\ude00"',
    ],
    ids=["nested", "a long text", "a long list", "a long number", "minus zero", "almost zero", "odd characters"],
)
def test_metadata_that_is_taken_can_be_read(http: httpx.Client, metadata: str) -> None:
    """By every route that shows it, and beside other sandboxes."""
    created = http.post("/sandboxes", content=f'{{"name":"odd","metadata":{{"a":{metadata}}}}}')
    assert created.status_code == 201, created.text
    made = created.json()["data"]

    for path in (f"/sandboxes/{made['id']}", "/sandboxes/by-name/odd"):
        assert http.get(path).json()["data"]["metadata"] == made["metadata"]
    assert made["id"] in [each["id"] for each in http.get("/sandboxes").json()["data"]]
    http.delete(f"/sandboxes/{made['id']}")
    assert http.get(f"/sandboxes/{made['id']}").json()["data"]["metadata"] == made["metadata"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000])
@pytest.mark.parametrize("body", ['{"metadata":{"a":%s}}', '{"metadata":{"a":[{"b":%s}]}}', '{"other":%s}'])
def test_a_number_that_json_lacks_is_refused(http: httpx.Client, body: str, value: str) -> None:
    """Wherever it stands: a client could not read it back."""
    assert http.post("/sandboxes", content=body % value).status_code == 400
    assert http.get("/sandboxes").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"\\ud800"}',
        '{"template_id":"\\udfff"}',
        '{"metadata":{"\\ud800":1}}',
        '{"metadata":{"a":["\\udc80"]}}',
        '{"env":{"\\ud800":"a"}}',
        '{"env":{"a":"\\ud800"}}',
    ],
)
def test_a_lone_surrogate_is_refused_wherever_it_stands(http: httpx.Client, body: str) -> None:
    """UTF-8 could not carry it back."""
    assert http.post("/sandboxes", content=body).status_code == 422
    assert http.get("/sandboxes").status_code == 200
