"""The application driven directly through ASGI: `sse_bridge.sandbox.app` and `execs`."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from asgi_lifespan import LifespanManager
from starlette.applications import Starlette
from starlette.types import Message

from sse_bridge.sandbox import create_app
from tests.sandbox.helpers import KEY, frame, is_running, number_soon_in, soon

pytestmark = pytest.mark.anyio


class Page:
    """A client and its server in one: hands the application its messages, and keeps what it sends."""

    def __init__(self, app: Starlette) -> None:
        self.app = app
        self.sent: list[Message] = []
        self.left = anyio.Event()
        #: Set once the response has begun.
        self.begun = anyio.Event()

    async def request(self, method: str, path: str, body: object = None) -> None:
        """Awaits the application for one request, until its coroutine ends."""
        content = json.dumps(body).encode()
        self._body = [content[:1], content[1:], b""]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": f"/api/v1{path}",
            "raw_path": f"/api/v1{path}".encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"authorization", f"Bearer {KEY}".encode())],
        }
        await self.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        """The body in two parts, then the empty rest that some servers send; then waits for the client to leave."""
        if self._body:
            body, *self._body = self._body
            return {"type": "http.request", "body": body, "more_body": len(self._body) > 1}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Accepts every message at once."""
        self.sent.append(message)
        self.begun.set()

    @property
    def status(self) -> int:
        """The response's status."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        """The body as far as it has arrived."""
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def create(app: Starlette) -> tuple[str, Path]:
    """Creates a sandbox; returns the path of its routes, and its folder."""
    page = Page(app)
    await page.request("POST", "/sandboxes", {})
    sandbox_id = json.loads(page.body)["data"]["id"]
    return f"/sandboxes/{sandbox_id}", app.state.sandboxes.get(sandbox_id).folder


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    """An application without lifespan events."""
    return create_app(key=KEY, root=tmp_path / "root")


async def test_it_works_without_lifespan_events(app: Starlette) -> None:
    """Some hosts send none."""
    path, _ = await create(app)
    page = Page(app)

    await page.request("POST", f"{path}/exec/stream", {"command": "echo hello"})

    assert page.body == frame("stdout", {"line": "hello"}) + frame("exit", {"exit_code": 0})
    assert page.sent[-1]["more_body"] is False
    await app.state.sandboxes.close()


async def test_headers_go_out_before_the_first_output(app: Starlette) -> None:
    """An empty part of the body follows them, because some servers hold the headers back until a first part."""
    path, folder = await create(app)
    page = Page(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(page.request, "POST", f"{path}/exec/stream", {"command": "sleep 1000"})
        await soon(lambda: len(page.sent) == 2)
        assert page.status == 200
        assert page.sent[1] == {"type": "http.response.body", "body": b"", "more_body": True}
        tasks.cancel_scope.cancel()
    assert folder.exists()


class Stuck(Page):
    """A client that stops reading after the headers and stays connected."""

    async def send(self, message: Message) -> None:
        """Hangs at the first output, as in a server with full buffers."""
        await super().send(message)
        if message.get("body"):
            await anyio.sleep_forever()


async def test_a_client_that_leaves_while_send_waits_is_noticed(app: Starlette) -> None:
    """The stream stops sending, and the command runs freely to its end."""
    path, folder = await create(app)
    page = Stuck(app)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            command = "yes | head -c 3000000; echo 1 > end"
            tasks.start_soon(page.request, "POST", f"{path}/exec/stream", {"command": command})
            await soon(lambda: bool(page.body))
            page.left.set()
    assert await number_soon_in(folder / "end") == 1
    assert len(page.sent) == 3


async def test_output_waits_while_send_waits(app: Starlette) -> None:
    """The command is held back by a full pipe, while another command, which is read, prints three times the limit."""
    path, folder = await create(app)
    page = Stuck(app)
    limit = 4 * 65_536  # what is being sent, the pipe's content, and one piece of each stream
    lines = "head -c 10000 /dev/zero | tr '\\0' '\\n'"
    held = f"while :; do {lines}; echo $((++n)) > written; done"
    read = f"for each in $(seq {3 * limit // 10_000}); do {lines}; done"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(page.request, "POST", f"{path}/exec/stream", {"command": held})
        await soon(lambda: bool(page.body))
        await Page(app).request("POST", f"{path}/exec", {"command": read})
        written = await number_soon_in(folder / "written")
        tasks.cancel_scope.cancel()
    assert written * 10_000 <= limit


class Gone(Page):
    """A client that has left, on a server that reports this by raising."""

    async def send(self, message: Message) -> None:
        """Raises as ASGI's HTTP specification 2.4 asks for."""
        await super().send(message)
        if message.get("body"):
            raise OSError("the client has left")


