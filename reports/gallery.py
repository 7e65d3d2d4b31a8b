"""Pictures of tasks: what was shown, what was asked, the truth, and what each model answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.answers import run_answers
from harness.grid import Grid, Task
from harness.picture import draw_grid
from harness.voting import Group, Vote, rank
from reports.loading import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_PAIRS = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The grid that a model's votes chose first for a test input; None where no prediction was a grid."""

    model: str
    first: Group | None


def instructive_tasks(section: Section, count: int) -> list[Task]:
    """The tasks on which the models differ most in solve rate, then the hardest; ties by id."""

    def order(task: Task) -> tuple[float, float, str]:
        rates = [float(scores.tasks.of("accuracy")[scores.tasks.ids.index(task.id)]) for scores in section.scored]
        return -(max(rates) - min(rates)), sum(rates), task.id

    return sorted(section.tasks, key=order)[:count]


def verdicts(section: Section, tasks: Sequence[Task]) -> dict[str, list[Verdict]]:
    """By task id, each model's choice for the first test input of the task."""
    wanted = {task.id for task in tasks}
    votes: dict[tuple[str, str, str], list[Vote]] = {}
    for run in section.runs:
        for answer in run_answers(run.folder.predictions_path):
            if answer.task_id in wanted and answer.test_index == 0 and answer.grid is not None:
                key = (answer.task_id, run.name, answer.model)
                votes.setdefault(key, []).append(Vote(answer.grid, answer.mean_logprob))
    named = [(run.name, scores.model) for run in section.runs for scores in run.scored]
    shown = [scores.model for scores in section.scored]
    chosen: dict[str, list[Verdict]] = {}
    for task in tasks:
        ranked = [rank(votes.get((task.id, *name), [])) for name in named]
        chosen[task.id] = [Verdict(m, groups[0] if groups else None) for m, groups in zip(shown, ranked, strict=True)]
    return chosen


def draw_gallery(section: Section, tasks: Sequence[Task], path: Path) -> None:
    """One row a task: train pairs, test input, truth, and each model's first choice with its votes."""
    from matplotlib.figure import Figure

    chosen = verdicts(section, tasks)
    columns = 2 * SHOWN_PAIRS + 2 + len(section.scored)
    figure = Figure(figsize=(1.35 * columns, 1.75 * len(tasks) + 0.2), layout="constrained")
    axes = figure.subplots(len(tasks), columns, squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        for panel in row:
            panel.set_axis_off()
        for k, pair in enumerate(task.train[:SHOWN_PAIRS]):
            _panel(row[2 * k], pair.input, f"example {k + 1}")
            _panel(row[2 * k + 1], pair.output, "→")
        row[0].set_title(f"{task.id}\nexample 1", fontsize=7)
        test = task.test[0]
        _panel(row[2 * SHOWN_PAIRS], test.input, "test")
        _panel(row[2 * SHOWN_PAIRS + 1], test.output, "truth")
        for panel, verdict in zip(row[2 * SHOWN_PAIRS + 2 :], chosen[task.id], strict=True):
            _panel(panel, verdict.first.grid if verdict.first else None, _caption(verdict, test.output, section.n))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _caption(verdict: Verdict, truth: Grid | None, n: int) -> str:
    if verdict.first is None:
        return f"{verdict.model}\nno grid"
    mark = "✓" if verdict.first.grid == truth else "✗"
    return f"{verdict.model}\n{mark} {verdict.first.count} of {n}"


def _panel(panel: Axes, grid: Grid | None, title: str) -> None:
    panel.set_title(title, fontsize=7)
    if grid is not None:
        draw_grid(panel, grid)
