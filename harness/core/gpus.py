"""The NVIDIA GPUs of this machine, as nvidia-smi tells them; its hanging or failing is an answer, never an error."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from shutil import which

SECONDS = 20.0
"""How long nvidia-smi may take; it hangs for ever where the driver does."""
_FIELDS = ("index", "uuid", "name", "memory.total", "memory.free", "driver_version", "compute_cap")
_OLD_FIELDS = _FIELDS[:-1]
"""Drivers before 510 know no compute_cap and refuse the whole query."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; memory is in bytes, and None is what nvidia-smi did not tell."""

    index: int
    uuid: str
    name: str
    total: int | None = None
    free: int | None = None
    driver: str = ""
    capability: tuple[int, int] | None = None
    """Compute capability, such as (8, 0) for an A100; bfloat16 needs (8, 0)."""

    def as_text(self) -> str:
        """Name, memory and driver, such as "NVIDIA L4, 23034 MiB, 580.65.06"."""
        memory = "memory unknown" if self.total is None else f"{self.total >> 20} MiB"
        return ", ".join(part for part in (self.name, memory, self.driver) if part)


def list_gpus(seconds: float | None = None) -> list[Gpu] | None:
    """The GPUs in nvidia-smi's order; empty without a GPU or driver, None where nvidia-smi does not end in time."""
    seconds = SECONDS if seconds is None else seconds
    for fields in (_FIELDS, _OLD_FIELDS):
        status, text = _ask(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", seconds=seconds)
        if status is None:
            return None
        if status == 0:
            rows = (dict(zip(fields, line.split(", "), strict=False)) for line in text.splitlines())
            return [gpu for row in rows if len(row) == len(fields) and (gpu := _gpu(row))]
    return []


def _gpu(values: Mapping[str, str]) -> Gpu | None:
    try:
        index = int(values["index"])
    except ValueError:  # "No devices were found", and other remarks
        return None
    major, _, minor = values.get("compute_cap", "").partition(".")
    capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
    total, free = _mebibytes(values["memory.total"]), _mebibytes(values["memory.free"])
    return Gpu(index, values["uuid"], values["name"], total, free, values["driver_version"], capability)


def _mebibytes(text: str) -> int | None:
    """Bytes; None for "[N/A]", which GPUs that share the machine's memory say."""
    return int(text) << 20 if text.isdigit() else None


def visible_gpus(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in CUDA's order; None where that cannot be told from outside.

    CUDA numbers the fastest GPU first unless CUDA_DEVICE_ORDER=PCI_BUS_ID, so that numbers tell nothing about which
    one of several different GPUs is meant. A part of a GPU (MIG-...) is none of those listed either.
    """
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    ordered = len({gpu.name for gpu in gpus}) < 2 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if chosen is None:
        return list(gpus) if ordered else None
    found: list[Gpu] = []
    for word in (part.strip() for part in chosen.split(",")):
        if word.startswith("MIG"):
            return None
        if word.isdigit() and not ordered:
            return None
        matching = [g for g in gpus if (str(g.index) == word if word.isdigit() else word and g.uuid.startswith(word))]
        if len(matching) != 1:
            break  # CUDA ignores an entry that names no GPU, and all behind it
        found += matching
    return found


def _ask(*arguments: str, seconds: float) -> tuple[int | None, str]:
    """Exit status and output of nvidia-smi; status None where it had to be left alone, 127 where it cannot be run."""
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
