"""The files in `examples/many_workers/`, as they are but for their ports: a Redis, three workers, and nginx."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page

from tests.redis.metered import Platform
from tests.support.bridge_process import ROOT
from tests.support.browser import chromium
from tests.support.cutting_proxy import accepting
from tests.support.programs import end, free_port, is_listening, listening
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

FOLDER: Final = ROOT / "examples" / "many_workers"
#: What the page shows of its command in the end.
WHOLE: Final = [*(f"processing batch {number}" for number in range(1, 41)), "[exit 0]"]
#: Milliseconds for a command that takes twenty seconds.
PATIENCE: Final = 60_000
#: The ports that nginx.conf names: of the workers, and its own.
PORTS: Final = ("8001", "8002", "8003", "8080")


class Site:
    """All of it."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.ports = [free_port() for _ in range(3)]
        self.url = ""
        self.workers: list[subprocess.Popen[bytes]] = []
        self._redis = free_port()
        self._folder = folder

    @contextmanager
    def served(self) -> Iterator[Site]:
        """Serves it until the context ends."""
        with ExitStack() as stack:
            command = ["redis-server", str(FOLDER / "redis.conf"), "--port", str(self._redis)]
            stack.enter_context(listening(command, self._redis, _new(self._folder / "redis")))
            stack.callback(self._stop)
            self.workers = [self.start(port) for port in self.ports]
            self.url = stack.enter_context(in_front_of(self.ports, _new(self._folder / "nginx")))
            yield self

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Starts a worker."""
        given = self.platform.settings
        environment = {
            "MIOSA_BASE_URL": given["url"],
            "MIOSA_API_KEY": given["key"],
            "SANDBOX_ID": given["sandbox"],
            "REDIS_URL": f"redis://127.0.0.1:{self._redis}/0",
            "PYTHONPATH": str(ROOT),
        }
        with (self._folder / f"worker-{port}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "examples.many_workers.app:app", "--port", str(port)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: process.poll() is not None or is_listening(port), 30)
        assert process.poll() is None, (self._folder / f"worker-{port}.log").read_text()
        return process

    def owner(self) -> int:
        """Which of the workers reads the only run: it is connected to the platform."""
        platform = int(self.platform.settings["url"].rpartition(":")[2])
        return next(
            index
            for index, worker in enumerate(self.workers)
            if any(each.raddr and each.raddr.port == platform for each in psutil.Process(worker.pid).net_connections())
        )

    def _stop(self) -> None:
        for worker in self.workers:
            end(worker)


@contextmanager
def in_front_of(workers: list[int], folder: Path) -> Iterator[str]:
    """Runs nginx with its file until the context ends; yields the URL."""
    own = free_port()
    ports = dict(zip(PORTS, [*workers, own], strict=True))
    text, count = re.subn("|".join(PORTS), lambda found: str(ports[found[0]]), (FOLDER / "nginx.conf").read_text())
    assert count == len(PORTS)
    if os.geteuid() == 0:  # another user could not enter the folder of the test
        text = f"user root;\n{text}"
    (folder / "nginx.conf").write_text(text)
    with listening(["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")], own, folder):
        yield f"http://127.0.0.1:{own}"


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def site(platform: Platform, tmp_path: Path) -> Iterator[Site]:
    with Site(platform, tmp_path).served() as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


def lines(page: Page) -> list[str]:
    return page.inner_text("pre").splitlines()


def until_batch(page: Page, number: int) -> None:
    """Waits until the page shows it."""
    page.get_by_text(f"processing batch {number}\n").wait_for(timeout=PATIENCE)


def test_a_run_survives_the_death_of_a_worker_that_does_not_read_it(site: Site, page: Page) -> None:
    """Its viewers there come back through nginx. The address of the page shows the same run to other pages."""
    before = site.platform.starts
    page.goto(site.url)
    until_batch(page, 2)
    link = page.url
    assert "#" in link
    pages = [page, *(page.context.new_page() for _ in range(2))]
    for each in pages[1:]:
        each.goto(link)
        until_batch(each, 2)
    owner = site.owner()
    for index in {0, 1, 2} - {owner}:
        site.workers[index].kill()
        site.workers[index].wait()
        for each in pages:
            until_batch(each, len(lines(each)) + 4)
    page.reload()
    for each in pages:
        each.get_by_text("[exit 0]").wait_for(timeout=PATIENCE)
        assert lines(each) == WHOLE
    assert site.platform.starts == before + 1


def test_a_run_survives_a_deploy(site: Site, page: Page) -> None:
    """All workers are replaced, one after another. The one that reads the run goes on until the run is over."""
    before = site.platform.starts
    page.goto(site.url)
    until_batch(page, 2)
    owner = site.owner()
    for index in sorted(range(3), key=lambda index: index == owner):
        site.workers[index].send_signal(signal.SIGTERM)
        site.workers[index].wait(40)
        site.workers[index] = site.start(site.ports[index])
    page.get_by_text("[exit 0]").wait_for(timeout=PATIENCE)
    assert lines(page) == WHOLE
    assert site.platform.starts == before + 1


def test_a_key_starts_one_command_through_nginx(site: Site) -> None:
    """On any worker that nginx picks. A `GET` starts none, since nginx may repeat it."""
    before = site.platform.starts
    headers = {"Accept": "application/json", "Idempotency-Key": "k" * 20}
    answers = [httpx.post(f"{site.url}/run-sse/", headers=headers, timeout=20) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["run"] for answer in answers}) == 1
    assert httpx.get(f"{site.url}/run-sse/").status_code == 403
    assert site.platform.starts == before + 1
    assert httpx.delete(site.url + answers[0].json()["href"]).status_code == 204


def test_nginx_repeats_no_request_that_may_have_started_a_run(tmp_path: Path) -> None:
    """Three workers die when they get a request. A `GET` for a run goes to each of them, a `POST` to one."""
    asked: list[bytes] = []

    def die(client: socket.socket) -> None:
        with client:
            asked.append(client.recv(65536))

    with ExitStack() as stack:
        ports = [stack.enter_context(accepting(die)) for _ in range(3)]
        url = stack.enter_context(in_front_of(ports, tmp_path))
        asked.clear()
        assert httpx.get(f"{url}/run-sse/0123456789abcdef").status_code == 502
        assert len(asked) == 3
    with ExitStack() as stack:
        ports = [stack.enter_context(accepting(die)) for _ in range(3)]
        url = stack.enter_context(in_front_of(ports, _new(tmp_path / "again")))
        asked.clear()
        assert httpx.post(f"{url}/run-sse/").status_code == 502
        assert len(asked) == 1


def test_nginx_asks_another_worker_if_one_is_gone(site: Site) -> None:
    """For a start, too: a worker that takes no connection has got no request."""
    before = site.platform.starts
    for worker in site.workers[:2]:
        worker.kill()
        worker.wait()
    for number in range(3):
        headers = {"Accept": "application/json", "Idempotency-Key": f"k-{number}"}
        answer = httpx.post(f"{site.url}/run-sse/", headers=headers, timeout=20)
        assert answer.status_code == 201
        assert httpx.delete(site.url + answer.json()["href"]).status_code == 204
    assert site.platform.starts == before + 3
