"""Excessive and endless requests are refused or cut off, while others are served."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send

from serve.server.http.bounded_http import BoundedHttp
from serve.server.http.http_json import MAX_BODY
from serve.server.middleware import MAX_SEQUENCES
from tests.support.commands import wait_until
from tests.support.servers.admin_site import Site
from tests.support.servers.hostile import ENDLESS_REQUESTS, HEAD, JUNK, bytes_in_flight, send_endlessly


def test_a_request_for_too_many_answers_is_refused(site: Site) -> None:
    most = MAX_SEQUENCES
    for body, status in [
        ({"prompt": "x", "n": most}, 200),
        ({"prompt": [1] * (most + 1)}, 200),  # one prompt, of token ids
        ({"prompt": [[1]] * 2, "n": most // 2}, 200),
        ({"prompt": "x", "n": most + 1}, 400),
        ({"prompt": ["x", "y"], "n": most}, 400),
        ({"prompt": [[1]] * (most + 1)}, 400),
        ({"prompt": "x", "n": "2"}, 400),
        ({"prompt": "x", "n": 1e9}, 400),
        ({"prompt": "x", "n": True}, 400),
    ]:
        got, _ = asyncio.run(site.request("POST", "/v1/completions", {"model": "toy-base", **body}))
        assert got == status, (str(body)[:80], got)


@pytest.mark.parametrize("part", [*ENDLESS_REQUESTS, "headers", "chunks"])
def test_endless_requests_are_cut_off(site: Site, part: str) -> None:
    """A body, declared or in chunks, is cut off at its limit; anything else at 64 KiB and what one read brings."""
    junk = {
        "headers": b"X: " + JUNK + b"\r\n",
        "chunks": b"1000\r\n" + JUNK + b"\r\n",
    }.get(part, JUNK)
    start = {"headers": HEAD, "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n"}.get(
        part, b""
    ) or ENDLESS_REQUESTS[part]
    allowed = (MAX_BODY if part in ("body", "chunks") else 0) + bytes_in_flight()
    with site.over_http() as url:
        place = urlsplit(url)
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as client:
            sent, answered = send_endlessly(client, start, junk, 2 * allowed)
        assert sent < allowed
        assert b"413" in answered or b"400" in answered or not answered
        connection = http.client.HTTPConnection(place.netloc, timeout=60)
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200
    assert site.inner.calls == []


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Stream a response of 64 MiB."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1024):
        await send({"type": "http.response.body", "body": b"x" * (64 << 10), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def ask_for_much(url: str, site: Site, model: str) -> socket.socket:
    """Send a request from a client with a small buffer that reads nothing."""
    place = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    client.connect((str(place.hostname), int(place.port or 0)))
    body = json.dumps({"model": model, "prompt": "x"}).encode()
    client.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_until(lambda: site.service.in_flight == 1)
    return client


def post(url: str, path: str, body: object) -> int:
    """Send a POST and return the status of its answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse().status


def test_a_client_that_stops_reading_releases_its_adapter(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "write_seconds", 1.0)
    version = site.registry.find("a")
    site.app.router.routes[-1].app = endless  # type: ignore[attr-defined]
    with site.over_http() as url:
        assert post(url, "/admin/adapters/load", {"adapter": "a"}) == 200
        with ask_for_much(url, site, "a") as client:
            assert site.pool.loaded[version.id].requests == 1
            started = time.monotonic()
            assert post(url, "/admin/adapters/unload", {"adapter": "a"}) == 200
            assert time.monotonic() - started < 10
            assert site.service.in_flight == 0
            client.settimeout(30)
            with suppress(ConnectionResetError):
                while client.recv(1 << 20):  # what the system's buffers still hold
                    pass


def test_a_client_that_reads_slowly_gets_its_whole_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "write_seconds", 1.0)
    site.app.router.routes[-1].app = endless  # type: ignore[attr-defined]
    size, started = 0, time.monotonic()
    with site.over_http() as url, ask_for_much(url, site, "toy-base") as client:
        client.settimeout(30)
        while (data := client.recv(1 << 20)) and size < 64 << 20:
            size += len(data)
            if time.monotonic() - started < 3:
                time.sleep(0.05)
    assert size >= 64 << 20
    assert time.monotonic() - started > 3
