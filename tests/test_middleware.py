"""The ASGI layer in front of vLLM, driven without a network and without vLLM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from harness.errors import ConfigError
from harness.replies import read_model
from serve.base_model import BaseModel
from serve.fairness import SlotGate
from serve.keys import Keys, is_loopback
from serve.leases import LeaseFile
from serve.metrics import Metrics
from serve.middleware import MAX_BODY, AdapterMiddleware, Receive, Scope, Send
from serve.pool import AdapterPool, PoolLimits
from serve.registry import Registry
from serve.service import Service
from tests.adapter_toys import make_adapter, make_base
from tests.test_adapter_pool import FakeEngine


class Inner:
    """Stands where vLLM's app stands: repeats the request's body and the model it was given."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hold: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(scope["path"])
        body = b""
        if scope["method"] == "POST":
            message = await receive()
            body = message["body"]
            length = next(v for k, v in scope["headers"] if k == b"content-length")
            assert int(length) == len(body)
        if self.hold is not None:
            await self.hold.wait()
        answer = {"body": json.loads(body) if body else None, "usage": {"prompt_tokens": 3, "completion_tokens": 5}}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class Site:
    """A server of the toy base with adapters ``a`` and ``b`` registered."""

    def __init__(self, root: Path, keys: Keys) -> None:
        base = BaseModel.open(make_base(root / "toy-base"))
        registry = Registry(root / "adapters")
        self.a = registry.add("a", make_adapter(root / "a"), base)
        self.b = registry.add("b", make_adapter(root / "b", seed=1), base)
        self.lease = LeaseFile(registry.root, "http://127.0.0.1:1", 1)
        self.pool = AdapterPool(FakeEngine(), registry, base, PoolLimits(8, 4), self.lease)
        self.registry = CollectorRegistry()
        self.service = Service(
            base=base,
            model_path=str(root / "toy-base"),
            max_model_len=2048,
            keys=keys,
            pool=self.pool,
            gate=SlotGate(2),
            metrics=Metrics.make(self.registry),
        )
        self.inner = Inner()
        self.app = AdapterMiddleware(self.inner)

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of one request; ``body`` may be bytes, a list of bytes (chunks), or anything JSON."""
        raw = body if isinstance(body, bytes | list) else json.dumps(body).encode() if body is not None else b""
        chunks = list(raw) if isinstance(raw, list) else [raw]
        headers = {"host": "127.0.0.1:8000", "content_type": "application/json"} | headers
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if not chunks:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
            "app": SimpleNamespace(state=SimpleNamespace(arc_bench=self.service)),
        }
        await self.app(scope, receive, send)
        text = b"".join(m.get("body", b"") for m in sent[1:])
        return sent[0]["status"], json.loads(text) if text else None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, Keys(None, None))
    yield found
    found.lease.close()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, Keys("user-key-1", "admin-key-1"))
    yield found
    found.lease.close()


def test_a_name_is_answered_by_its_live_version(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        for asked, answered in [("a", site.a.id), (site.a.id, site.a.id), ("toy-base", "toy-base"), (None, "toy-base")]:
            status, answer = await site.ask("POST", "/v1/completions", {"model": asked, "prompt": "é\n"})
            assert (status, answer["body"]) == (200, {"model": answered, "prompt": "é\n"})
        status, answer = await site.ask("POST", "/v1/chat/completions", {"model": "b"})
        assert status == 404
        assert answer["error"]["message"] == f"The model 'b' does not exist here; known: toy-base, a, {site.a.id}"

    asyncio.run(scenario())


def test_models_lists_base_names_and_versions(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        status, answer = await site.ask("GET", "/v1/models")
        assert status == 200
        cards = {card["id"]: card for card in answer["data"]}
        assert list(cards) == ["toy-base", "a", site.a.id]
        own = {name: card["arc_bench"] for name, card in cards.items()}
        assert own["toy-base"]["hash"] == site.service.base.hash
        assert [own[name]["kind"] for name in own] == ["base", "alias", "version"]
        for name in ("a", site.a.id):
            assert own[name]["hash"].startswith(site.a.version)
            assert (own[name]["version"], own[name]["rank"]) == (site.a.version, 4)
            assert (cards[name]["root"], cards[name]["parent"]) == (site.a.id, "toy-base")
            assert read_model(cards[name]).hash == own[name]["hash"]

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
    status, _ = asyncio.run(site.ask(method, path, {"model": "a"}))
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
def test_malformed_and_huge_bodies_cannot_hurt(site: Site, body: Any, headers: dict[str, str], status: int) -> None:
    got, answer = asyncio.run(site.ask("POST", "/v1/completions", body, **headers))
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
            assert (await locked.ask(*ask, authorization="Bearer user-key-1"))[0] == user, path
            assert (await locked.ask(*ask, authorization="Bearer admin-key-1"))[0] == admin, path
            for wrong in ("", "Bearer ", "Bearer nope", "Basic user-key-1", "Bearer user-key-11"):
                status, answer = await locked.ask(*ask, authorization=wrong)
                assert status == 401
                assert "user-key-1" not in json.dumps(answer)
        assert (await locked.ask("GET", "/health"))[0] == 200
        assert (await locked.ask("GET", "/ready"))[0] == 200

    asyncio.run(scenario())


def test_without_an_administrators_key_its_routes_are_shut(locked: Site) -> None:
    locked.service.keys = Keys("user-key-1", None)
    status, answer = asyncio.run(locked.ask("GET", "/admin/adapters", authorization="Bearer user-key-1"))
    assert status == 403
    assert "No administrator's key" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example", 403), ("127.0.0.1.evil:1", 403)],
)
def test_a_server_without_keys_answers_this_machine_only(site: Site, host: str, status: int) -> None:
    assert asyncio.run(site.ask("GET", "/v1/models", host=host))[0] == status


def test_a_draining_server_is_not_ready_and_finishes_what_it_has(site: Site) -> None:
    async def scenario() -> None:
        site.inner.hold = asyncio.Event()
        running = asyncio.create_task(site.ask("POST", "/v1/completions", {"model": "toy-base"}))
        while not site.inner.calls:
            await asyncio.sleep(0)
        drained = asyncio.create_task(asyncio.to_thread(site.service.drain, 10))
        while not site.service.draining:
            await asyncio.sleep(0)
        assert (await site.ask("GET", "/ready"))[0] == 503
        assert (await site.ask("POST", "/v1/completions", {"model": "toy-base"}))[0] == 503
        assert not drained.done()
        site.inner.hold.set()
        assert (await running)[0] == 200
        assert await drained
        assert not await asyncio.to_thread(_drain_with_one_left, site.service)

    asyncio.run(scenario())


def _drain_with_one_left(service: Service) -> bool:
    with service.request():
        return service.drain(0.01)


def test_figures_are_counted_per_adapter(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        for _ in range(2):
            await site.ask("POST", "/v1/completions", {"model": "a"})
        value = site.registry.get_sample_value
        assert value("arc_bench_requests_total", {"model": site.a.id, "status": "200"}) == 2
        assert value("arc_bench_tokens_total", {"model": site.a.id, "kind": "completion"}) == 10
        assert value("arc_bench_request_failures_total", {"model": site.a.id}) is None
        assert value("arc_bench_slot_wait_seconds_count", {"model": site.a.id}) == 2
        assert site.pool.loaded[site.a.id].served == 2

    asyncio.run(scenario())


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret-from-file\n")
    keys = Keys.from_environment({"ARC_BENCH_API_KEY": "secret-one", "ARC_BENCH_ADMIN_KEY_FILE": str(path)})
    assert (keys.user, keys.admin) == ("secret-one", "secret-from-file")
    assert "secret" not in repr(keys)
    for bad in (
        {"ARC_BENCH_API_KEY": ""},
        {"ARC_BENCH_API_KEY": "short"},
        {"ARC_BENCH_API_KEY": "with space"},
        {"ARC_BENCH_API_KEY": "long-enough", "ARC_BENCH_API_KEY_FILE": str(path)},
        {"ARC_BENCH_API_KEY_FILE": str(tmp_path / "nowhere")},
    ):
        with pytest.raises(ConfigError) as caught:
            Keys.from_environment(bad)
        assert "long-enough" not in str(caught.value)


def test_only_loopback_needs_no_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host)
        Keys(None, None).check_bind(host)
    for host in ("0.0.0.0", "", "::", "192.168.0.1", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="ARC_BENCH_API_KEY"):
            Keys(None, None).check_bind(host)
        Keys("long-enough", None).check_bind(host)
