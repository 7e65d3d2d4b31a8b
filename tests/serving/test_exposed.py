"""What a running server exposes: every route of vLLM, including its developers' routes, and its process."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from serve.server.http.http_json import MAX_BODY
from serve.server.middleware import MODEL_ROUTES
from serve.server.routes.admin_routes import ADMIN_ROUTES
from tests.serving.conftest import SECRET, Site
from tests.serving.test_refusals import send
from tests.serving.world import BASE, PROMPTS, ask, post
from tests.support.models.tiny_adapters import make_base
from tests.support.servers.admin_site import Site as StandIn
from tests.support.servers.hostile import ENDLESS_REQUESTS, JUNK, bytes_in_flight, send_endlessly

pytestmark = pytest.mark.slow

READING = {"/health", "/ready", "/metrics", "/metrics/", "/v1/models", "/version"}
USER, ADMIN = "user-key-0123456789", "admin-key-0123456789"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
DANGEROUS = {
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/sleep", "/wake_up", "/reset_prefix_cache",
    "/collective_rpc", "/pause", "/resume", "/abort_requests", "/update_weights", "/server_info", "/scale_elastic_ep",
}  # fmt: skip


def routes_of(site: Site) -> set[str]:
    """Return the paths that vLLM logged at its start, with a value for each parameter."""
    paths = re.findall(r"Route: (/\S*), (?:Methods|Endpoint): ", site.server.log.read_text())
    return {re.sub(r"\{[^}]*\}", "x", path) for path in paths}


def test_the_running_server_has_every_dangerous_route(site: Site) -> None:
    """Otherwise the tests below would prove nothing: the server runs with vLLM's developer options (conftest)."""
    assert routes_of(site) >= DANGEROUS | {path for _, path in ADMIN_ROUTES} | set(MODEL_ROUTES)


def test_no_route_changes_anything_without_its_key(site: Site, tmp_path: Path) -> None:
    base = BaseModel.open(make_base(tmp_path / "toy-base"))
    stand_in = StandIn(base, Registry(tmp_path / "adapters"), Keys(USER, ADMIN))

    async def scenario() -> None:
        for path in sorted(routes_of(site) | READING):
            for method in METHODS:
                status = {
                    key: (await stand_in.request(method, path, {"model": base.name}, authorization=f"Bearer {key}"))[0]
                    for key in ("none-of-them", USER, ADMIN)
                }
                if path in ("/health", "/ready") and method == "GET":
                    continue
                assert status["none-of-them"] in (401, 404), (method, path)
                if path not in READING and path not in MODEL_ROUTES:
                    assert status[USER] in (401, 404), (method, path)
                if path not in READING and (method, path) not in ADMIN_ROUTES:
                    assert status[ADMIN] in (401, 404), (method, path)

    asyncio.run(scenario())
    stand_in.lease.close()
    assert set(stand_in.inner.calls) <= {*MODEL_ROUTES, *READING}


def test_what_is_not_listed_is_closed_on_the_running_server(site: Site) -> None:
    open_here = READING | set(MODEL_ROUTES) | {path for _, path in ADMIN_ROUTES}
    body = json.dumps({"model": BASE, "prompt": "x", "lora_name": "x", "lora_path": "/x", "level": 1, "method": "x"})
    for path in [*sorted(routes_of(site) - open_here), "/invocations?x", "/v1/completions/../../sleep", "/%73leep"]:
        for method in METHODS[:5]:
            assert send(site.url, method, path, body.encode(), "application/json")[0] == 404, (method, path)
    assert site.world.is_right(site.world.ids["a1"], 0, ask(site.url, "a", PROMPTS[0])[1])


def test_a_web_page_whose_name_points_at_this_machine_is_refused(site: Site) -> None:
    for path in sorted(routes_of(site) | READING):
        for method in ("GET", "POST"):
            connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
            kind = {"Host": "evil.example", "Origin": "http://evil.example", "Content-Type": "application/json"}
            connection.request(method, path, b"{}", kind)
            reply = connection.getresponse()
            assert reply.getheader("access-control-allow-origin") is None
            assert reply.status in (403, 404) or path in ("/health", "/ready"), (method, path)
            connection.close()


def test_secrets_are_in_no_log_and_on_no_command_line(site: Site) -> None:
    """A token in the environment, a key in a header, one in a URL. For the server's own keys see test_startup."""
    for path in ("/v1/completions?api_key=query-secret-1", "/sleep?api_key=query-secret-1"):
        headers = {"Content-Type": "application/json", "Authorization": "Bearer header-secret-1"}
        connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
        connection.request("POST", path, json.dumps({"model": BASE, "prompt": "x", "n": "bad"}), headers)
        assert connection.getresponse().status in (400, 404)
        connection.close()
    family = [psutil.Process(site.server.pid), *psutil.Process(site.server.pid).children(recursive=True)]
    shown = "\n".join(
        [*(" ".join(process.cmdline()) for process in family), site.server.log.read_text(errors="replace")]
    )
    assert "vllm" in shown
    for secret in (SECRET, "query-secret-1", "header-secret-1"):
        assert secret not in shown


@pytest.mark.parametrize("part", ENDLESS_REQUESTS)
def test_endless_requests_are_cut_off(site: Site, part: str) -> None:
    place = urlsplit(site.url)
    allowed = (MAX_BODY if part == "body" else 0) + bytes_in_flight()
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as client:
        assert send_endlessly(client, ENDLESS_REQUESTS[part], JUNK, 2 * allowed)[0] < allowed
    assert site.world.is_right(BASE, 0, ask(site.url, BASE, PROMPTS[0])[1])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"prompt": "x", "n": 20_000}, "answers are asked for"),
        ({"prompt": ["x"] * 1000, "n": 1000}, "answers are asked for"),
        ({"prompt": ["x"] * 1025}, "1024"),
        ({"prompt": "a" * (1 << 20)}, "2048"),
        ({"prompt": "x", "max_tokens": 1_000_000}, "2048"),
        ({"prompt": "x", "stop": ["a"] * 1000}, "stop"),
        ({"prompt": "x", "logprobs": 100_000}, "logprobs"),
        ({"prompt_embeds": "AAAA", "prompt": "x"}, "prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_excessive_requests_are_refused(site: Site, body: dict[str, object], reason: str) -> None:
    status, answer = post(f"{site.url}/v1/completions", {"model": BASE, "max_tokens": 1, **body})
    assert status == 400, answer
    assert reason in json.dumps(answer)
