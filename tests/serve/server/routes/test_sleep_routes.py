"""The routes that free a server's GPU memory: what they call, checked against vLLM's own sources. Not run on a GPU."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from harness.cli.workflows.ttt.answering.servers import servers_can_sleep
from serve.keys import Keys
from serve.server.routes import sleep_routes
from serve.server.routes.sleep_routes import LEVEL, PAUSE_MODE, SLEEP_ROUTES, attach_sleep_routes
from tests.serve.conftest import OpenSite

USER, ADMIN = "user-key-0123456789", "admin-key-0123456789"


@dataclass
class SleepyClient:
    """Stands for vLLM's engine client, which needs a GPU to sleep; its methods have vLLM's signatures."""

    enabled: bool = True
    asleep: bool = False
    calls: list[tuple[int, str]] = field(default_factory=list)

    @property
    def model_config(self) -> Any:
        return SimpleNamespace(enable_sleep_mode=self.enabled)

    async def sleep(self, level: int = 1, mode: str = "abort") -> None:
        self.calls.append((level, mode))
        self.asleep = True

    async def wake_up(self, tags: list[str] | None = None) -> bool:
        self.asleep = False
        return True

    async def is_sleeping(self) -> bool:
        return self.asleep


def post(client: SleepyClient, path: str) -> tuple[int, Any]:
    """Return status and body of a request to a route."""
    app = Starlette()
    attach_sleep_routes(app)  # type: ignore[arg-type]
    app.state.engine_client = client
    app.state.arc_bench = SimpleNamespace(pool=None, set_asleep=lambda asleep: None, falling_asleep=asyncio.Lock())
    request = Request({"type": "http", "app": app, "path": path, "method": "POST", "headers": [], "query_string": b""})
    response = asyncio.run(sleep_routes._change(request))
    return response.status_code, json.loads(bytes(response.body))


def test_a_server_sleeps_and_wakes() -> None:
    client = SleepyClient()
    assert post(client, "/admin/sleep") == (200, {"asleep": True})
    assert client.calls == [(LEVEL, PAUSE_MODE)]
    assert post(client, "/admin/wake") == (200, {"asleep": False})


def test_a_server_that_sleeps_answers_and_loads_nothing(open_site: OpenSite) -> None:
    """A load would copy into memory that the GPU no longer has."""
    site, client = open_site(), SleepyClient()
    site.app.state.engine_client = client

    async def scenario() -> None:
        body = {"model": site.service.base.name, "prompt": "x"}
        for path, ready, answered, refused in (("/admin/sleep", 503, 503, 409), ("/admin/wake", 200, 200, 404)):
            assert (await site.request("POST", path, {}))[0] == 200
            assert (await site.request("GET", "/ready"))[0] == ready
            assert (await site.request("POST", "/v1/completions", body))[0] == answered
            assert (await site.request("POST", "/admin/adapters/load", {"adapter": "nobody"}))[0] == refused

    asyncio.run(scenario())


def test_what_waits_while_a_server_falls_asleep_is_refused(open_site: OpenSite) -> None:
    """A request that waits for the slot of its adapter, and a load that waits for another change."""
    site, client = open_site(), SleepyClient()
    site.app.state.engine_client = client

    async def scenario() -> None:
        version = (await site.pool.load("a")).id
        gate = site.service.gate
        assert gate is not None
        async with AsyncExitStack() as stack:
            for holder in range(gate.slots):
                await stack.enter_async_context(gate.hold_slot(f"holder{holder}"))
            waiting = asyncio.create_task(site.request("POST", "/v1/completions", {"model": "a", "prompt": "x"}))
            async with site.pool.exclusive:
                load = asyncio.create_task(site.request("POST", "/admin/adapters/load", {"adapter": "b"}))
                sleep = asyncio.create_task(site.request("POST", "/admin/sleep", {}))
                await asyncio.sleep(0.1)
                assert not any(task.done() for task in (waiting, load, sleep))
        assert [(await task)[0] for task in (waiting, load, sleep)] == [503, 409, 200]
        assert list(site.pool.loaded) == [version]

    asyncio.run(scenario())


def test_clients_learn_which_servers_can_sleep(open_site: OpenSite) -> None:
    site = open_site()
    with site.over_http() as url:
        assert servers_can_sleep([])
        assert not servers_can_sleep([url])
        site.app.state.engine_client = SleepyClient(enabled=False)
        assert not servers_can_sleep([url])
        site.app.state.engine_client = SleepyClient()
        assert servers_can_sleep([url])
        assert not site.service.asleep


@pytest.mark.parametrize("path", sorted(path for _, path in SLEEP_ROUTES))
def test_a_server_without_sleep_mode_says_how_to_start_it(path: str) -> None:
    status, body = post(SleepyClient(enabled=False), path)
    assert status == 409
    assert "--enable-sleep-mode" in body["error"]["message"]


@pytest.mark.parametrize("path", sorted(path for _, path in SLEEP_ROUTES))
def test_the_routes_need_the_administrators_key(open_site: OpenSite, path: str) -> None:
    site = open_site(Keys(USER, ADMIN))
    statuses = {
        key: asyncio.run(site.request("POST", path, {}, authorization=f"Bearer {key}"))[0]
        for key in ("wrong", USER, ADMIN)
    }
    assert statuses == {"wrong": 401, USER: 401, ADMIN: 409}


def test_vllm_has_these_methods_modes_and_option() -> None:
    code = (
        "import inspect, json, typing\n"
        "from vllm.engine.protocol import EngineClient\n"
        "from vllm.v1.engine import PauseMode\n"
        "from vllm.config import ModelConfig\n"
        "from vllm.entrypoints.serve.dev.sleep import api_router\n"
        "print(json.dumps({\n"
        "  'sleep': list(inspect.signature(EngineClient.sleep).parameters),\n"
        "  'wake': list(inspect.signature(EngineClient.wake_up).parameters),\n"
        "  'asleep': list(inspect.signature(EngineClient.is_sleeping).parameters),\n"
        "  'modes': typing.get_args(PauseMode),\n"
        "  'field': 'enable_sleep_mode' in ModelConfig.__dataclass_fields__,\n"
        "  'router': inspect.getsource(api_router),\n"
        "}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["sleep"], facts["wake"], facts["asleep"]) == (["self", "level", "mode"], ["self", "tags"], ["self"])
    assert PAUSE_MODE in facts["modes"]
    assert facts["field"]
    assert ".sleep(level, mode)" in facts["router"]
    assert "ge=0, le=2" in facts["router"]
    assert 0 <= LEVEL <= 2
