"""Requests that ask for too much or never end are refused or cut off, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serve.asgi import MAX_BODY
from serve.middleware import MAX_SEQUENCES
from tests.admin_site import NO_KEYS, Site
from tests.hostile import ENDLESS, HEAD, JUNK, flood, open_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = open_site(tmp_path, NO_KEYS)
    yield found
    found.lease.close()


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
        got, _ = asyncio.run(site.ask("POST", "/v1/completions", {"model": "toy-base", **body}))
        assert got == status, (str(body)[:80], got)


@pytest.mark.parametrize("part", [*ENDLESS, "headers", "chunks"])
def test_what_has_no_end_is_cut_off(site: Site, part: str) -> None:
    """A declared or a chunked body at its limit, all else at 64 KiB and what one read brings."""
    junk = {
        "headers": b"X: " + JUNK + b"\r\n",
        "chunks": b"1000\r\n" + JUNK + b"\r\n",
    }.get(part, JUNK)
    start = {"headers": HEAD, "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n"}.get(part, b"") or ENDLESS[part]
    allowed = (MAX_BODY if part in ("body", "chunks") else 0) + (12 << 20)  # what the sockets' buffers take besides
    with site.over_http() as url:
        place = urlsplit(url)
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as client:
            sent, answered = flood(client, start, junk, 2 * allowed)
        assert sent < allowed
        assert b"413" in answered or b"400" in answered or not answered
        connection = http.client.HTTPConnection(place.netloc, timeout=60)
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200
    assert site.inner.calls == []
