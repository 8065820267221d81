"""Follows a stream with httpx-sse. Usage: httpx_sync.py URL [PLACE]"""

from __future__ import annotations

import sys

import httpx
import httpx_sse


def main(url: str, place: str = "") -> None:
    headers = {"Last-Event-ID": place} if place else {}
    with (
        httpx.Client(timeout=30) as client,
        httpx_sse.connect_sse(client, "GET", url, headers=headers) as source,
    ):
        print("status:", source.response.status_code, flush=True)
        if source.response.status_code == 200:
            for event in source.iter_sse():
                print(f"id: {event.id}\ndata: {event.data}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