async def test_a_send_that_raises_means_that_the_client_has_left(app: Starlette) -> None:
    """The stream ends quietly, and the command goes on."""
    path, folder = await create(app)
    page = Gone(app)

    with anyio.fail_after(10):
        await page.request("POST", f"{path}/exec/stream", {"command": "echo a; sleep 0.1; echo b; echo 1 > end"})

    assert await number_soon_in(folder / "end") == 1
    assert page.body == frame("stdout", {"line": "a"})


async def test_an_answer_that_cannot_be_sent_leaves_children_alive(app: Starlette) -> None:
    """`exec` treats a client that has left as `exec/stream` does."""
    path, folder = await create(app)
    page = Gone(app)

    await page.request("POST", f"{path}/exec", {"command": "(sleep 0.1; echo 1 > end) & echo begun"})

    assert await number_soon_in(folder / "end") == 1


class Last(Page):
    """A client that takes the end of the response slowly."""

    async def send(self, message: Message) -> None:
        """Waits long enough for several heartbeats to fall due."""
        if message.get("more_body") is False:
            await anyio.sleep(0.1)
        await super().send(message)


async def test_the_end_of_the_response_is_the_last_message(tmp_path: Path) -> None:
    """A heartbeat that waits for its turn while the end is sent is dropped."""
    app = create_app(key=KEY, root=tmp_path / "root", heartbeat=0.02)
    path, _ = await create(app)
    page = Last(app)

    await page.request("POST", f"{path}/exec/stream", {"command": "exit 5"})

    assert page.sent[-1] == {"type": "http.response.body", "body": frame("exit", {"exit_code": 5}), "more_body": False}
    await app.state.sandboxes.close()


