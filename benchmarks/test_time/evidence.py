"""Evidence for docs/test-time-training.md, on the tiny base: about forty-five minutes of two cores.

    python -m benchmarks.test_time.evidence [--quick] [--real-tasks 60] [--work FOLDER] [--only STAGE]

Trains and answers 40 tasks of ``toy/cross``, 40 of ``toy/diagonal`` (each about 8 minutes), and the 20 smallest
evaluation tasks of ARC-AGI-1 (about 15 minutes, 60 tasks about an hour), answers the same by the base alone (2
minutes), measures both schedules (about 10 minutes), and prints markdown, which holds what was run so far. Finished
steps are skipped, and an interrupted run is resumed; the measurement of a schedule starts over.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.processes import measure_process, module_command
from benchmarks.evidence.experiment import small_tasks
from harness.cli.workflows.steps import run_bench

ROOT = Path(__file__).parent.parent.parent
RECIPE = ROOT / "examples" / "ttt-tiny.yaml"
STAGES = ("train", "base", "schedules", "page")
SCHEDULES = ("train-first", "resident")
REAL = "real"
SEED = 20
MIN_GAIN = "0.5"


@dataclass(frozen=True)
class Extent:
    """How much is trained and sampled.

    Attributes:
        families: of generated tasks.
        tasks: tasks of each family.
        real_tasks: real tasks, the smallest.
        views: predictions per test output.
        schedule_tasks: tasks of the first family with which the schedules are measured.
        repeats: measurements of each schedule.
        steps: training steps of a task; None for those of the recipe.
    """

    families: tuple[str, ...] = ("cross", "diagonal")
    tasks: int = 40
    real_tasks: int = 20
    views: int = 8
    schedule_tasks: int = 8
    repeats: int = 2
    steps: int | None = None

    @property
    def data(self) -> tuple[str, ...]:
        """Return the names of the sets of tasks."""
        return (*self.families, REAL)


QUICK = Extent(("cross",), tasks=3, real_tasks=1, schedule_tasks=2, repeats=1, steps=4)


@dataclass(frozen=True)
class Experiment:
    """The folders of the experiment, and the commands that fill them."""

    work: Path
    extent: Extent

    def spec(self, data: str) -> str:
        """Return the spec of a set of tasks; ids of real tasks are written to a file."""
        if data != REAL:
            return f"toy/{data}/evaluation#n={self.extent.tasks}"
        path = self.work / f"real-{self.extent.real_tasks}.txt"
        if not path.exists():
            path.write_text("".join(f"{task.id}\n" for task in small_tasks(self.extent.real_tasks)), encoding="utf-8")
        return f"arc1/evaluation#ids={path}"

    def folder(self, data: str, kind: str) -> Path:
        """Return the run folder; ``kind`` is ``ttt`` or ``base``."""
        count = f"-{self.extent.real_tasks}" if data == REAL else ""
        return self.work / "runs" / f"{data}{count}-{kind}"

    def is_done(self, data: str, kind: str) -> bool:
        """Return whether a run is finished and scored."""
        return (self.folder(data, kind) / "results.json").exists()

    def sampling(self, data: str) -> list[str]:
        """Return the options that both runs on a set of tasks have."""
        # Real tasks have large grids, which the tiny base does not end by itself.
        limit = ["--max-tokens", "160"] if data == REAL else []
        return ["--dataset", self.spec(data), "-n", str(self.extent.views), "--seed", str(SEED), *limit]

    def recipe_words(self) -> list[str]:
        """Return the recipe and what is changed in it."""
        return [str(RECIPE), *([] if self.extent.steps is None else ["--set", f"ttt.steps={self.extent.steps}"])]

    def train(self, data: str) -> None:
        """Run ``bench ttt`` on a set of tasks, or resume it."""
        folder = self.folder(data, "ttt")
        resume = ["--resume"] if any(folder.glob("*.json")) else []
        words = ["ttt", *self.recipe_words(), *self.sampling(data), "--name", "ttt", "--schedule", "train-first"]
        run_bench(*words, "--out", str(folder), *resume)

    def answer_by_base(self) -> None:
        """Make the runs of the base that are missing, on one server."""
        from serve.launch.process import serving
        from trainers.tiny.train import shipped_path

        missing = [data for data in self.extent.data if not self.is_done(data, "base")]
        if not missing:
            return
        with serving(shipped_path(), None, log=self.work / "server.log", progress=print, dtype="exact") as server:
            for data in missing:
                folder = self.folder(data, "base")
                resume = ["--resume"] if folder.exists() else []
                prompting = ["--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()"]
                words = ["run", "--server", server.url, "--model", shipped_path().name, *self.sampling(data)]
                run_bench(*words, *prompting, "--out", str(folder), *resume)

    def measure_schedules(self) -> None:
        """Measure the whole command with each schedule, in turns; what is measured is kept."""
        for repeat in range(self.extent.repeats):
            for schedule in SCHEDULES[:: -1 if repeat % 2 else 1]:
                path = self.schedule_file(schedule, repeat)
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(self._measure_schedule(schedule)), encoding="utf-8")

    def schedule_file(self, schedule: str, repeat: int) -> Path:
        """Return the file of a measurement of a schedule."""
        return self.work / "schedules" / f"{schedule}-{repeat}.json"

    def _measure_schedule(self, schedule: str) -> dict[str, float]:
        folder = self.work / "schedules" / "run"
        shutil.rmtree(folder, ignore_errors=True)
        spec = f"toy/{self.extent.families[0]}/evaluation#n={self.extent.schedule_tasks}"
        words = ["ttt", *self.recipe_words(), "--dataset", spec, "-n", str(self.extent.views), "--seed", str(SEED)]
        return measure_process(
            module_command("harness.cli", *words, "--schedule", schedule, "--out", str(folder))
        ).figures()

    def gates(self) -> Iterator[tuple[str, str, int]]:
        """Yield, for every set of generated tasks whose runs are done, the gate's command, output and exit status."""
        for data in self.extent.families:
            if self.is_done(data, "ttt") and self.is_done(data, "base"):
                words = ["gate", f"{data}-ttt", "--baseline", f"{data}-base", "--min-gain", MIN_GAIN]
                command = module_command("harness.cli", *words)
                done = subprocess.run(command, cwd=self.work / "runs", capture_output=True, text=True, check=False)
                yield " ".join(["bench", *words]), (done.stdout + done.stderr).strip(), done.returncode


def main() -> int:
    """Run the missing steps and print the page."""
    from benchmarks.test_time.evidence_page import page

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.test_time.evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few tasks and steps")
    parser.add_argument("--real-tasks", type=int, default=20, help="how many real tasks (default 20)")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence-ttt"), help="folder of the runs")
    parser.add_argument("--only", choices=STAGES, help="one stage")
    options = parser.parse_args()
    extent = QUICK if options.quick else Extent(real_tasks=options.real_tasks)
    work = (options.work / "quick" if options.quick else options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(work, extent)
    stages = STAGES if options.only is None else (options.only,)
    if "train" in stages:
        for data in extent.data:
            if not experiment.is_done(data, "ttt"):
                experiment.train(data)
    if "base" in stages:
        experiment.answer_by_base()
    if "schedules" in stages:
        experiment.measure_schedules()
    if "page" in stages:
        print(page(experiment))
    return 0


if __name__ == "__main__":
    sys.exit(main())
