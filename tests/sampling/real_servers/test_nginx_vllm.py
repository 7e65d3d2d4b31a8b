"""Runs through nginx before two real servers, one of which starts, stops and is killed under load."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.client.pool.retry import RetryPolicy
from serve.client import admin
from serve.keys import ADMIN_KEY, USER_KEY
from serve.launch.preparation import free_port
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.sampling.real_servers.test_real_vllm import check_alike
from tests.support.commands import wait_until
from tests.support.models.tiny_models import make_lora
from tests.support.runs.sampling_runs import count_outcomes, predictions_without_times, run_options, run_sampling
from tests.support.servers.chat_server import TINY_BASE
from tests.support.servers.nginx import find_nginx, nginx_before
from tests.support.vllm.dtypes import SERVE_OPTIONS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed (apt-get install nginx-light)"),
]
OPTIONS: dict[str, Any] = {**SERVE_OPTIONS, "max_loras": 2, "kv_cache_gib": 0.25, "max_model_len": 4096}
KEY = "user-key-0123456789"
FEW_RETRIES = RetryPolicy(max_in_flight=16, retries=2, timeout=300.0, wait=60.0)
"""An answer that is cut after nginx passed its beginning on has to be asked for again."""


def served_requests(url: str) -> int:
    """Return how many requests for the adapter a server has answered."""
    return int(admin.list_adapters(url)["adapters"][0]["versions"][0].get("served", 0))


def run_through(url: str, out: Path) -> Path:
    """Write a run of base and adapter through a server, and return its folder."""
    models, spec = ("tiny-base", "random"), "toy/recolour/evaluation#n=8"
    chosen = run_options(url, out, models=models, dataset=spec, n=8, policy=FEW_RETRIES, api_key=KEY)
    assert run_sampling(chosen).finished
    return out


def test_no_prediction_fails_while_a_real_server_starts_stops_and_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run equals the one without nginx, and the client retries nothing."""
    monkeypatch.setenv(USER_KEY, KEY)
    monkeypatch.setenv(ADMIN_KEY, "admin-key-0123456789")
    adapter = make_lora(tmp_path / "lora", TINY_BASE, 1)
    registries = [Registry(tmp_path / name) for name in ("one", "two")]
    for registry in registries:
        registry.set_live("random", registry.add("random", adapter, BaseModel.open(TINY_BASE)).version)
    port = free_port("127.0.0.1", None)
    events: list[str] = []

    def restart() -> None:
        for end in ("stopped", "killed"):
            log = tmp_path / f"second-{end}.log"
            with serving(TINY_BASE, registries[1].root, log=log, port=port, **OPTIONS) as second:
                wait_until(lambda url=second.url: served_requests(url) >= 8, seconds=600)  # type: ignore[misc]
                if end == "killed":
                    os.killpg(second.pid, signal.SIGKILL)
            events.append(end)

    with (
        serving(TINY_BASE, registries[0].root, log=tmp_path / "first.log", **OPTIONS) as first,
        nginx_before(first.url, f"http://127.0.0.1:{port}", tmp_path / "nginx") as url,
        ThreadPoolExecutor(1) as threads,
    ):
        direct = run_through(first.url, tmp_path / "direct")
        restarting = threads.submit(restart)
        runs = [run_through(url, tmp_path / "run0")]
        while not restarting.done():
            runs.append(run_through(url, tmp_path / f"run{len(runs)}"))
        restarting.result()
    assert events == ["stopped", "killed"]
    for out in runs:
        assert count_outcomes(out) == count_outcomes(direct)
        check_alike(predictions_without_times(out), predictions_without_times(direct))
    statuses = re.findall(r'" (\d{3}) ', (tmp_path / "nginx" / "access.log").read_text())
    n = len(predictions_without_times(direct))
    print(f"{len(runs)} runs of {n} predictions, {len(statuses)} requests: 0 failed")
    assert set(statuses) == {"200"}
