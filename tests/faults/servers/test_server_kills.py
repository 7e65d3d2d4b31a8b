"""kill -9 of a real vLLM, of all its processes or of one, during a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.runs.folder import RunFolder
from serve.launch.preparation import free_port
from serve.launch.process import start_server, stop_server, wait_until_ready
from serve.launch.serve_config import ServeConfig
from serve.registry.base_model import BaseModel
from serve.registry.leases import file_lock, running_servers
from serve.registry.store import Registry
from tests.faults.matrix import count_cases
from tests.sampling.real_servers.test_real_vllm import check_alike
from tests.support.commands import wait_until
from tests.support.models.tiny_models import make_lora
from tests.support.runs.sampling_runs import metrics_and_failures, predictions_without_times
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import SERVE_OPTIONS
from tests.support.vllm.plain_vllm import PlainVllm

pytestmark = pytest.mark.long

TASKS, DRAWS = 100, 8


def bench(url: str, out: Path, *more: str, model: str = "tiny-base") -> list[str]:
    return [
        sys.executable, "-m", "harness.cli", "run", "--server", url, "--model", model, "--dataset",
        f"toy/recolour/evaluation#n={TASKS}", "-n", str(DRAWS), "--out", str(out), "--max-in-flight", "16",
        "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", *more,
    ]  # fmt: skip


def saved(run: Path) -> int:
    path = run / "predictions.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_three_kills_of_a_plain_vllm(tmp_path: Path) -> None:
    """vLLM killed at three moments, the last two with the harness: the run equals an undisturbed one."""
    server = PlainVllm(TINY_BASE, "tiny-base", tmp_path / "log")
    out = tmp_path / "run"
    server.start()
    try:
        server.wait()
        subprocess.run(bench(server.url, tmp_path / "undisturbed"), check=True, capture_output=True)
        assert RunFolder(tmp_path / "undisturbed").manifest().config.api == "completions"
        more: list[str] = []
        for kill, lines in enumerate((150, 350, 600)):
            with subprocess.Popen(
                [*bench(server.url, out), *more], stderr=subprocess.PIPE, stdout=subprocess.PIPE
            ) as process:
                wait_until(lambda lines=lines: saved(out) >= lines, seconds=300)
                server.kill()
                if kill:
                    process.kill()
                server.start()
                if not kill:  # It waits for the server and goes on by itself.
                    wait_until(lambda: saved(out) >= 250, seconds=300)
                    process.kill()
            more = ["--resume"]
            server.wait()
            count_cases()
        assert saved(out) < TASKS * DRAWS
        subprocess.run([*bench(server.url, out), *more], check=True, capture_output=True)
    finally:
        server.kill()
    check_alike(predictions_without_times(out), predictions_without_times(tmp_path / "undisturbed"))
    assert metrics_and_failures(out) == metrics_and_failures(tmp_path / "undisturbed")


@pytest.mark.parametrize("victim", ["the API process", "the engine"])
def test_one_process_of_our_server_killed(tmp_path: Path, victim: str) -> None:
    """One process of our server killed: the others end, its lease too, and a waiting harness continues with the next
    server.
    """
    registry = Registry(tmp_path / "adapters")
    version = registry.add("random", make_lora(tmp_path / "lora", TINY_BASE, 1), BaseModel.open(TINY_BASE)).version
    registry.set_live("random", version)
    config = ServeConfig(model=TINY_BASE, adapters=registry.root, max_loras=2, **SERVE_OPTIONS)
    port, out = free_port("127.0.0.1", None), tmp_path / "run"
    process, server = start_server(config, port, tmp_path / "log", owned=True)
    wait_until_ready(process, server)
    try:
        subprocess.run(bench(server.url, tmp_path / "undisturbed", model="random"), check=True, capture_output=True)
        family = psutil.Process(process.pid).children(recursive=True)
        engines = [one for one in family if "EngineCore" in one.name() + " ".join(one.cmdline())]
        assert engines, [(one.name(), one.cmdline()) for one in family]
        with subprocess.Popen(
            bench(server.url, out, "--wait", "600s", model="random"), stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as harness:
            wait_until(lambda: saved(out) >= 200, seconds=300)
            (engines[0] if victim == "the engine" else process).kill()
            process.wait(120)
            _, left = psutil.wait_procs(family, timeout=120)
            assert left == [], "processes of a dead server are left"
            with file_lock(registry.root / ".lock"):
                assert running_servers(registry.root) == []
            assert saved(out) < TASKS * DRAWS
            process, server = start_server(config, port, tmp_path / "log2", owned=True)
            wait_until_ready(process, server)
            _, error = harness.communicate(timeout=300)
            assert harness.returncode == 0, error.decode()[-3000:]
    finally:
        stop_server(process.pid, 10, process)
    check_alike(predictions_without_times(out), predictions_without_times(tmp_path / "undisturbed"))
    assert metrics_and_failures(out) == metrics_and_failures(tmp_path / "undisturbed")
