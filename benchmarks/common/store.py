"""Store measurements in a file, one JSON object per line, so that a benchmark can resume."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.runs.environment import describe_environment

ROOT = Path(__file__).parent.parent.parent
Line = dict[str, Any]


class OutOfTimeError(SystemExit):
    """The time for measurements is over: the process exits with status 0, and the next one continues."""

    def __init__(self, key: str) -> None:
        print(f"the time is over; {key} and what follows are measured when the command is run again", file=sys.stderr)
        super().__init__(0)


def _version() -> str:
    """Return the commit, with a + if code was changed. Pages, which benchmarks write, do not count as code."""
    about = describe_environment()
    if about.commit is None:
        return about.version
    command = ["git", "status", "--porcelain", "--", "*.py", "pyproject.toml"]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return about.commit[:10] + ("+" if changed else "")


class Store:
    """Measurements by key.

    Args:
        work: folder of the benchmark, with the file ``measurements.jsonl``.
        minutes: time after which no new measurement is started.
    """

    def __init__(self, work: Path, minutes: float = 1e9) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "measurements.jsonl"
        self._end = time.monotonic() + 60 * minutes
        self.known: dict[str, Line] = {}
        whole = self.path.read_bytes() if self.path.exists() else b""
        complete = whole[: whole.rfind(b"\n") + 1]  # a line that was cut off is measured again
        if len(complete) < len(whole):
            self.path.write_bytes(complete)
        for line in map(json.loads, complete.splitlines()):
            self.known[line["key"]] = line
        self._version = _version()

    def get(self, key: str, measure: Callable[[], Mapping[str, Any]]) -> Line:
        """Return the measurement with this key, running ``measure`` if there is none.

        Raises:
            OutOfTimeError: there is none and the time is over.
        """
        if key not in self.known:
            if time.monotonic() > self._end:
                raise OutOfTimeError(key)
            self.put(key, measure())
        return self.known[key]

    def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Store a measurement."""
        line = {"key": key, "version": self._version, **values}
        print(json.dumps(line), file=sys.stderr, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.known[key] = line

    def repeated(self, case: str, field: str, repeats: int) -> tuple[Any, ...]:
        """Return a field of the repetitions of a case, whose keys are the case and the number of the repetition."""
        return tuple(self.known[f"{case} {repeat}"][field] for repeat in range(repeats))

    def versions(self) -> list[str]:
        """Return the commits that were measured; + marks one with changes."""
        return sorted({str(line["version"]) for line in self.known.values()})
