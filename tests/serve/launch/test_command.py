"""The command line that starts vLLM, on a CPU and on a GPU."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError, ServerError
from serve.launch.command import command_line, lora_rank
from serve.launch.machine import Machine
from serve.launch.serve_config import RegistryNeeds, ServeConfig
from serve.launch.server_environment import address
from serve.registry.base_model import BaseModel
from serve.server.plugin import AdapterEndpoints
from tests.support.servers.launches import CPU, GPU, config, options


def test_the_tokenizer_is_the_one_of_training(base: BaseModel, tmp_path: Path) -> None:
    """Without the option, vLLM would read Mistral's own tokenizer files if both kinds are there."""
    assert base.folder is not None
    folder = Path(shutil.copytree(base.folder, tmp_path / "mistral"))
    mode = "--tokenizer-mode"
    for name, wanted in (("tekken.json", None), ("tokenizer_config.json", "hf")):
        (folder / name).write_text("{}")
        copy = BaseModel.open(folder)
        command = command_line(config(copy), copy, CPU, RegistryNeeds(), 1, {})
        assert options(command.argv).get(mode) == wanted
    for extra in ((mode, "mistral"), (f"{mode}=mistral",)):
        command = command_line(config(copy, extra=extra), copy, CPU, RegistryNeeds(), 1, {})
        assert command.argv.count(mode) == extra.count(mode)
        assert "hf" not in command.argv


def test_the_length_of_a_composite_model(base: BaseModel, tmp_path: Path) -> None:
    assert base.folder is not None
    folder = Path(shutil.copytree(base.folder, tmp_path / "composite"))
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    copy = BaseModel.open(folder)
    plain, inside = (command_line(config(b), b, CPU, RegistryNeeds(), 1, {}) for b in (base, copy))
    for option in ("--max-model-len", "--kv-cache-memory-bytes"):
        assert options(plain.argv)[option] == options(inside.argv)[option]


def test_the_command_on_a_cpu(base: BaseModel, tmp_path: Path) -> None:
    needs = RegistryNeeds(names=3, versions=5, max_rank=12)
    command = command_line(config(base, adapters=tmp_path, dtype="float32"), base, CPU, needs, 8123, {})
    assert command.argv[:4] == (sys.executable, "-P", "-m", "vllm.entrypoints.launchers.api_server.entry")
    values = options(command.argv)
    assert values == {
        "--model": str(base.folder),
        "--served-model-name": "toy-base",
        "--host": "127.0.0.1",
        "--port": "8123",
        "--dtype": "float32",
        "--generation-config": "vllm",
        "--max-logprobs": "100",
        "--middleware": "serve.server.middleware.AdapterMiddleware",
        "--shutdown-timeout": "30",
        "--disable-uvicorn-access-log": None,
        "--disable-fastapi-docs": None,
        "--max-model-len": "2048",
        "--enable-lora": None,
        "--max-lora-rank": "16",
        "--max-loras": "4",
        "--max-cpu-loras": "32",
        "--kv-cache-memory-bytes": str(1 << 30),
        "--max-num-batched-tokens": "8192",
        "--no-enable-chunked-prefill": None,
    }
    assert command.env == {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "ARC_BENCH_ADAPTERS": str(tmp_path.resolve()),
        "ARC_BENCH_OWNER_PID": "",
        "PYTHONSAFEPATH": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0,1",
        "VLLM_PLUGINS": "arc_bench_cpu_fixes,arc_bench_adapters",
    }


def test_the_command_on_a_gpu(tmp_path: Path) -> None:
    base = BaseModel("org/model", None)
    needs = RegistryNeeds(names=30, versions=90, max_rank=100)
    settings = ServeConfig("org/model", tmp_path, gpu_memory=0.8, extra=("--tensor-parallel-size", "2"))
    command = command_line(settings, base, GPU, needs, 8000, {})
    values = options(command.argv)
    assert values["--model"] == values["--served-model-name"] == "org/model"
    assert (values["--max-lora-rank"], values["--max-loras"], values["--max-cpu-loras"]) == ("128", "16", "98")
    assert values["--gpu-memory-utilization"] == "0.8"
    assert values["--generation-config"] == "vllm"
    assert command.argv[-2:] == ("--tensor-parallel-size", "2")
    cpu_only = {"--kv-cache-memory-bytes", "--no-enable-chunked-prefill", "--max-num-batched-tokens"}
    assert not cpu_only & set(values)
    assert "HF_HUB_OFFLINE" not in command.env
    assert not [name for name in command.env if "CPU" in name]


def test_the_size_of_the_kv_cache_reaches_vllm_on_every_device(base: BaseModel) -> None:
    for host in (CPU, GPU):
        command = command_line(config(base, kv_cache_gib=2.5), base, host, RegistryNeeds(), 1, {})
        assert options(command.argv)["--kv-cache-memory-bytes"] == str(5 << 29)


def test_loading_by_path_is_never_enabled(base: BaseModel, tmp_path: Path) -> None:
    for host in (CPU, GPU):
        command = command_line(config(base, adapters=tmp_path), base, host, RegistryNeeds(), 1, {})
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in command.env


def test_the_users_environment_and_options_win(base: BaseModel) -> None:
    environ = {"VLLM_CPU_OMP_THREADS_BIND": "auto", "VLLM_PLUGINS": "mine", "ARC_BENCH_ADAPTERS": "/leftover"}
    command = command_line(config(base, extra=("--dtype", "bfloat16")), base, CPU, RegistryNeeds(), 1, environ)
    assert "VLLM_CPU_OMP_THREADS_BIND" not in command.env
    assert command.env["ARC_BENCH_ADAPTERS"] == ""
    assert command.env["VLLM_PLUGINS"] == "arc_bench_cpu_fixes,arc_bench_adapters,mine"
    assert options(command.argv)["--dtype"] == "bfloat16"


