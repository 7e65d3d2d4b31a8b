"""Every command line of serve/launch/command.py, for CPU and GPU, is parsed by the installed vLLM."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError
from harness.core.gpus import Gpu
from serve.launch.command import LORA_RANKS, command_line
from serve.launch.dtypes import DTYPES, EXACT
from serve.launch.machine import Machine
from serve.launch.serve_config import RegistryNeeds, ServeConfig
from serve.registry.base_model import BaseModel
from trainers.tiny.train import shipped_path

GIB = 1 << 30
MACHINES = (
    Machine("cpu", (0, 1), 64 * GIB),
    Machine("cpu", tuple(range(64)), 256 * GIB),
    Machine("cuda", (0, 1), 64 * GIB),
    Machine("cuda", (0, 1), 64 * GIB, (Gpu(0, "GPU-a", "A100", 80 * GIB, 80 * GIB, "580", (8, 0)),) * 16),
    Machine("cuda", (0, 1), 64 * GIB, (Gpu(0, "GPU-t", "T4", 15 * GIB, 15 * GIB, "580", (7, 5)),) * 16),
)
CHOICES: dict[str, list[Any]] = {
    "adapters": [None, Path("adapters")],
    "host": ["127.0.0.1", "::1", "0.0.0.0"],
    "dtype": [None, EXACT, *DTYPES],
    "max_model_len": [None, 16, 2048],
    "max_loras": [None, 1, 16],
    "max_cpu_loras": [None, 64],
    "max_lora_rank": [None, *range(1, 513, 17)],
    "kv_cache_gib": [None, 0.5, 3],
    "gpu_memory": [0.9, 0.45, 1.0, 1e-05],
    "shutdown_seconds": [30, 0],
    "data_parallel_size": [1, 2, 8],
    "extra": [(), ("--tensor-parallel-size", "2"), ("--max-num-seqs=64", "--enforce-eager"), ("--dtype", "bfloat16")],
}


def commands() -> list[tuple[ServeConfig, Machine, tuple[str, ...]]]:
    """Return every choice once on every machine and 300 random combinations, except those that are refused."""
    draw = random.Random(15)
    single = [(m, {name: value}) for m in MACHINES for name, values in CHOICES.items() for value in values]
    mixed = [(draw.choice(MACHINES), {n: draw.choice(v) for n, v in CHOICES.items()}) for _ in range(300)]
    accepted = []
    for machine, options in (*single, *mixed):
        model: Any = draw.choice([shipped_path(), "Qwen/Qwen2.5-0.5B-Instruct"])
        config = ServeConfig(model, **options)
        base = BaseModel.open(model) if isinstance(model, Path) else BaseModel(model, None)
        needs = RegistryNeeds(draw.randrange(40), draw.randrange(90), draw.choice([0, *LORA_RANKS]))
        try:
            command = command_line(config, base, machine, needs, draw.randrange(1, 65536), {})
        except ConfigError:  # such as float32 on a GPU
            continue
        accepted.append((config, machine, command.argv[command.argv.index("--model") :]))
    return accepted


@pytest.fixture(scope="module")
def parsed() -> list[tuple[ServeConfig, Machine, tuple[str, ...], dict[str, Any]]]:
    generated = commands()
    text = json.dumps([words for _, _, words in generated])
    # Offline, vLLM looks hub ids up in the cache while it parses; other tests of this process may have switched it on.
    online = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.vllm.vllm_parser"],
        env=online,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    return [(*one, answer) for one, answer in zip(generated, answers, strict=True)]


@pytest.mark.slow
def test_vllm_understands_every_command_line(
    parsed: list[tuple[ServeConfig, Machine, tuple[str, ...], dict[str, Any]]],
) -> None:
    """Each option arrives with the value that was written; the last one wins."""
    devices = {machine.device for _, machine, _, _ in parsed}
    assert devices == {"cpu", "cuda"}
    assert len(parsed) > 300
    for _, _, words, seen in parsed:
        assert "error" not in seen, seen
        written: dict[str, str | bool] = {}
        for k, word in enumerate(words):
            if not word.startswith("--"):
                continue
            name, equals, value = word.removeprefix("--").partition("=")
            after = words[k + 1] if k + 1 < len(words) else "--"
            flag = not equals and after.startswith("--")
            name = name.removeprefix("no-") if flag else name
            written[name.replace("-", "_")] = not word.startswith("--no-") if flag else value or after
        for name, value in written.items():
            got = seen[name][0] if isinstance(seen[name], list) else seen[name]
            same = float(got) == float(value) if isinstance(got, int | float) else str(got) == value
            assert same, (name, value, got, words)


@pytest.mark.slow
def test_no_server_with_adapters_on_a_gpu_computes_in_float32(
    parsed: list[tuple[ServeConfig, Machine, tuple[str, ...], dict[str, Any]]],
) -> None:
    dtypes = {seen["dtype"] for config, machine, _, seen in parsed if machine.device == "cuda" and config.adapters}
    assert dtypes == {"auto", "bfloat16", "float16", "half"}
    on_cpu = {seen["dtype"] for config, machine, _, seen in parsed if machine.device == "cpu" and config.adapters}
    assert on_cpu == set(DTYPES)
