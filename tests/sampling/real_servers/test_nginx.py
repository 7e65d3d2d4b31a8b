"""Runs through nginx with the configuration of docs/scaling.md, while one of two servers stops and starts."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from serve.server.routes.admin_routes import ADMIN_ROUTES
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    count_outcomes,
    predictions_without_times,
    run_options,
    run_sampling,
)
from tests.support.servers.admin_site import Site
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import ChatServer
from tests.support.servers.nginx import find_nginx, nginx_before

pytestmark = pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed (apt-get install nginx-light)")
NO_RETRIES = replace(QUICK_POLICY, max_in_flight=32, retries=0, timeout=60.0)
"""A request that nginx does not rescue is recorded as an error."""
FEW_RETRIES = replace(NO_RETRIES, retries=2)
"""For a server that dies: an answer that is cut after nginx passed its beginning on has to be asked for again."""
DISGUISES = (
    "/admin/adapters",
    "//admin/adapters",
    "/v1/../admin/adapters",
    "/v1/models/../../admin/adapters",
    "/%61dmin/adapters",
    "/v1/%2e%2e/admin/adapters",
    "/ready/..%2fadmin/adapters",
    "/ready%00/admin/adapters",
    "/./admin/adapters",
    "/Admin/adapters",
    "/ready;/../admin/adapters",
    "http://one/admin/adapters",
    "/metrics",
    "/v1/load_lora_adapter",
    "/v1/models/",
    "/v1/models%0a",
)
"""Paths at which nginx must not let a request through; servers would read some of them as /admin/adapters."""


@pytest.mark.parametrize("tokens", [False, True], ids=["chat", "completions"])
def test_a_server_that_dies_and_returns_under_load_fails_no_prediction(tmp_path: Path, tokens: bool) -> None:
    """What the dying server drops, nginx sends to the other."""
    with ChatServer(mixed_answer, tokens=tokens) as calm:
        run_sampling(run_options(calm, tmp_path / "calm", n=64))
    with (
        ChatServer(mixed_answer, seconds=0.02, tokens=tokens) as first,
        ChatServer(mixed_answer, seconds=0.02, tokens=tokens) as second,
        nginx_before(first.url, second.url, tmp_path / "nginx") as url,
    ):
        before = []

        def restart() -> None:
            wait_until(lambda: first.in_flight > 2 and len(first.requests) > 5)
            first.stop()
            before.append(len(second.requests))
            wait_until(lambda: len(second.requests) > before[0] + 10)
            first.start()

        helper = threading.Thread(target=restart)
        helper.start()
        assert run_sampling(run_options(url, tmp_path / "run", n=64, policy=FEW_RETRIES)).finished
        helper.join()
    assert len(first.requests) > 5
    assert count_outcomes(tmp_path / "run") == count_outcomes(tmp_path / "calm")
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(tmp_path / "calm")


def test_a_draining_server_hands_its_requests_over(tmp_path: Path) -> None:
    """It answers 503 with Retry-After until it ends, as ours does; no client sees that."""

    def drain(body: Body) -> tuple[int, Body]:
        return 503, {"error": {"message": "This server is shutting down"}}

    with (
        ChatServer(mixed_answer, refuse=drain, headers={"Retry-After": "1"}) as draining,
        ChatServer(mixed_answer, seconds=0.01) as other,
        nginx_before(draining.url, other.url, tmp_path / "nginx") as url,
    ):
        assert run_sampling(run_options(url, tmp_path / "run", n=16, policy=NO_RETRIES)).finished
        log = (tmp_path / "nginx" / "access.log").read_text()
    assert count_outcomes(tmp_path / "run")["error"] == 0
    assert draining.requests
    assert '" 503 ' not in log


@pytest.fixture
def sites(base: BaseModel, tmp_path: Path) -> Iterator[tuple[Site, Site, str]]:
    """Two of our servers without vLLM, with a key each, and nginx before them."""
    keys = Keys("user-key-0123456789", None)
    first, second = (Site(base, Registry(tmp_path / name), keys) for name in ("one", "two"))
    with (
        first.over_http() as one,
        second.over_http() as two,
        nginx_before(one, two, tmp_path / "nginx") as url,
    ):
        yield first, second, url


def send(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
    """Send a request with exactly this path and return the status of the response."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=30)
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]  # paths that Python would refuse
    try:
        connection.request(method, path, body, {"Authorization": "Bearer user-key-0123456789", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def test_no_admin_route_is_reached_through_nginx(sites: tuple[Site, Site, str]) -> None:
    """Neither by its path nor by a disguise of it: every answer is nginx's own."""
    first, second, url = sites
    paths = {(method, path) for method, path in ADMIN_ROUTES} | {(m, p) for m in ("GET", "POST") for p in DISGUISES}
    for method, path in sorted(paths):
        reached = len(first.inner.calls) + len(second.inner.calls)
        status = send(url, method, path, b"{}" if method == "POST" else None, **{"Content-Type": "application/json"})
        assert status in (400, 404), (method, path, status)
        assert len(first.inner.calls) + len(second.inner.calls) == reached
    assert send(url, "GET", "/v1/models") == 200


def test_keys_pass_and_a_server_without_keys_stays_closed(
    sites: tuple[Site, Site, str], base: BaseModel, tmp_path: Path
) -> None:
    _, _, url = sites
    assert send(url, "GET", "/v1/models", Authorization="Bearer another-key-0123456789") == 401
    assert send(url, "GET", "/ready") == 200
    with (
        Site(base, Registry(tmp_path / "open")).over_http() as one,
        nginx_before(one, one, tmp_path / "nginx-open") as open_url,
    ):
        assert send(one, "GET", "/v1/models") == 200
        assert send(open_url, "GET", "/v1/models") == 403
