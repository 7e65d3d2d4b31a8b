"""Measurements in a file, one JSON object a line, so that a benchmark goes on where it stopped."""

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


class Nothing(SystemExit):
    """The time for measuring is over: the process ends with status 0, and the next one goes on."""

    def __init__(self, key: str) -> None:
        print(f"the time is over; {key} and what follows are measured when the command is run again", file=sys.stderr)
        super().__init__(0)


def _version() -> str:
    """The commit, with a + where code has changed since; pages, which benchmarks write themselves, are no code."""
    about = describe_environment()
    if about.commit is None:
        return about.version
    command = ["git", "status", "--porcelain", "--", "*.py", "pyproject.toml"]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return about.commit[:10] + ("+" if changed else "")


class Store:
    """What is known, by what was measured.

    Args:
        work: the folder of the benchmark; ``measurements.jsonl`` in it is appended to.
        minutes: after this time nothing new is begun.
    """

    def __init__(self, work: Path, minutes: float = 1e9) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "measurements.jsonl"
        self._end = time.monotonic() + 60 * minutes
        self.known: dict[str, Line] = {}
        whole = self.path.read_bytes() if self.path.exists() else b""
        kept = whole[: whole.rfind(b"\n") + 1]  # a line that was cut off is measured again
        if len(kept) < len(whole):
            self.path.write_bytes(kept)
        for line in map(json.loads, kept.splitlines()):
            self.known[line["key"]] = line
        self._version = _version()

    def get(self, key: str, measure: Callable[[], Mapping[str, Any]]) -> Line:
        """What is known under a key, else what ``measure`` gives.

        Raises:
            Nothing: if it is not known and the time is over.
        """
        if key not in self.known:
            if time.monotonic() > self._end:
                raise Nothing(key)
            self.put(key, measure())
        return self.known[key]

    def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Keep what was measured."""
        line = {"key": key, "version": self._version, **values}
        print(json.dumps(line), file=sys.stderr, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.known[key] = line

    def versions(self) -> list[str]:
        """The commits that were measured; + marks one with changes."""
        return sorted({str(line["version"]) for line in self.known.values()})