@pytest.mark.parametrize("form", ["exec", "exec/stream"])
async def test_a_request_that_is_cancelled_kills_its_command(app: Starlette, form: str) -> None:
    """Servers cancel open requests when they shut down."""
    path, folder = await create(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Page(app).request, "POST", f"{path}/{form}", {"command": "echo $$ > pid; sleep 1000; true"})
        pid = await number_soon_in(folder / "pid")
        tasks.cancel_scope.cancel()
    assert not is_running(pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("form", ["exec", "exec/stream"])
async def test_a_request_that_is_cancelled_natively_kills_its_command(app: Starlette, form: str) -> None:
    """uvicorn uses `Task.cancel`, which bypasses anyio's scopes."""
    path, folder = await create(app)
    request = Page(app).request("POST", f"{path}/{form}", {"command": "echo $$ > pid; sleep 1000; true"})
    task = asyncio.ensure_future(request)
    pid = await number_soon_in(folder / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(pid)


async def test_shutting_down_kills_everything_and_removes_the_folders() -> None:
    """Open streams end with an exit frame, and children in the background die."""
    app = create_app(key=KEY)
    page = Page(app)
    async with anyio.create_task_group() as tasks, LifespanManager(app):
        path, folder = await create(app)
        command = "setsid sleep 1000 > /dev/null & echo $! > child; echo $$ > main; sleep 1000; true"
        tasks.start_soon(page.request, "POST", f"{path}/exec/stream", {"command": command})
        pids = [await number_soon_in(folder / name) for name in ("child", "main")]
        await page.begun.wait()  # a stream that has not is refused
    assert page.body == frame("exit", {"exit_code": 137})
    assert not any(map(is_running, pids))
    assert not exists(folder.parent)


async def test_it_can_be_started_again() -> None:
    """The first sandbox after a shutdown gets a new temporary folder."""
    app = create_app(key=KEY)
    for _ in range(2):
        async with LifespanManager(app):
            _, folder = await create(app)
            assert exists(folder)
        assert not exists(folder.parent)


async def test_the_callers_folder_stays(app: Starlette, tmp_path: Path) -> None:
    """Closing removes only the sandboxes' folders in it."""
    _, folder = await create(app)
    assert folder.parent == tmp_path / "root"

    await app.state.sandboxes.close()

    assert list_of(tmp_path / "root") == []


async def test_a_dropped_application_kills_its_commands_and_removes_its_folder() -> None:
    """Without a shutdown, the garbage collector triggers the clean-up."""
    app = create_app(key=KEY)
    path, folder = await create(app)
    await Page(app).request("POST", f"{path}/exec", {"command": "setsid sleep 1000 > /dev/null 2>&1 & echo $! > pid"})
    pid = await number_soon_in(folder / "pid")
    assert is_running(pid)

    del app
    gc.collect()

    await soon(lambda: not is_running(pid))
    assert not exists(folder.parent)


async def test_a_sandbox_destroyed_while_a_command_starts_does_not_keep_it(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`destroy` may have searched for processes before this one started."""
    path, folder = await create(app)
    sandbox = app.state.sandboxes.get(path.rpartition("/")[2])
    open_process: Callable[..., Awaitable[object]] = anyio.open_process

    async def slow(*arguments: object, **options: object) -> object:
        await sandbox.destroy()
        mkdir(folder)
        return await open_process(*arguments, **options)

    monkeypatch.setattr(anyio, "open_process", slow)
    page = Page(app)
    with anyio.fail_after(10):
        await page.request("POST", f"{path}/exec", {"command": "sleep 1000"})

    assert page.status == 409


async def test_a_bug_of_ours_is_answered_and_raised(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets status 500 in the usual envelope, and the server an exception to log."""
    monkeypatch.setattr(app.state.sandboxes, "all", None)
    page = Page(app)

    with pytest.raises(TypeError):
        await page.request("GET", "/sandboxes")

    headers = dict(page.sent[0]["headers"])
    error = json.loads(page.body)["error"]
    assert (page.status, error["code"]) == (500, "INTERNAL_ERROR")
    assert headers[b"x-request-id"].decode() == error["request_id"]


async def test_a_client_that_leaves_before_its_body_is_complete_is_refused(app: Starlette) -> None:
    """The refusal is quiet: the client is gone, and the server has nothing to log."""
    page = Page(app)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    page.receive = receive  # type: ignore[method-assign]
    await page.request("POST", "/sandboxes", {})

    assert page.status == 400


@pytest.mark.parametrize("detached", [False, True])
async def test_a_command_outlives_its_client(app: Starlette, detached: bool) -> None:
    """The answer cannot be sent, which is nothing for the log; the command runs to its end."""
    path, folder = await create(app)
    page = Page(app)

    async def send(message: Message) -> None:
        raise OSError

    page.send = send  # type: ignore[method-assign]
    await page.request("POST", f"{path}/commands", {"command": "sleep 0.05; touch end", "detached": detached})

    assert exists(folder / "end")


async def test_a_reader_of_events_ends_with_its_client(app: Starlette) -> None:
    """The sandbox has no end that would end it."""
    path, _ = await create(app)
    page = Page(app)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(page.request, "GET", f"{path}/events")
            await soon(lambda: len(page.sent) == 2)
            page.left.set()


async def test_a_reader_of_events_that_does_not_read_holds_nothing_back(app: Starlette) -> None:
    """The command prints on, and ends. What the client has missed by then is gone, so the memory is bounded."""
    path, _ = await create(app)
    reader, command = Page(app), Page(app)
    reading = anyio.Event()

    async def send(message: Message) -> None:
        if message.get("body"):
            await reading.wait()
        reader.sent.append(message)

    reader.send = send  # type: ignore[method-assign]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.request, "GET", f"{path}/events")
            await soon(lambda: len(reader.sent) == 2)
            await command.request("POST", f"{path}/exec", {"command": "seq 300000; echo end"})
            assert json.loads(command.body)["data"]["exit_code"] == 0
            reading.set()
            await soon(lambda: b"sandbox.exec.completed" in reader.body)
            reader.left.set()

    lines = reader.body.count(b"event: sandbox.exec.stdout")
    assert b'"line":"end"' in reader.body
    assert 100_000 < lines < 250_000


async def test_a_root_with_characters_special_to_a_shell_is_refused(tmp_path: Path) -> None:
    """Its path replaces `/workspace` in commands, inside quotes of any kind and outside."""
    with pytest.raises(ValueError, match="plain"):
        create_app(key=KEY, root=tmp_path / "my folder")


async def test_an_empty_key_is_refused() -> None:
    """It would admit every client."""
    with pytest.raises(ValueError, match="key"):
        create_app(key="")


async def test_temporary_folders_belong_to_their_owner_alone() -> None:
    """Other users of the machine are kept out."""
    app = create_app(key=KEY)
    _, folder = await create(app)

    assert folder.parent.stat().st_mode & 0o077 == 0
    await app.state.sandboxes.close()


def exists(path: Path) -> bool:
    return path.exists()


def mkdir(path: Path) -> None:
    path.mkdir(parents=True)


def list_of(path: Path) -> list[str]:
    return [each.name for each in path.iterdir()]