def test_a_base_alone_has_no_lora(base: BaseModel) -> None:
    values = options(command_line(config(base), base, CPU, RegistryNeeds(), 1, {}).argv)
    assert not [name for name in values if "lora" in name]


def binding(base: BaseModel, cores: int, **changes: Any) -> str:
    """Return the cores that the engines' threads are bound to."""
    machine = Machine("cpu", tuple(range(cores)), 16 << 30)
    command = command_line(config(base, **changes), base, machine, RegistryNeeds(), 1, {})
    return command.env["VLLM_CPU_OMP_THREADS_BIND"]


def test_threads_are_bound_to_cores(base: BaseModel) -> None:
    assert binding(base, 2) == "0,1"
    assert binding(base, 8) == "0,1,2,3,4,5,6"  # many: one is left to the API process
    assert binding(base, 2, data_parallel_size=2) == "0|1"
    assert binding(base, 12, data_parallel_size=2) == "0,1,2,3,4|5,6,7,8,9,10"
    assert binding(base, 1, data_parallel_size=2) == "auto"
    assert binding(base, 8, extra=("--tensor-parallel-size=2",)) == "auto"


def test_several_engines_share_one_api_process(base: BaseModel) -> None:
    values = options(command_line(config(base, data_parallel_size=2), base, CPU, RegistryNeeds(), 1, {}).argv)
    assert (values["--data-parallel-size"], values["--api-server-count"]) == ("2", "1")
    with pytest.raises(ServerError, match=r"9\.0 GiB for each of 2 engines does not fit"):
        command_line(config(base, data_parallel_size=2, kv_cache_gib=9), base, CPU, RegistryNeeds(), 1, {})
    for word in ("--data-parallel-size=2", "-dp", "--api-server-count"):
        with pytest.raises(ConfigError, match="give --data-parallel-size before the --; one API process holds"):
            command_line(config(base, extra=(word, "2")), base, CPU, RegistryNeeds(), 1, {})


def test_reserved_options_are_refused_after_the_dashes(base: BaseModel) -> None:
    """--host would bypass the check that other machines need a key. vLLM's parser accepts abbreviations."""
    for word in ("--ssl-certfile", "--ssl_keyfile=k", "--uds", "--root-path=/a", "--headless", "--config"):
        with pytest.raises(ConfigError, match=r"TLS is for a proxy|take the API away|hide options"):
            command_line(config(base, extra=(word, "2")), base, CPU, RegistryNeeds(), 1, {})
    for word in ("--host=0.0.0.0", "--host", "--port", "--hos", "--po=1"):
        with pytest.raises(ConfigError, match="give it before the --"):
            command_line(config(base, extra=(word, "2")), base, CPU, RegistryNeeds(), 1, {})
    for word in ("--generation-config", "--generation_config=auto", "--generation-conf"):
        with pytest.raises(ConfigError, match=r"is always vllm here"):
            command_line(config(base, extra=(word, "auto")), base, CPU, RegistryNeeds(), 1, {})
    allowed = command_line(
        config(base, extra=("--override-generation-config", "{}")), base, CPU, RegistryNeeds(), 1, {}
    )
    assert allowed.argv[-2:] == ("--override-generation-config", "{}")
    with pytest.raises(ConfigError, match="one API process holds"):
        command_line(config(base, extra=("--api_server_count=2",)), base, CPU, RegistryNeeds(), 1, {})
    assert [address("::1", 1), address("localhost", 1)] == ["http://[::1]:1", "http://localhost:1"]


@pytest.mark.parametrize("host", ["0.0.0.0", None])
def test_the_server_refuses_another_host_without_a_key(host: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARC_BENCH_API_KEY", "ARC_BENCH_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        asyncio.run(AdapterEndpoints().init_state(None, None, Namespace(host=host, port=1, uds=None)))


def test_ranks_are_rounded_up_to_what_vllm_takes(base: BaseModel, tmp_path: Path) -> None:
    assert [lora_rank(n) for n in (1, 2, 8, 9, 300, 512)] == [1, 8, 8, 16, 320, 512]
    with pytest.raises(ConfigError, match="up to rank 512"):
        lora_rank(513)
    with pytest.raises(ConfigError, match="below --max-loras 8"):
        command_line(config(base, adapters=tmp_path, max_loras=8, max_cpu_loras=4), base, CPU, RegistryNeeds(), 1, {})


def test_a_cache_that_does_not_fit_is_refused_before_the_start(base: BaseModel) -> None:
    with pytest.raises(ServerError, match=r"KV cache of 40\.0 GiB does not fit.*16\.0 GiB of memory are free"):
        command_line(config(base, kv_cache_gib=40), base, CPU, RegistryNeeds(), 1, {})
    one_sequence = 2 / 1024  # 2048 tokens x 2 (keys, values) x 2 layers x 2 heads x 32 wide x 4 bytes, in GiB
    command_line(config(base, dtype="float32", kv_cache_gib=one_sequence), base, CPU, RegistryNeeds(), 1, {})
    with pytest.raises(ServerError, match="does not hold one sequence of 2048 tokens"):
        command_line(config(base, dtype="float32", kv_cache_gib=0.99 * one_sequence), base, CPU, RegistryNeeds(), 1, {})
