"""What a whole process takes: seconds, processor seconds and peak memory, as the kernel accounts them."""

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
    """Seconds by the clock and of the processor, peak resident memory in MB, and what the process printed."""

    wall: float
    cpu: float
    memory: float
    output: str

    def figures(self) -> dict[str, float]:
        """Without the output."""
        return {"wall": self.wall, "cpu": self.cpu, "memory": self.memory}

    def last_line(self) -> Any:
        """The last line that was printed, which is JSON."""
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


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Usage:
    """Run a command to its end, start-up included; ends the benchmark where it fails.

    Peak memory below 12 MB, that of the starter, cannot be told.
    """
    with tempfile.TemporaryDirectory() as kept:
        told, out, errors = (Path(kept) / name for name in ("told", "out", "errors"))
        with out.open("wb") as stdout, errors.open("wb") as stderr:
            starter = [sys.executable, "-I", "-S", "-c", _STARTER, str(told), *command]
            env = {**os.environ, **(environment or {})}
            subprocess.run(starter, stdout=stdout, stderr=stderr, env=env, cwd=folder, check=False)
        status, wall, cpu, kilobytes = map(float, told.read_text().split() if told.exists() else ("-1", *"000"))
        if status:
            said = errors.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(command)} failed with status {status:.0f}:\n{said}")
        text = out.read_text(encoding="utf-8", errors="replace")
    return Usage(wall, cpu, kilobytes / 1000, text)


def module(name: str, *arguments: str) -> list[str]:
    """The command of a module of this checkout."""
    return [sys.executable, "-m", name, *arguments]
