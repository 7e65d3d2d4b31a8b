"""Break the code on purpose, one change at a time, and check that the tests notice.

    python tools/mutate.py [PART OF A NAME OR FILE]

Each file ``tools/mutations/*.toml`` lists mutations: a file, a text that occurs in it exactly once, the text that
replaces it, and the tests that must then fail. A mutation survives if they still pass; the exit status is then 1.
The checkout is never changed: every mutation is made in a temporary copy, which comes first on ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 900
"""Seconds for one mutation's tests; a mutation that makes them hang counts as noticed."""


@dataclass(frozen=True)
class Mutation:
    """One deliberate fault.

    Args:
        name: what the fault is, in words.
        file: path from the checkout's root.
        old: text that occurs in the file exactly once.
        new: text that replaces it.
        tests: arguments of pytest that select the tests which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def mutated_text(self, root: Path) -> str:
        """Return the file's text with the fault in it.

        Raises:
            ValueError: the old text does not occur exactly once, or the new one is equal to it.
        """
        text = (root / self.file).read_text()
        if (count := text.count(self.old)) != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: the text to replace occurs {count} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def load_mutations(folder: Path = ROOT / "tools" / "mutations") -> list[Mutation]:
    """Read every mutation of the folder's TOML files, in the order of file names."""
    return [
        Mutation(**{**entry, "tests": tuple(entry["tests"])})
        for path in sorted(folder.glob("*.toml"))
        for entry in tomllib.loads(path.read_text())["mutation"]
    ]


def tests_pass(root: Path, tests: tuple[str, ...]) -> bool:
    """Run pytest on a copy of the checkout and return whether all selected tests passed."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):  # nothing selected, or pytest itself failed: no verdict
        raise RuntimeError(
            f"pytest {' '.join(tests)} exited with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr}"
        )
    return done.returncode == 0


def copy_checkout(to: Path) -> None:
    """Copy the files that git tracks or would track into an empty folder."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def main(part: str = "") -> int:
    """Try every mutation whose name or file contains the argument; return 1 if one survives, else 0."""
    mutations = [mutation for mutation in load_mutations() if part in mutation.name or part in mutation.file]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="arc-bench-mutations-") as folder:
        root = Path(folder) / "checkout"
        root.mkdir()
        copy_checkout(root)
        for tests in dict.fromkeys(mutation.tests for mutation in mutations):
            if not tests_pass(root, tests):
                raise SystemExit(f"without any mutation these tests fail: {' '.join(tests)}")
        for mutation in mutations:
            path = root / mutation.file
            original = path.read_text()
            path.write_text(mutation.mutated_text(root))
            survived = tests_pass(root, mutation.tests)
            path.write_text(original)
            print(f"{'SURVIVED' if survived else 'noticed'}  {mutation.name} ({mutation.file})", flush=True)
            survivors += [mutation] * survived
    print(f"{len(mutations)} mutations, {len(survivors)} survived")
    return 1 if survivors or not mutations else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:2]))
