"""Measure seconds, processor seconds and peak memory of whole processes, as the kernel accounts for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Wall-clock seconds, processor seconds, peak resident memory in MB, and output of a process."""

    wall: float
    cpu: float
    memory: float
    output: str

    def figures(self) -> dict[str, float]:
        """Return all values without the output."""
        return {"wall": self.wall, "cpu": self.cpu, "memory": self.memory}

    def last_line(self) -> Any:
        """Return the last line of output, parsed as JSON."""
        return json.loads(self.output.splitlines()[-1])


_STARTER = """\
import os, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - start
with open(sys.argv[1], "w") as file:
    print(os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=file)
"""
"""Starts the command from a small process: the kernel counts the memory of the process that starts one as its own."""


def measure_process(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Usage:
    """Run a command and measure it, start-up included; exit if it fails.

    Peak memory below 12 MB, that of the launcher, cannot be measured.
    """
    with tempfile.TemporaryDirectory() as temporary:
        usage, out, errors = (Path(temporary) / name for name in ("usage", "out", "errors"))
        with out.open("wb") as stdout, errors.open("wb") as stderr:
            starter = [sys.executable, "-I", "-S", "-c", _STARTER, str(usage), *command]
            env = {**os.environ, **(environment or {})}
            subprocess.run(starter, stdout=stdout, stderr=stderr, env=env, cwd=folder, check=False)
        status, wall, cpu, kilobytes = map(float, usage.read_text().split() if usage.exists() else ("-1", *"000"))
        if status:
            message = errors.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(command)} failed with status {status:.0f}:\n{message}")
        text = out.read_text(encoding="utf-8", errors="replace")
    return Usage(wall, cpu, kilobytes / 1000, text)


def module_command(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this checkout."""
    return [sys.executable, "-m", name, *arguments]
