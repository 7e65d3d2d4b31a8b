"""Savings and changed votes of early stopping: full runs replayed sample by sample under every rule.

Simulated runs have the level published for such benchmarks (accuracy 13 %, pass_n 34 %, vote_2 24 % at 32 predictions,
400 tasks), once with exchangeable samples and once with symmetries of different difficulty, which breaks the assumption
of the risk's model. Run folders can be replayed too; a run of N = 128 also serves as one of 32, because its first
samples are the same. The exit status is 1 if ``decided`` changes a vote, or a risk is exceeded by more than three
standard errors.

    python -m benchmarks.stopping [--quick]
    python -m benchmarks.stopping runs/first runs/second

Replays of run folders are stored and stay in the page. Writes benchmarks/stopping.md.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchmarks.common.entry import finish, open_store, parser
from benchmarks.common.findings import Finding, Growth, findings_table, growth_table
from benchmarks.common.population import Population
from benchmarks.common.store import Store
from benchmarks.replays.full_runs import VIEWS, Output, level, load, simulate
from harness.results.table_format import markdown_table
from harness.voting.early_stopping import Schedule, StopRule, plan_rounds
from harness.voting.ranking import probability_in_top, rank_votes, split_ties

RULES = ("decided", "risk=0.01", "risk=0.05", "risk=0.1", "risk=0.2")
SEED = 20_260


@dataclass
class Replay:
    """Effect of a rule on the outputs of some runs."""

    outputs: int = 0
    draws: int = 0
    stopped: int = 0
    spared: int = 0
    changed: int = 0
    votes_changed: list[int] = field(default_factory=lambda: [0, 0])
    shift: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Sums over outputs: vote_k of the stopped run less vote_k of the full one."""
    first_round: list[tuple[str, float]] = field(default_factory=list)
    naive: list[tuple[str, float]] = field(default_factory=list)
    """By output, its task and accuracy less the full run's: of the first round, and of all that was drawn."""
    seconds: float = 0.0
    """Processor time of the rule."""
    drawn: list[float] = field(default_factory=list)
    """By run, the share of the predictions that were made."""


def replay(runs: Iterable[Sequence[Output]], rule: str) -> Replay:
    """Stop every output of full runs where the rule would have."""
    result = Replay()
    for outputs in runs:
        plan = plan_rounds(StopRule.parse(rule), len(outputs[0].draws), len(outputs), VIEWS)
        before = result.draws, result.spared
        for output in outputs:
            _replay(output, plan, result)
        result.drawn.append(1 - (result.spared - before[1]) / (result.draws - before[0]))
    return result


def _replay(output: Output, plan: Schedule, result: Replay) -> None:
    start = process_time()
    drawn = plan.first_round
    while drawn < plan.n:
        votes = output.first(drawn)
        due = plan.required_samples(list(Counter(vote.grid for vote in votes).values()), drawn - len(votes))
        if due == drawn:
            break
        drawn = due
    result.seconds += process_time() - start
    result.outputs += 1
    result.draws += plan.n
    full, early = rank_votes(output.first(plan.n)), rank_votes(output.first(drawn))
    exact = [vote is not None and vote.grid == output.truth for vote in output.draws]
    everything = sum(exact) / plan.n
    result.first_round.append((output.task, sum(exact[: plan.first_round]) / plan.first_round - everything))
    result.naive.append((output.task, sum(exact[:drawn]) / drawn - everything))
    if drawn < plan.n:
        result.stopped += 1
        result.spared += plan.n - drawn
        attempts = [[{g.grid for g in tied} for tied in split_ties(groups)][:2] for groups in (full, early)]
        result.changed += attempts[0] != attempts[1]
        for k in (0, 1):
            shift = probability_in_top(early, output.truth, k + 1) - probability_in_top(full, output.truth, k + 1)
            result.votes_changed[k] += shift != 0
            result.shift[k] += shift


HEADER = (
    "rule", "stopped", "saved", "attempts changed", "vote_1 changed", "vote_2 changed", "vote_2 shift",
    "accuracy of round one", "accuracy of all drawn",
)  # fmt: skip


def row(rule: str, result: Replay) -> list[str]:
    """Return one row of a table."""
    stopped = max(result.stopped, 1)
    return [
        rule,
        f"{100 * result.stopped / result.outputs:.1f} %",
        f"{100 * result.spared / result.draws:.1f} %",
        *(f"{100 * c / stopped:.2f} % ({c} of {result.stopped})" for c in (result.changed, *result.votes_changed)),
        f"{100 * result.shift[1] / result.outputs:+.3f}",
        *(_with_error(values) for values in (result.first_round, result.naive)),
    ]


def _with_error(values: Sequence[tuple[str, float]]) -> str:
    """Return the mean and its standard error in points. Models with the same views are not independent observations."""
    points = 100 * np.array([value for _, value in values])
    sums: Counter[str] = Counter()
    for (task, _), distance in zip(values, points - points.mean(), strict=True):
        sums[task] += distance
    return f"{points.mean():+.2f} ± {math.sqrt(sum(s * s for s in sums.values())) / len(points):.2f}"


def keeps_promise(rule: str, result: Replay) -> bool:
    """Return whether a rule kept its promise: no changed vote, or no more than the risk plus three standard errors."""
    risk = StopRule.parse(rule).risk
    slack = 3 * math.sqrt(risk * (1 - risk) / result.stopped) if result.stopped else 1.0
    nothing = result.changed == result.votes_changed[0] == result.votes_changed[1] == 0
    return nothing if not risk else result.changed <= (risk + slack) * result.stopped


