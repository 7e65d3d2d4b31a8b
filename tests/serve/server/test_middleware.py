"""The middleware in front of vLLM, tested without a network and without vLLM."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest
from openai import AuthenticationError, OpenAI
from starlette.types import Receive, Scope, Send

from harness.client.protocol.model_list import parse_model
from serve.keys import Keys
from serve.server.adapters.slot_gate import SlotGate
from serve.server.http.http_json import MAX_BODY
from tests.support.servers.admin_site import Site


def newest(site: Site) -> str:
    """Return the id of the newest version of ``a``."""
    return site.registry.find("a").id


def test_a_name_is_answered_by_its_live_version(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        for asked, answered in [
            ("a", newest(site)),
            (newest(site), newest(site)),
            ("toy-base", "toy-base"),
            (None, "toy-base"),
        ]:
            status, answer = await site.request("POST", "/v1/completions", {"model": asked, "prompt": "é\n"})
            assert (status, answer["body"]) == (200, {"model": answered, "prompt": "é\n"})
        status, answer = await site.request("POST", "/v1/chat/completions", {"model": "b"})
        assert status == 404
        assert answer["error"]["message"] == f"The model 'b' does not exist here; known: toy-base, a, {newest(site)}"

    asyncio.run(scenario())


def test_models_lists_base_names_and_versions(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        status, answer = await site.request("GET", "/v1/models")
        assert status == 200
        cards = {card["id"]: card for card in answer["data"]}
        assert list(cards) == ["toy-base", "a", newest(site)]
        details = {name: card["arc_bench"] for name, card in cards.items()}
        assert details["toy-base"]["hash"] == site.service.base.hash
        assert [details[name]["kind"] for name in details] == ["base", "alias", "version"]
        for name in ("a", newest(site)):
            assert details[name]["hash"].startswith(newest(site).partition("@")[2])
            assert (details[name]["version"], details[name]["rank"]) == (newest(site).partition("@")[2], 4)
            assert (cards[name]["root"], cards[name]["parent"]) == (newest(site), "toy-base")
            assert parse_model(cards[name]).hash == details[name]["hash"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/adapters"),
        ("DELETE", "/adapters/a"),
        ("POST", "/invocations"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/v1/completions"),
        ("OPTIONS", "/v1/completions"),
        ("POST", "/admin/adapterss"),
        ("POST", "/v1/completions/"),
        ("POST", "//v1/completions"),
        ("GET", "/server_info"),
    ],
)
def test_every_other_route_is_closed(site: Site, method: str, path: str) -> None:
    status, _ = asyncio.run(site.request(method, path, {"model": "a"}))
    assert status == 404
    assert site.inner.calls == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[1]", {}, 400),
        (b"[" * 200_000, {}, 400),
        (b'{"a":' * 100_000, {}, 400),
        (b'{"model": 1e999}', {}, 400),
        (b"\xff\xfe", {}, 400),
        (b'{"model": 7}', {}, 400),
        (b'{"model": ["a"]}', {}, 400),
        (b"{}", {"content_type": "text/plain"}, 415),
        ([b'{"model": "' + b"a" * (MAX_BODY // 2)] * 3, {}, 413),
        ([], {}, 499),
    ],
)
def test_malformed_and_oversized_bodies_are_refused(
    site: Site, body: Any, headers: dict[str, str], status: int
) -> None:
    got, answer = asyncio.run(site.request("POST", "/v1/completions", body, **headers))
    assert got == status, answer
    assert answer["error"]["message"]
    assert site.inner.calls == []
    assert site.service.in_flight == 0


def test_each_key_opens_its_own_routes(locked: Site) -> None:
    async def scenario() -> None:
        body = {"model": "toy-base"}
        for path, method, user, admin in [
            ("/v1/models", "GET", 200, 401),
            ("/v1/completions", "POST", 200, 401),
            ("/tokenize", "POST", 200, 401),
            ("/admin/adapters", "GET", 401, 200),
            ("/metrics", "GET", 200, 200),
        ]:
            ask = (method, path, body if method == "POST" else None)
            assert (await locked.request(*ask, authorization="Bearer user-key-1"))[0] == user, path
            assert (await locked.request(*ask, authorization="Bearer admin-key-1"))[0] == admin, path
            for wrong in ("", "Bearer ", "Bearer nope", "Basic user-key-1", "Bearer user-key-11"):
                status, answer = await locked.request(*ask, authorization=wrong)
                assert status == 401
                assert "user-key-1" not in json.dumps(answer)
        assert (await locked.request("GET", "/health"))[0] == 200
        assert (await locked.request("GET", "/ready"))[0] == 200

    asyncio.run(scenario())


def test_without_an_administrators_key_its_routes_are_shut(locked: Site) -> None:
    locked.service.keys = Keys("user-key-1", None)
    status, answer = asyncio.run(locked.request("GET", "/admin/adapters", authorization="Bearer user-key-1"))
    assert status == 403
    assert "No administrator's key" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example", 403), ("127.0.0.1.evil:1", 403)],
)
def test_a_server_without_keys_answers_this_machine_only(site: Site, host: str, status: int) -> None:
    assert asyncio.run(site.request("GET", "/v1/models", host=host))[0] == status


@pytest.mark.parametrize(
    ("keys", "method", "path", "shown", "status"),
    [
        (Keys(None, "admin-key-1"), "POST", "/v1/completions", "", 403),
        (Keys(None, "admin-key-1"), "GET", "/admin/adapters", "Bearer admin-key-1", 200),
        (Keys("user-key-1", None), "GET", "/admin/adapters", "Bearer user-key-1", 403),
    ],
)
def test_a_route_without_a_key_answers_this_machine_only(
    site: Site, keys: Keys, method: str, path: str, shown: str, status: int
) -> None:
    """A web page whose name points at this machine gets nothing on a route that needs no key."""
    site.service.keys = keys
    body = {"model": "toy-base"} if method == "POST" else None
    assert asyncio.run(site.request(method, path, body, host="evil.example", authorization=shown))[0] == status
    if status == 403 and keys.user is None:
        assert asyncio.run(site.request(method, path, body, authorization=shown))[0] == 200


def test_a_body_of_the_largest_size_is_read(site: Site) -> None:
    body = json.dumps({"model": "toy-base", "prompt": ""}).encode()
    body = body.replace(b'""', b'"' + b"a" * (MAX_BODY - len(body)) + b'"')
    assert len(body) == MAX_BODY
    assert asyncio.run(site.request("POST", "/v1/completions", body))[0] == 200
    assert asyncio.run(site.request("POST", "/v1/completions", body + b" "))[0] == 413


def test_metrics_are_counted_per_adapter(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        for _ in range(2):
            await site.request("POST", "/v1/completions", {"model": "a"})
        value = site.figures.get_sample_value
        assert value("arc_bench_requests_total", {"model": newest(site), "status": "200"}) == 2
        assert value("arc_bench_tokens_total", {"model": newest(site), "kind": "completion"}) == 10
        assert value("arc_bench_request_failures_total", {"model": newest(site)}) is None
        assert value("arc_bench_queue_seconds_count", {"model": newest(site)}) == 2
        assert site.pool.loaded[newest(site)].served == 2

    asyncio.run(scenario())


def test_the_wait_for_a_slot_is_measured(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        await site.pool.load("b")
        site.service.gate = SlotGate(1, quantum=0.0)
        site.inner.hold = asyncio.Event()
        requests = [asyncio.create_task(site.request("POST", "/v1/completions", {"model": name})) for name in "ab"]
        started = time.monotonic()
        while not site.inner.calls or time.monotonic() - started < 0.1:
            await asyncio.sleep(0.01)
        site.inner.hold.set()
        assert [status for status, _ in await asyncio.gather(*requests)] == [200, 200]
        model = site.registry.find("b").id
        waited = site.figures.get_sample_value("arc_bench_queue_seconds_sum", {"model": model})
        assert waited is not None
        assert waited > 0.05

    asyncio.run(scenario())


def test_the_openai_client_sends_its_key(locked: Site) -> None:
    with locked.over_http() as url:
        with OpenAI(base_url=f"{url}/v1", api_key="user-key-1") as client:
            assert [card.id for card in client.models.list()] == ["toy-base"]
        for key in ("admin-key-1", "wrong-key-1"):
            with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client, pytest.raises(AuthenticationError):
                client.models.list()


def test_an_answer_cut_short_is_a_failure(site: Site) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise ConnectionError

    async def scenario() -> None:
        await site.pool.load("a")
        site.app.router.routes[-1].app = breaks  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            await site.request("POST", "/v1/completions", {"model": "a"})
        assert site.figures.get_sample_value("arc_bench_request_failures_total", {"model": newest(site)}) == 1
        assert site.pool.loaded[newest(site)].requests == 0

    asyncio.run(scenario())


def test_requests_are_logged_at_debug_level_only(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("vllm.arc_bench")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    try:
        for level, lines in ((logging.DEBUG, 1), (logging.INFO, 0)):
            caplog.clear()
            logger.setLevel(level)
            asyncio.run(site.request("POST", "/v1/completions", {"prompt": "a secret"}, authorization="Bearer a-key"))
            details = [record.getMessage() for record in caplog.records if record.name == logger.name]
            assert len(details) == lines
            assert not any("a secret" in line or "a-key" in line for line in details)
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.NOTSET)
