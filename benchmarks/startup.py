"""Start-up time: `bench --help` and its commands against a bare interpreter and other tools' command lines.

    python -m benchmarks.startup [--quick]

Measures whole processes in turns, after one that is not counted. Writes benchmarks/startup.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median

from benchmarks.common import peers
from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions
from benchmarks.common.findings import Finding
from benchmarks.common.processes import measure_process, module_command

COMMANDS = ((), ("run",), ("train",), ("serve",), ("score",), ("report",))
"""Commands of `bench` whose help is asked for."""
GOAL = 1 / 3
"""`bench --help` may take three times as long as an interpreter that imports click and nothing else."""
WHY = "a page of help makes click import shutil, and the file of the command is read; nothing else is"


def main() -> int:
    """Measure and write the page."""
    arguments = parser(__doc__, "startup")
    peers.add_option(arguments)
    options = arguments.parse_args()
    bench = str(Path(sys.executable).with_name("bench"))
    sides: dict[str, list[str]] = {f"`{' '.join(['bench', *c, '--help'])}`": [bench, *c, "--help"] for c in COMMANDS}
    ours = list(sides)
    sides["`python -c 'import click'`"] = [sys.executable, "-c", "import click"]
    sides["`trl --help`"] = [str(Path(sys.executable).with_name("trl")), "--help"]
    for name in peers.present(options):
        python = str(peers.interpreter(peers.folder(options), name))
        package = {"lm-eval": "lm_eval", "inspect": "inspect_ai"}[name]
        sides[f"`{name} --help`"] = [python, *module_command(package, "--help")[1:]]
    store, repeats = open_store(options), repetitions(options)
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    names = list(sides)
    for repeat in range(-1, repeats):
        for turn in range(len(names)):
            name = names[(turn + repeat) % len(names)]
            command = sides[name]
            store.get(f"{name} {repeat}", lambda command=command: measure_process(command, quiet).figures())  # type: ignore[misc]

    def values(name: str, field: str) -> tuple[float, ...]:
        return store.repeated(name, field, repeats)

    findings = []
    for name in ours:
        for peer in names[len(ours) :] if name == ours[0] else names[len(ours) : len(ours) + 1]:
            memory = median(values(name, "memory")), median(values(peer, "memory"))
            goal = GOAL if (name, peer) == (ours[0], names[len(ours)]) else None
            finding = Finding(
                name, "CPU s", values(name, "cpu"), peer, values(peer, "cpu"), memory=memory, goal=goal, why=WHY
            )
            findings.append(finding)
    text = "Processor seconds of whole processes (start-up has no size to grow with)."
    return finish(options, plain_page("Start-up", text, findings, []), findings, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())
