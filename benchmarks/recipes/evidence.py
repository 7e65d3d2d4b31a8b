"""How often truly equal recipes are called different: one recipe, really trained with 20 seeds.

    python -m benchmarks.recipes.evidence [--quick] [--work FOLDER]

Trains the recipe of benchmarks/recipes/same_recipe.yaml on the tiny base with every seed, serves and benches all
adapters (`bench sweep`, which resumes), and tests groups of training runs against each other: every pair of adapters
over tasks only, and random splits into two groups over tasks and training runs. Writes benchmarks/recipes_evidence.md.
The pairs and splits share training runs, so that the shares describe these 20 runs and are no error rates.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.entry import FOLDER
from benchmarks.common.population import SEED, Floats
from harness.cli.workflows.steps import run_bench
from harness.results.table_format import markdown_table
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_saved
from harness.stats.crossed_variance import difference_variance
from harness.stats.paired_test import SIGNIFICANCE, compare
from harness.stats.power import components_of
from harness.stats.recipes import compare_recipes

SWEEP = Path(__file__).parent / "same_recipe.yaml"
METRICS = ("accuracy", "vote_2")
GROUPS = (2, 3, 5, 10)
SPLITS = 1_000
QUICK = ("seeds=[0,1,2,3]", "evaluation.dataset=toy/cross/evaluation#n=20", "recipe.max_steps=14")


@dataclass(frozen=True)
class Shares:
    """Shares (%) of splits into two groups of ``size`` training runs that are called different at p < 0.05."""

    size: int
    splits: int
    over_both: float
    over_tasks: float
    """By the test over tasks of the means over the same runs."""


def scores_of(runs: list[Path]) -> tuple[dict[str, Floats], int]:
    """Return by metric the scores of all training runs, shape (runs, tasks), and N."""
    saved = [open_predictions(run) for run in runs]
    tables = [score_saved(one)[0].tasks for one in saved]
    if any(table.ids != tables[0].ids for table in tables):
        raise SystemExit("the runs were made on different tasks; remove the folder")
    return {name: np.stack([table.values_of(name) for table in tables]) for name in METRICS}, saved[0].n


def share_of_pairs(scores: Floats, n: int) -> tuple[int, float]:
    """Return the number of pairs of adapters, and the share (%) that the test over tasks calls different."""
    first, second = np.array(list(itertools.combinations(range(len(scores)), 2))).T
    p = np.array([c.p for c in compare(scores[first], scores[second], n)])
    return len(p), 100 * float(np.mean(p < SIGNIFICANCE))


def share_of_splits(scores: Floats, n: int, size: int, splits: int = SPLITS) -> Shares:
    """Return how many random splits into two groups of ``size`` training runs are called different."""
    rng = np.random.default_rng([SEED, size])
    both, tasks = [], []
    for _ in range(splits):
        order = rng.permutation(len(scores))[: 2 * size]
        ours, theirs = scores[order[:size]], scores[order[size:]]
        both.append(compare_recipes(ours, theirs).p < SIGNIFICANCE)
        over_tasks = compare([ours.mean(axis=0)], [theirs.mean(axis=0)], n * size, resamples=999)
        tasks.append(over_tasks[0].p < SIGNIFICANCE)
    return Shares(size, splits, 100 * float(np.mean(both)), 100 * float(np.mean(tasks)))


def page(scores: dict[str, Floats], n: int, splits: int = SPLITS) -> str:
    """Return the page."""
    runs, tasks = scores[METRICS[0]].shape
    head = _HEAD.format(runs=runs, tasks=tasks, n=n)
    rows = [_row(name, table) for name, table in scores.items()]
    header = ["metric", "mean", "lowest", "highest", "sd of training runs", "of it training alone", "training × tasks"]
    parts = [head, markdown_table(header, rows), _SHARES]
    shares = [[name, "1 and 1", *_pair_cells(table, n)] for name, table in scores.items()]
    for name, table in scores.items():
        for size in (size for size in GROUPS if 2 * size <= runs):
            s = share_of_splits(table, n, size, splits)
            shares.append([name, f"{size} and {size}", f"{s.splits:,}", f"{s.over_tasks:.1f}", f"{s.over_both:.1f}"])
    header = ["metric", "training runs", "pairs or splits", "over tasks only, %", "over tasks and training runs, %"]
    return "\n\n".join([*parts, markdown_table(header, shares, left=2), _FOOT]) + "\n"


def _pair_cells(table: Floats, n: int) -> list[str]:
    pairs, share = share_of_pairs(table, n)
    return [f"{pairs:,}", f"{share:.1f}", "refused"]


def _row(name: str, table: Floats) -> list[str]:
    """Return level and spread of the training runs in points, from two halves of them as two equal recipes."""
    means = table.mean(axis=1)
    half = len(table) // 2
    c = components_of(difference_variance(table[:half], table[half:]))
    spread = [means.std(ddof=1), np.sqrt(c.training), np.sqrt(c.training_task)]
    return [name, *(f"{100 * value:.1f}" for value in (means.mean(), means.min(), means.max(), *spread))]


def main() -> int:
    """Train, bench and test what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes.evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="four seeds and 20 tasks; the page is only printed")
    parser.add_argument("--work", type=Path, default=Path("runs/recipes_evidence"), help="folder of the sweep")
    options = parser.parse_args()
    work = options.work / "quick" if options.quick else options.work
    settings = [word for setting in (QUICK if options.quick else ()) for word in ("--set", setting)]
    run_bench("sweep", str(SWEEP), "-o", str(work), *settings)
    text = page(*scores_of(sorted((work / "bench").iterdir())))
    print(text)
    if not options.quick:
        (FOLDER / "recipes_evidence.md").write_text(text, encoding="utf-8")
    return 0


_HEAD = """\
# Equal recipes called different, really trained

Written by `python -m benchmarks.recipes.evidence`. One recipe (`benchmarks/recipes/same_recipe.yaml`: the tiny base,
few training steps on generated tasks) was trained with {runs} seeds, and every adapter was benched on the same {tasks}
tasks with N = {n} at temperature 0. All differences between these adapters are chance of training. Figures in points;
the last two columns are standard deviations of a training run's mean over all tasks, and of its score on one task
beyond that (with sampling)."""
_SHARES = """\
Share called different at p < 0.05, uncorrected: of all pairs of adapters by the test over tasks (`bench compare` of two
models), and of random splits of the training runs into two groups by the test over tasks and training runs (`bench
compare` of recipes), with the test over tasks of the groups' means beside it."""
_FOOT = """\
All recipes here are equal, so that a valid test calls about 5 % different. The pairs and splits share training runs:
the shares describe these runs and are no error rates."""


if __name__ == "__main__":
    sys.exit(main())