Runs = list[Sequence[Output]]
POINTS = ((32, 1), (64, 2), (128, 4))
"""Predictions a test output, and the divisor of the number of runs that are simulated of it."""


def simulated(n: int, count: int, uneven: bool) -> Runs:
    """Return full runs of 400 outputs."""
    rng = np.random.default_rng([SEED, n, uneven])
    return [simulate(Population(), 400, n, rng, uneven) for _ in range(count)]


def sections(replicates: int, named: Sequence[Path]) -> list[tuple[str, Callable[[], Runs]]]:
    """Return what is replayed: a title, and a function that returns full runs of one N."""
    result: list[tuple[str, Callable[[], Runs]]] = []
    for n, share in POINTS:
        for uneven in (False, True):
            count = max(1, replicates // share)
            kind = "symmetries of different difficulty" if uneven else "draws alike"
            title = f"Simulated, {kind}, N = {n}: {count} runs of 400 outputs"
            result.append((title, lambda n=n, count=count, uneven=uneven: simulated(n, count, uneven)))  # type: ignore[misc]
    real = {name: outputs for run in named for name, outputs in load(run).items()}
    for n in sorted({32, *(len(outputs[0].draws) for outputs in real.values())} if real else ()):
        cut: dict[str, Sequence[Output]] = {
            name: [replace(output, draws=output.draws[:n]) for output in outputs]
            for name, outputs in real.items()
            if len(outputs[0].draws) >= n
        }
        if cut:
            title = f"Real, N = {n}: {sum(map(len, cut.values()))} outputs ({'; '.join(cut)})"
            result.append((title, lambda cut=cut: [*cut.values()]))  # type: ignore[misc]
    return result


def measure(full: Runs) -> dict[str, Any]:
    """Return a section's table, the rules that broke their promise, and the values used elsewhere."""
    results = {rule: replay(full, rule) for rule in RULES}
    table = markdown_table(HEADER, [row(rule, result) for rule, result in results.items()])
    seconds = max(1000 * 1000 * result.seconds / result.draws for result in results.values())
    return {
        "text": f"{level(full)}; the rule took at most {seconds:.0f} ms per 1,000 draws.\n\n{table}",
        "broken": [rule for rule, result in results.items() if not keeps_promise(rule, result)],
        "drawn": {rule: result.drawn for rule, result in results.items()},
        "ms": seconds,
    }


def main() -> int:
    """Run the missing replays and write the page; return 1 if a promise is broken."""
    arguments = parser(__doc__, "stopping", repeats=1)
    arguments.add_argument("runs", nargs="*", type=Path, help="complete run folders, sampled without --stop")
    arguments.add_argument("--replicates", type=int, help="simulated runs of 400 outputs (default 20; quick: 2)")
    options = arguments.parse_args()
    replicates = options.replicates or (2 if options.quick else 20)
    store = open_store(options)
    titled_runs = sections(replicates, options.runs)
    for title, full in titled_runs:
        store.get(title, lambda full=full: measure(full()))  # type: ignore[misc]
    titles = [title for title, _ in titled_runs if title.startswith("Simulated")]
    titles += [title for title in store.known if title.startswith("Real")]
    findings, growths = _findings(store, titles)
    parts = [f"## {title}\n\n{store.known[title]['text']}" for title in titles]
    tables = f"{findings_table(findings)}\n\n{growth_table(growths)}"
    broken = [f"{title}: {rule} broke its promise" for title in titles for rule in store.known[title]["broken"]]
    page = "\n\n".join([INTRODUCTION, tables, *parts]) + "\n"
    return finish(options, page, findings, growths, broken, store.versions())


def _findings(store: Store, titles: Sequence[str]) -> tuple[list[Finding], list[Growth]]:
    """Compare the share of predictions that are made with making all, and measure the rule's own cost."""
    findings, ms = [], []
    for n, _ in POINTS:
        title = next(title for title in titles if f"draws alike, N = {n}:" in title)
        for rule in ("decided", "risk=0.05"):
            drawn = tuple(100 * share for share in store.known[title]["drawn"][rule])
            findings.append(Finding(f"{rule}, N = {n}", "% of draws", drawn, "every draw", (100.0,) * len(drawn)))
        ms.append(store.known[title]["ms"])
    sizes = tuple(float(n) for n, _ in POINTS)
    return findings, [Growth("the slowest rule", "N", "CPU ms per 1,000 draws", sizes, tuple(ms))]


INTRODUCTION = """\
# Stopping early, replayed on full runs

Written by `python -m benchmarks.stopping`. A repetition of the first table is one simulated run of 400 outputs.

- Under `risk=R` further draws are taken to come from a Pólya urn: the next draw repeats a grid with the weight of its
  votes so far less 0.25, fails with that of the failures so far, and is a new grid with the rest (`change_bound` in
  harness/voting/change_bound.py).
- *Stopped*: test outputs whose sampling stopped early. *Saved*: share of all predictions that were not sampled.
- *Attempts changed*: of the stopped outputs, those of which the full run has other attempts, or in another
  order. `decided` promises none, `risk=R` a share below R. *Votes changed* are those among them that score differently.
- *vote_2 shift* and *accuracies*: of the stopped run less the full run, in points, over all outputs; accuracies of the
  first round and of all that was drawn, with the standard error of the difference."""


if __name__ == "__main__":
    sys.exit(main())
