"""A draining server finishes its requests and refuses new ones; a shutdown drains first."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from serve.server.plugin import drain_before_shutdown
from serve.server.service import Service
from tests.support.servers.admin_site import Site


def test_a_draining_server_is_not_ready_and_finishes_what_it_has(site: Site) -> None:
    async def scenario() -> None:
        site.inner.hold = asyncio.Event()
        running = asyncio.create_task(site.request("POST", "/v1/completions", {"model": "toy-base"}))
        while not site.inner.calls:
            await asyncio.sleep(0)
        drained = asyncio.create_task(asyncio.to_thread(site.service.drain, 10))
        while not site.service.draining:
            await asyncio.sleep(0)
        assert (await site.request("GET", "/ready"))[0] == 503
        assert (await site.request("POST", "/v1/completions", {"model": "toy-base"}))[0] == 503
        assert not drained.done()
        site.inner.hold.set()
        assert (await running)[0] == 200
        assert await drained
        assert not await asyncio.to_thread(_drain_with_one_left, site.service)

    asyncio.run(scenario())


def test_a_request_that_comes_as_a_drain_ends_is_refused(site: Site) -> None:
    """The drain finds nothing in flight after the request arrived and before it was counted."""
    count = site.service.request

    def counted_late() -> Any:
        assert site.service.drain(0.0)
        return count()

    site.service.request = counted_late  # type: ignore[method-assign]
    assert asyncio.run(site.request("POST", "/v1/completions", {"model": "toy-base"}))[0] == 503
    assert site.inner.calls == []


def _drain_with_one_left(service: Service) -> bool:
    with service.request():
        return service.drain(0.01)


def test_a_draining_server_says_when_to_retry(site: Site) -> None:
    """The readiness probe and a request to a model both get status 503 and Retry-After."""
    site.service.draining = True
    body, headers = json.dumps({"model": "toy-base"}), {"Content-Type": "application/json"}
    with site.over_http() as url:
        for method, path in (("GET", "/ready"), ("POST", "/v1/completions")):
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
            connection.request(method, path, body if method == "POST" else None, headers)
            response = connection.getresponse()
            assert (response.status, response.getheader("Retry-After")) == (503, "1"), path
            connection.close()


def test_a_shutdown_waits_for_requests_and_no_longer_than_its_deadline(site: Site) -> None:
    """vLLM's own shutdown follows ours with the remaining time."""
    left: list[float | None] = []
    client = SimpleNamespace(shutdown=lambda timeout: left.append(timeout))
    drain_before_shutdown(client, site.service)
    with site.service.request():
        started = time.monotonic()
        client.shutdown(timeout=0.2)
        assert 0.2 <= time.monotonic() - started < 5
    site.service.draining = False
    client.shutdown(timeout=30.0)
    assert left[0] == 0.0
    assert 29 < (left[1] or 0) <= 30
    assert site.service.draining
