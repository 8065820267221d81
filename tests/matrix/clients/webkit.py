"""Shows a page in WebKitGTK, and prints what it has shown. At "leave" on standard input it closes the tab.

Usage: webkit.py WEBKITWEBDRIVER URL
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

import httpx

from tests.support.programs import free_port


class Driver:
    """WebDriver, as far as it is needed here."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        options = {"alwaysMatch": {"acceptInsecureCerts": True}}
        self._session = f"/session/{self._send('POST', '/session', capabilities=options)['sessionId']}"

    def _send(self, method: str, path: str, **body: Any) -> Any:
        give_up = time.monotonic() + 10
        while True:
            try:
                answer = self._client.request(method, path, json=body if method == "POST" else None)
                return answer.raise_for_status().json()["value"]
            except httpx.ConnectError:  # it has yet to listen
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def show(self, url: str) -> None:
        self._send("POST", f"{self._session}/url", url=url)

    def shown(self) -> list[str]:
        """What the page has shown so far."""
        lines: list[str] = self._send("POST", f"{self._session}/execute/sync", script="return shown", args=[])
        return lines

    def close_tab(self) -> None:
        """Closes the window of the page; another one keeps the browser running."""
        self._send("POST", f"{self._session}/window/new", type="tab")
        self._send("DELETE", f"{self._session}/window")

    def quit(self) -> None:
        self._send("DELETE", self._session)


def main(program: str, url: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # through `finally`
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert display.stdout is not None
    number = display.stdout.readline().decode().strip()
    port = free_port()
    environment = {**os.environ, "DISPLAY": f":{number}"}
    served = subprocess.Popen([program, f"--port={port}"], env=environment, stdout=subprocess.DEVNULL)
    try:
        driver = Driver(port)
        driver.show(url)
        count = 0
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            shown = driver.shown()
            for line in shown[count:]:
                print(line, flush=True)
            count = len(shown)
        if sys.stdin.readline() == "leave\n":
            driver.close_tab()
            sys.stdin.read()
        driver.quit()
    finally:
        for process in (served, display):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
