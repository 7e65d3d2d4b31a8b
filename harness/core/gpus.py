"""The NVIDIA GPUs of this machine according to nvidia-smi. If it fails or hangs, results say so; nothing raises."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from shutil import which

SECONDS = 20.0
"""Timeout of nvidia-smi, which hangs for ever if the driver does."""
_FIELDS = ("index", "uuid", "name", "memory.total", "memory.free", "driver_version", "compute_cap")
_OLD_FIELDS = _FIELDS[:-1]
"""The fields for drivers before 510, which reject a query that contains compute_cap."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; ``total`` and ``free`` are its memory in bytes. None means that nvidia-smi does not report a value."""

    index: int
    uuid: str
    name: str
    total: int | None = None
    free: int | None = None
    driver: str = ""
    capability: tuple[int, int] | None = None
    """Compute capability, such as (8, 0) for an A100; bfloat16 needs (8, 0)."""

    def as_text(self) -> str:
        """Return name, memory and driver version, such as "NVIDIA L4, 23034 MiB, 580.65.06"."""
        memory = "memory unknown" if self.total is None else f"{self.total >> 20} MiB"
        return ", ".join(part for part in (self.name, memory, self.driver) if part)


def list_gpus(seconds: float | None = None) -> list[Gpu] | None:
    """Return the GPUs in nvidia-smi's order.

    The list is empty without a GPU or driver. The result is None if nvidia-smi does not end within ``seconds``.
    """
    seconds = SECONDS if seconds is None else seconds
    for fields in (_FIELDS, _OLD_FIELDS):
        status, text = _run_nvidia_smi(
            f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", seconds=seconds
        )
        if status is None:
            return None
        if status == 0:
            rows = (dict(zip(fields, line.split(", "), strict=False)) for line in text.splitlines())
            return [gpu for row in rows if len(row) == len(fields) and (gpu := _parse_gpu(row))]
    return []


def _parse_gpu(values: Mapping[str, str]) -> Gpu | None:
    """Return the GPU of one output line, by field; None if the line describes none."""
    try:
        index = int(values["index"])
    except ValueError:  # a message such as "No devices were found"
        return None
    major, _, minor = values.get("compute_cap", "").partition(".")
    capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
    total, free = _parse_mebibytes(values["memory.total"]), _parse_mebibytes(values["memory.free"])
    return Gpu(index, values["uuid"], values["name"], total, free, values["driver_version"], capability)


def _parse_mebibytes(text: str) -> int | None:
    """Return the bytes of a number of MiB; None for "[N/A]", as GPUs report that share the machine's memory."""
    return int(text) << 20 if text.isdigit() else None


def visible_gpus(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu] | None:
    """Return the GPUs that CUDA_VISIBLE_DEVICES selects, in CUDA's order; None if that cannot be determined.

    Unless CUDA_DEVICE_ORDER=PCI_BUS_ID, CUDA numbers the fastest GPU first, so that with different models an index does
    not identify one. Nor does nvidia-smi list parts of a GPU (MIG-...).
    """
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    same_order = len({gpu.name for gpu in gpus}) < 2 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if variable is None:
        return list(gpus) if same_order else None
    visible: list[Gpu] = []
    for entry in (part.strip() for part in variable.split(",")):
        if entry.startswith("MIG") or (entry.isdigit() and not same_order):
            return None
        if entry.isdigit():
            matching = [gpu for gpu in gpus if str(gpu.index) == entry]
        else:
            matching = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if len(matching) != 1:
            break  # CUDA ignores an invalid entry and all entries after it
        visible += matching
    return visible


def _run_nvidia_smi(*arguments: str, seconds: float) -> tuple[int | None, str]:
    """Return exit status and output of nvidia-smi; status None after a timeout, 127 if it cannot be run."""
    program = which("nvidia-smi")
    if program is None:
        return 127, ""
    try:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError:
        return 127, ""
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a process that hangs inside the driver cannot be killed
            process.wait(timeout=1)
        return None, ""
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return process.returncode, text
