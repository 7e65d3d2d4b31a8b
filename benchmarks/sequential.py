"""Measure false alarms, power and saved draws of sequential verdicts about two adapters, at the published level.

Two adapters are drawn with a true difference of 0, 1, 3 and 10 points on at most 400 tasks with 32 predictions. The
sequential verdict of the harness (alpha spending, valid at its looks) is compared with the test after all tasks and
with an e-process (valid at any time). Writes benchmarks/sequential.md.

    python -m benchmarks.sequential [--quick]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from benchmarks.common.entry import finish, open_store, parser
from benchmarks.common.findings import Finding, findings_table
from benchmarks.common.population import SEED, Floats
from benchmarks.recipes.population import PREDICTIONS, Recipes
from harness.results.table_format import markdown_table
from harness.stats.paired_test import compare
from harness.stats.sequential import SequentialVerdict, even_schedule, sequential_verdict

TASKS = 400
FLIPS = 1_999
DIFFERENCES = (0.0, 0.01, 0.03, 0.1)
SMALLER_THAN = 0.03
METRICS = ("accuracy", "vote_2")
BETS = np.array([0.1, 0.2, 0.4, 0.8])


def paired_differences(metric: str, difference: float, replicates: int) -> tuple[Floats, float]:
    """Return the tasks' differences of pairs of adapters, shape (replicates, tasks), and their true mean."""
    recipes = Recipes(metric, 0.1, 0.05)
    recipes = recipes.with_difference(difference) if difference else recipes
    rng = np.random.default_rng([SEED, len(metric), round(1000 * difference)])
    parts = [recipes.draw((1, 1), TASKS, 500, rng) for _ in range(math.ceil(replicates / 500))]
    return np.concatenate([(ours - theirs)[:, 0] for ours, theirs in parts])[:replicates], recipes.true_difference()


def e_process_ends(differences: Floats, alpha: float = 0.05) -> Floats:
    """Return after how many tasks an e-process rejects, by replicate; infinity if it does not.

    The mean over bets λ of Π (1 + λ·d) is a martingale if every difference has the mean 0 given the earlier ones;
    it exceeds 1/α with probability α at most (Waudby-Smith and Ramdas 2024, JRSS B 86:1).
    """
    capital = np.mean([np.cumprod(1 + bet * differences, axis=1) for bet in (*BETS, *-BETS)], axis=0)
    reached = capital >= 1 / alpha
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, math.inf)


def measure(metric: str, difference: float, replicates: int) -> dict[str, Any]:
    """Return rates in per cent, by method, for one true difference."""
    values, true = paired_differences(metric, difference, replicates)
    schedule, scale = even_schedule(TASKS), PREDICTIONS if metric == "accuracy" else 1

    def verdicts(bound: float | None) -> list[SequentialVerdict]:
        return [sequential_verdict(row, schedule, scale, bound, seed=i, flips=FLIPS) for i, row in enumerate(values)]

    without, bounded = verdicts(None), verdicts(SMALLER_THAN)
    plain, futile = ([(v.looks[-1].tasks, v.verdict) for v in each] for each in (without, bounded))
    intervals = [[(x.low, x.high) for x in v.looks if x.low is not None and x.high is not None] for v in without]
    whole = compare(np.maximum(values, 0), np.maximum(-values, 0), scale, resamples=FLIPS)
    ends = e_process_ends(values)
    resolved = [name in ("better", "worse") for _, name in plain]

    def percent(flags: Any) -> float:
        return 100 * float(np.mean(flags))

    return {
        "whole": percent([c.p < 0.05 for c in whole]),
        "resolved": percent(resolved),
        "worse": percent([name == "worse" for _, name in plain]),
        "used": percent([tasks / TASKS for tasks, _ in plain]),
        "futile resolved": percent([name in ("better", "worse") for _, name in futile]),
        "smaller": percent([name.startswith("smaller") for _, name in futile]),
        "futile used": percent([tasks / TASKS for tasks, _ in futile]),
        "covered": percent([all(low <= true <= high for low, high in pairs) for pairs in intervals]),
        "e resolved": percent(np.isfinite(ends)),
        "e used": percent(np.minimum(ends, TASKS) / TASKS),
    }


def page_table(cells: dict[tuple[str, float], dict[str, Any]]) -> str:
    """Return the table of all cells."""
    columns = {
        "test after all tasks": "whole",
        "sequential": "resolved",
        "wrong direction": "worse",
        "draws used": "used",
        "intervals cover": "covered",
        "with bound: resolved": "futile resolved",
        "smaller": "smaller",
        "draws used with bound": "futile used",
        "e-process": "e resolved",
        "its draws": "e used",
    }
    rows = [
        [metric, f"{100 * difference:g}", *(f"{cell[key]:.1f}" for key in columns.values())]
        for (metric, difference), cell in cells.items()
    ]
    return markdown_table(["metric", "true difference", *columns], rows)


def missed(cells: dict[tuple[str, float], dict[str, Any]], replicates: int) -> list[str]:
    """Return in words which promises the simulation breaks by more than three standard errors."""
    error = 300 * math.sqrt(0.05 * 0.95 / replicates)
    goals = []
    for (metric, difference), cell in cells.items():
        where = f"{metric}, {100 * difference:g} points"
        if difference == 0 and cell["resolved"] > 5 + error:
            goals.append(f"{where}: {cell['resolved']:.1f} % false alarms")
        if cell["covered"] < 95 - error:
            goals.append(f"{where}: repeated intervals cover {cell['covered']:.1f} %")
        if difference >= SMALLER_THAN and cell["smaller"] > 5 + error:
            goals.append(f"{where}: called smaller in {cell['smaller']:.1f} %")
    return goals


def main() -> int:
    """Run the missing simulations and write the page."""
    arguments = parser(__doc__, "sequential", repeats=1)
    arguments.add_argument("--replicates", type=int, help="simulated comparisons per cell (default 2,000; quick: 60)")
    options = arguments.parse_args()
    replicates = options.replicates or (60 if options.quick else 2_000)
    store = open_store(options)
    cells = {
        (metric, difference): store.get(
            f"{metric} {difference} {replicates}", lambda m=metric, d=difference: measure(m, d, replicates)
        )
        for metric in METRICS
        for difference in DIFFERENCES
    }
    findings = [
        Finding(
            f"draws used, {metric}, {100 * difference:g} points",
            "%",
            (cell["used"],),
            "e-process",
            (cell["e used"],),
            why="it looks after every task, this project after every twentieth part of them",
        )
        for (metric, difference), cell in cells.items()
        if difference
    ]
    page = f"{_HEAD}\n{page_table(cells)}\n\n{findings_table(findings)}\n"
    return finish(options, page, findings, goals=missed(cells, replicates), versions=store.versions())


_HEAD = f"""\
# Deciding with fewer draws, simulated

Written by `python -m benchmarks.sequential`. Pairs of adapters at the published level (13 % accuracy, 25 % vote_2 at
N = 32), at most {TASKS} tasks in random order, 20 looks at equal distances; figures in per cent of simulated
comparisons. *Sequential* and *e-process*: share that is called better or worse, which is the rate of false alarms at a
true difference of 0 and the power elsewhere; *draws used*: of those of all tasks; *intervals cover*: all repeated
intervals up to the verdict contain the true difference. The bound ends a comparison as *smaller than
{100 * SMALLER_THAN:g} points*. The e-process may be looked at after every task.
"""


if __name__ == "__main__":
    sys.exit(main())
