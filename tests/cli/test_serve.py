"""`sse-bridge serve`: a bridge for one command, which must not become an open shell."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import expect

from tests.cli.conftest import PROGRAM, Piped
from tests.support.browser import chromium
from tests.support.modules import watching_problems
from tests.support.programs import banner_of
from tests.support.sandboxes import LocalSandbox

pytestmark = pytest.mark.slow


@contextmanager
def serving(environment: dict[str, str], *arguments: str) -> Iterator[tuple[str, str]]:
    """Yields the URL, and what it prints."""
    command = [*PROGRAM, "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            banner = banner_of(process)
            (url,) = re.findall(r"to (\S+/run-sse/) runs", banner)
            yield url, banner
            process.terminate()
            process.wait(15)
        finally:
            process.kill()


def test_it_runs_the_one_command(sandbox: LocalSandbox, environment: dict[str, str], piped: Piped) -> None:
    """Whatever a client sends."""
    with serving(environment, sandbox.id, "--", "echo hello; exit 3") as (url, _):
        done = piped("follow", url + "?command=id")
        assert (done.stdout, done.returncode) == (b"hello\n", 3)
        with httpx.Client() as client:
            foreign = client.get(url, headers={"Host": "evil.example"})
            assert foreign.status_code == 421
            assert client.post(url, headers={"Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("own", [None, "a-token-of-my-own"])
def test_other_addresses_need_a_token(own: str | None, sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    """A random one, unless the user names one, which is not shown then."""
    arguments = ["--host", "0.0.0.0", *([] if own is None else ["--token", own])]
    with serving(environment, *arguments, sandbox.id, "echo hello") as (url, banner), httpx.Client() as client:
        token = own or re.findall(r"SSE_BRIDGE_TOKEN=(\S+)", banner)[0]
        assert own is None or own not in banner
        assert client.get(url).status_code == 401
        assert client.get(url, params={"token": token + "x"}).status_code == 401
        for params, headers in (({"token": token}, {}), ({}, {"Authorization": f"Bearer {token}"})):
            answer = client.get(url, params=params, headers=headers)
            assert answer.status_code == 200
            assert '"line":"hello"' in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_its_address_is_a_page_that_runs_the_command(
    host: str, sandbox: LocalSandbox, environment: dict[str, str]
) -> None:
    """Where there is a token, the page has it from its address. Without it there is no page."""
    with (
        serving(environment, "--host", host, sandbox.id, "echo hello; exit 3") as (_, banner),
        chromium() as browser,
    ):
        (address,) = re.findall(r"Run button: (\S+)", banner)
        page = browser.new_page()
        with watching_problems(page, []):
            page.goto(address)
            page.get_by_role("button", name="Run").click()
            expect(page.locator("sse-console")).to_contain_text("hello")
            expect(page.locator("sse-console")).to_contain_text("3")
            assert "run=" in page.url
        if host == "0.0.0.0":
            assert httpx.get(address.partition("?")[0]).status_code == 401


def test_without_a_key_it_does_not_start(sandbox: LocalSandbox, piped: Piped) -> None:
    done = piped("serve", sandbox.id, "true", MIOSA_API_KEY="")
    assert done.returncode == 1
    assert b"MIOSA_API_KEY" in done.stderr
