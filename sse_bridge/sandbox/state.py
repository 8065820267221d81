"""The sandboxes of an application, from creation to destruction: their folders, processes and readiness.

Of HTTP it knows only `ApiError`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import Process

from .errors import ApiError, invalid, not_found, not_paused, not_running
from .feed import Feed
from .jobs import Jobs
from .kept import KeptOutput
from .life import Life, State
from .paths import is_plain, resolve, substitute
from .processes import MARKER, CannotStart, Command, end_all, freeze, group_is_left, kill_all, running, thaw
from .profiles import PROFILES, Profile, choose
from .requests import ExecRequest, environment, mapping, optional_text, seconds
from .times import iso
from .turns import Turn

__all__ = ["READY_AFTER", "Replays", "Sandbox", "Sandboxes"]

#: The key in a new sandbox's `metadata` that delays its readiness for commands, in seconds. It is our own: tests use it
#: to see how a client behaves while a sandbox starts. Until then the sandbox is `running` but not `ready`, and refuses
#: commands with 409 `SANDBOX_NOT_COMMAND_READY`. Files can be written at once.
READY_AFTER: Final = "sse_bridge.ready_after"

#: What stands for the platform's region in events.
_REGION: Final = "local"
#: Destroyed sandboxes that can still be looked up. The platform keeps them for a time that is not documented.
_MAX_DESTROYED: Final = 1000


class Sandbox:
    """One sandbox: a folder, and the processes that run in it.

    Args:
        folder: the parent of its folder.
        body: the client's request, as MIOSA's `POST /sandboxes` takes it; most keys are ignored here.
        profile: how it behaves, unless the request says it.

    Raises:
        ApiError: 422, a value is wrong.
    """

    def __init__(self, folder: Path, body: Mapping[str, object], profile: Profile) -> None:
        self.id = f"sbx_{secrets.token_hex(8)}"
        self._name = optional_text(body.get("name"), "name")
        self._template = optional_text(body.get("template_id"), "template_id")
        self._metadata = mapping(body.get("metadata"), "metadata")
        self._env = environment(body.get("env"))
        #: How it behaves.
        self.profile = choose(body.get("runtime_profile"), profile)
        #: Which command may run.
        self.turn = Turn(is_exclusive=self.profile.one_at_a_time)
        self.life = Life(seconds(self._metadata.get(READY_AFTER), READY_AFTER) or self.profile.ready_after)
        self._processes: set[Process] = set()  # leaders of groups that may still have members
        #: Commands that were started to run by themselves.
        self.processes = Jobs("process")
        #: The same, by another route.
        self.commands = Jobs("command")
        #: What happens in it.
        self.feed = Feed()
        #: What its processes and detached commands print.
        self.log = KeptOutput()
        self.folder = folder / self.id
        self.folder.mkdir(mode=0o700)
        # Stands in for `destroy` where the host sends no lifespan events, or drops the application.
        self._sweep = weakref.finalize(self, _sweep, self.id, self.folder, self._processes)

    @property
    def name(self) -> str | None:
        """The client's name for it."""
        return self._name

    @property
    def state(self) -> State:
        """The state, as clients see it."""
        return self.life.state

    def view(self, state: str | None = None) -> dict[str, object]:
        """The sandbox as clients see it, in its own state or in another.

        The SDK reads `state`, MIOSA's documentation shows `status`.
        """
        state = state or self.state
        return {
            "id": self.id,
            "state": state,
            "status": state,
            "ready": state == "running" and self.life.is_ready,
            "name": self._name,
            "template_id": self._template,
            "metadata": self._metadata,
            "persistent": False,
            "created_at": iso(self.life.created),
            "destroyed_at": self.life.destroyed and iso(self.life.destroyed),
        }

    @asynccontextmanager
    async def run(self, request: ExecRequest, *, starting: str = "SANDBOX_NOT_COMMAND_READY") -> AsyncIterator[Command]:
        """Runs a command in the sandbox. Its children in the background may outlive the context.

        Args:
            request: what to run.
            starting: the code of the refusal while the sandbox is starting, which depends on the route.

        Raises:
            ApiError: 409 before the sandbox is ready and in other states than `running`, 400 for a `cwd` outside the
                workspace, 422 for a `cwd` that is not a folder and for a command that is too long.
        """
        await self.life.admit(request.wait, starting)
        with suppress(OSError):  # an earlier command removed it; if it cannot be made, the start says so
            self.folder.mkdir(mode=0o700, exist_ok=True)
        cwd = resolve(request.cwd or ".", self.folder)
        text = substitute(request.command, self.folder)
        env = self._environment(request.env)
        try:
            async with running(
                text,
                cwd=cwd,
                env=env,
                timeout=request.timeout,
                stdin=request.stdin,
                max_output=request.max_output,
            ) as command:
                self._processes.add(command.process)
                self.life.demand_running()  # `stop` and others may have searched before this process started
                self.notice_start()
                with self.feed.reporting(request.command) as events:
                    command.observe(events)
                    yield command
        except CannotStart as error:
            raise invalid(str(error), field=error.culprit) from error
        finally:
            self._forget_ended()

    def notice_start(self) -> None:
        """Makes known that it has started, if it has. No task waits for a start: requests find it out."""
        if self.life.is_ready:
            self.feed.publish_start(sandbox_id=self.id, region=_REGION)

    def pause(self) -> None:
        """Freezes all its processes.

        Raises:
            ApiError: 409, it is not running.
        """
        self.life.demand_running()
        self.life.enter("paused")
        freeze(self.id, self._processes)
        self.feed.publish("sandbox.paused", sandbox_id=self.id)

    async def stop(self) -> None:
        """Kills all its processes, and keeps its folder.

        Raises:
            ApiError: 409, it is neither running nor paused.
        """
        if self.state != "paused":
            self.life.demand_running()
        self.life.enter("pausing")
        try:
            await end_all(self.id, self._processes)
        finally:
            self.life.enter("stopped")
        self.feed.publish("sandbox.stopped", sandbox_id=self.id)

    def resume(self, env: Mapping[str, str]) -> None:
        """Lets its processes go on, if it has any.

        Args:
            env: variables for commands from now on, beside those of its creation.

        Raises:
            ApiError: 409, it is neither paused nor stopped.
        """
        if self.life.is_closing:
            raise not_running(self.state)
        if self.state not in ("paused", "stopped"):
            raise not_paused(self.state)
        self._env = {**self._env, **env}
        thaw(self.id, self._processes)
        self.life.enter("running")
        self.feed.publish("sandbox.resumed", sandbox_id=self.id)

    async def destroy(self) -> None:
        """Kills all its processes, then removes its folder. May be called again."""
        self.life.enter("destroying")
        await end_all(self.id, self._processes)
        await anyio.to_thread.run_sync(_remove, self.folder)
        self._sweep.detach()
        self.life.enter("destroyed")
        self.feed.publish("sandbox.destroyed", sandbox_id=self.id)
        self.feed.close()
        self.log.close()

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """A command's environment. Of the server's own it gets `PATH` only: the rest may hold the API key."""
        given = {name: substitute(value, self.folder) for name, value in {**self._env, **env}.items()}
        base = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LANG": "C.UTF-8"}
        return {**base, **given, MARKER: self.id}

    def _forget_ended(self) -> None:
        self._processes -= {each for each in self._processes if each.returncode is not None and not group_is_left(each)}


