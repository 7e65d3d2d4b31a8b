"""Test-time training: seconds per task beside other loops, time to the first answer, accuracy against cost.

    python -m benchmarks.ttt [--quick]

The bare PyTorch loop and one process per task train the same adapters as this project, on the same samples, each in a
process of its own; they take turns, in changing order. The first task of each is not counted: it loads the base. Then a
trainer works beside a running server, and ``bench ttt`` is run with 5 to 80 steps a task (about ten minutes of two
cores for both). Writes benchmarks/ttt.md.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions, work_folder
from benchmarks.common.findings import Finding
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Line, Store
from benchmarks.test_time.contestants import Setting
from benchmarks.test_time.curve import VIEWS, Curve, measure_curve
from benchmarks.test_time.first_answer import PARTS, measure_first_answers

GOAL = 1 / 1.15
"""A task may take 1.15 times the processor seconds of a bare loop of the same steps."""
PROCESS_TASKS = 2
"""Tasks of which each is trained in a process of its own."""
CURVE_TASKS = 10
WHY = (
    "the loop has its micro-batches beforehand and writes nothing; here samples are drawn and tokenised in the step, "
    "every step is checked and counted, and the adapter is written to disk"
)


def measure(store: Store, work: Path, name: str, setting: Setting, repeat: int) -> Line:
    """Return the stored cost of a contestant, measuring it if there is none."""

    def run() -> Line:
        folder = work / "contest"
        shutil.rmtree(folder, ignore_errors=True)
        command = module_command("benchmarks.test_time.contestants", name, json.dumps(vars(setting)), str(folder))
        usage = measure_process(command, {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
        return {**usage.last_line(), "memory": usage.memory}

    return store.get(json.dumps({"contestant": name, "repeat": repeat, **vars(setting)}, sort_keys=True), run)


def mean_cpu(line: Line, tasks: int | None = None) -> float:
    """Return processor seconds per task over the first tasks."""
    seconds: Sequence[float] = line["cpu"][:tasks]
    return sum(seconds) / len(seconds)


def compare_loops(store: Store, work: Path, setting: Setting, repeats: int) -> tuple[list[Finding], float]:
    """Return this project beside the other loops, and the largest difference of a task's last loss from the loop's."""
    short = Setting(**{**vars(setting), "tasks": 1 + PROCESS_TASKS})
    costs: dict[str, list[Line]] = {"tasks": [], "loop": [], "process": []}
    for repeat in range(repeats):
        names = list(costs)[repeat % 3 :] + list(costs)[: repeat % 3]
        for name in names:
            one = short if name == "process" else setting
            costs[name].append(measure(store, work, name, one, repeat))
    ours = tuple(mean_cpu(line) for line in costs["tasks"])
    first = tuple(mean_cpu(line, PROCESS_TASKS) for line in costs["tasks"])
    loop = tuple(mean_cpu(line) for line in costs["loop"])
    process = tuple(mean_cpu(line) for line in costs["process"])
    memory = (costs["tasks"][0]["memory"], costs["loop"][0]["memory"])
    apart = max(
        abs(one - other)
        for mine, bare in zip(costs["tasks"], costs["loop"], strict=True)
        for one, other in zip(mine["losses"], bare["losses"], strict=True)
    )
    findings = [
        Finding("a task", "CPU s", ours, "bare loop of the same steps", loop, memory=memory, goal=GOAL, why=WHY),
        Finding("a task", "CPU s", first, "one `SFTTrainer` process per task", process),
    ]
    return findings, apart


def first_answer(store: Store, work: Path, setting: Setting, repeats: int) -> tuple[Finding, str]:
    """Return the time from the last step to the first answer beside that of the next one, and its parts in words."""
    lines = [
        store.get(f"first answer {repeat} {vars(setting)}", lambda: measure_first_answers(work / "first", setting))
        for repeat in range(repeats)
    ]
    ours = tuple(sum(line[part] for part in PARTS[:-1]) for line in lines)
    theirs = tuple(float(line[PARTS[-1]]) for line in lines)
    why = "the adapter is written, hashed, checked, copied into the registry and loaded before it answers"
    what, peer = "last step to first answer", "the next answer, with the adapter loaded"
    parts = ", ".join(f"{part} {median(line[part] for line in lines):.3f} s" for part in PARTS)
    return Finding(what, "s", ours, peer, theirs, why=why), f"From the last step to the first answer: {parts}."


def main() -> int:
    """Measure and write the page."""
    options = parser(__doc__, "ttt", repeats=3).parse_args()
    store, work, repeats = open_store(options), work_folder(options), repetitions(options)
    setting = Setting(tasks=3, steps=3) if options.quick else Setting()
    findings, apart = compare_loops(store, work, setting, repeats)
    answer, parts = first_answer(store, work, setting, repeats)
    findings.append(answer)
    curve = measure_curve(store, work, 3, (2, 4)) if options.quick else measure_curve(store, work, CURVE_TASKS)
    text = (
        f"`{setting.dataset}`, tiny base in float32, one thread, LoRA of rank {setting.rank}, {setting.steps} steps of "
        f"{setting.batch} samples per task, means over {setting.tasks - 1} tasks after one that is not counted. Last "
        f"losses differ from the loop's by at most {apart:.1e}; one process per task gives the same bits."
    )
    page = plain_page("Test-time training", text, findings, [curve.growth], f"{parts}\n\n{curve_part(curve)}")
    return finish(options, page, findings, [curve.growth], versions=store.versions())


def curve_part(curve: Curve) -> str:
    """Return the part of the page about accuracy after different numbers of steps."""
    text = f"`{curve.dataset}`, {VIEWS} views a task; 0 steps are the base. The intervals are over tasks."
    return f"## Accuracy against cost\n\n{text}\n\n{curve.table()}"


if __name__ == "__main__":
    sys.exit(main())