class Sandboxes:
    """All sandboxes of one application.

    Args:
        root: the parent of their folders; `None` for a temporary one, which `close` removes.
        profile: how they behave, unless a request says it.

    Raises:
        ValueError: the folder's path has characters special to a shell. It replaces `/workspace` in commands, inside
            quotes of any kind and outside.
    """

    def __init__(self, root: Path | None = None, profile: Profile = PROFILES["standard"]) -> None:
        self._root = root
        self._profile = profile
        parent = Path(os.path.realpath(root or tempfile.gettempdir()))
        if not is_plain(parent):
            raise ValueError(f"the path of the sandboxes' folder must consist of plain characters: {parent}")
        self._parent = parent
        self._temporary: Path | None = None
        self._sandboxes: dict[str, Sandbox] = {}
        self._destroyed: OrderedDict[str, Sandbox] = OrderedDict()
        self.replays = Replays()

    def create(self, body: Mapping[str, object]) -> Sandbox:
        """Creates a sandbox.

        Raises:
            ApiError: 422, as `Sandbox`.
        """
        sandbox = Sandbox(self._folder(), body, self._profile)
        self._sandboxes[sandbox.id] = sandbox
        return sandbox

    def get(self, sandbox_id: str) -> Sandbox:
        """The sandbox with that id, for using it.

        Raises:
            ApiError: 404, it is unknown; 409, it is in another state than `running`.
        """
        sandbox = self.find(sandbox_id)
        sandbox.life.demand_running()
        return sandbox

    def watched(self, sandbox_id: str) -> Sandbox:
        """The sandbox with that id, for looking at it while it runs or rests.

        Raises:
            ApiError: 404, it is unknown; 409, it is destroyed, or being destroyed.
        """
        sandbox = self.find(sandbox_id)
        if sandbox.life.is_closing:
            raise not_running(sandbox.state)
        return sandbox

    def find(self, sandbox_id: str) -> Sandbox:
        """The sandbox with that id, in any state.

        Raises:
            ApiError: 404, it is unknown.
        """
        sandbox = self._sandboxes.get(sandbox_id) or self._destroyed.get(sandbox_id)
        if sandbox is None:
            raise not_found("sandbox")
        return sandbox

    def named(self, name: str) -> Sandbox:
        """The oldest sandbox with that name. A destroyed one is not found, so that its name can be reused.

        Raises:
            ApiError: 404, no sandbox has the name.
        """
        for sandbox in self.all():
            if sandbox.name == name:
                return sandbox
        raise not_found("sandbox")

    def all(self, state: str | None = None) -> list[Sandbox]:
        """All sandboxes in that state, oldest first. `None`: all that are still to be destroyed."""
        known = (*self._destroyed.values(), *self._sandboxes.values())
        return [each for each in known if (each.state == state if state else not each.life.is_closing)]

    async def destroy(self, sandbox: Sandbox) -> None:
        """Destroys a sandbox, and keeps what is known of it. May be called again."""
        await sandbox.destroy()
        if self._sandboxes.pop(sandbox.id, None) is not None:
            self._destroyed[sandbox.id] = sandbox
            if len(self._destroyed) > _MAX_DESTROYED:
                self._destroyed.popitem(last=False)

    async def close(self) -> None:
        """Destroys all sandboxes and removes the temporary folder. Sandboxes created later get a new folder."""
        async with anyio.create_task_group() as tasks:
            for sandbox in self._sandboxes.values():
                tasks.start_soon(self.destroy, sandbox)
        if self._temporary is not None:
            folder, self._temporary = self._temporary, None
            await anyio.to_thread.run_sync(_remove, folder)

    def _folder(self) -> Path:
        if self._root is not None:
            self._parent.mkdir(parents=True, exist_ok=True)
            return self._parent
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="sse_bridge-", dir=self._parent))
            weakref.finalize(self, _remove, self._temporary)
        return self._temporary


class _Replay(NamedTuple):
    request: str
    answer: dict[str, object]


class Replays:
    """The answers to requests with an `Idempotency-Key`, for requests that repeat the key.

    The platform keeps answers for 24 hours; this class keeps the last `limit`.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._replays: OrderedDict[str, _Replay] = OrderedDict()

    def find(self, key: str, body: Mapping[str, object]) -> dict[str, object] | None:
        """The answer to an earlier request with this key, or `None` if the key is new.

        Raises:
            ApiError: 409, the earlier request had another body.
        """
        replay = self._replays.get(key)
        if replay is None:
            return None
        if replay.request != json.dumps(body, sort_keys=True):
            raise ApiError(409, "IDEMPOTENCY_PAYLOAD_MISMATCH", "this Idempotency-Key came with another body before")
        return replay.answer

    def keep(self, key: str, body: Mapping[str, object], answer: dict[str, object]) -> None:
        """Remembers an answer."""
        self._replays[key] = _Replay(json.dumps(body, sort_keys=True), answer)
        if len(self._replays) > self._limit:
            self._replays.popitem(last=False)


def _sweep(name: str, folder: Path, processes: Collection[Process]) -> None:
    """Ends a sandbox without waiting: on garbage collection, or when Python exits."""
    kill_all(name, processes)
    _remove(folder)


def _remove(folder: Path) -> None:
    # Twice: a killed process may still finish a system call that creates a file.
    for _ in range(2):
        if folder.is_dir() and not folder.is_symlink():  # `rmtree` waits at a FIFO
            with suppress(RecursionError):  # before Python 3.13, folders a thousand levels deep
                shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):  # closed to us, too deep, or replaced by something else: rare, so `rm` may do it
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
