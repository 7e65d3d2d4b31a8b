"""What stopping early saves and what it changes: full runs replayed draw by draw under every rule.

Simulated runs stand for the level published for such benchmarks (accuracy 13 %, pass_n 34 %, vote_2 24 % at 32
predictions, 400 tasks), once with draws that are alike and once with symmetries that differ in difficulty, which
breaks the exchangeability that the risk's model assumes. Real run folders are replayed where they are named; a
run of N = 128 also serves as one of 32, as its first draws are the same. Exits with 1 where ``decided`` changes a
vote, or a risk is exceeded by more than three standard errors.

    python -m benchmarks.stopping --write benchmarks/stopping.md
    python -m benchmarks.stopping --quick
    python -m benchmarks.stopping runs/first runs/second
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time

import numpy as np

from benchmarks.coverage import Population
from benchmarks.replays.full_runs import VIEWS, Output, level, load, simulate
from harness.stopping import Schedule, Stop, schedule
from harness.tables import markdown_table
from harness.voting import rank, share_in_top, tie_sets

RULES = ("decided", "risk=0.01", "risk=0.05", "risk=0.1", "risk=0.2")
SEED = 20_260


@dataclass
class Replay:
    """What a rule did to the outputs of some runs."""

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


def replay(runs: Iterable[Sequence[Output]], rule: str) -> Replay:
    """Stop every output of full runs where the rule would have."""
    result = Replay()
    for outputs in runs:
        plan = schedule(Stop.parse(rule), len(outputs[0].draws), len(outputs), VIEWS)
        for output in outputs:
            _replay(output, plan, result)
    return result


def _replay(output: Output, plan: Schedule, result: Replay) -> None:
    start = process_time()
    drawn = plan.first
    while drawn < plan.n:
        votes = output.first(drawn)
        due = plan.due(list(Counter(vote.grid for vote in votes).values()), drawn - len(votes))
        if due == drawn:
            break
        drawn = due
    result.seconds += process_time() - start
    result.outputs += 1
    result.draws += plan.n
    full, early = rank(output.first(plan.n)), rank(output.first(drawn))
    exact = [vote is not None and vote.grid == output.truth for vote in output.draws]
    everything = sum(exact) / plan.n
    result.first_round.append((output.task, sum(exact[: plan.first]) / plan.first - everything))
    result.naive.append((output.task, sum(exact[:drawn]) / drawn - everything))
    if drawn < plan.n:
        result.stopped += 1
        result.spared += plan.n - drawn
        attempts = [[{g.grid for g in tied} for tied in tie_sets(groups)][:2] for groups in (full, early)]
        result.changed += attempts[0] != attempts[1]
        for k in (0, 1):
            shift = share_in_top(early, output.truth, k + 1) - share_in_top(full, output.truth, k + 1)
            result.votes_changed[k] += shift != 0
            result.shift[k] += shift


HEADER = (
    "rule", "stopped", "saved", "attempts changed", "vote_1 changed", "vote_2 changed", "vote_2 shift",
    "accuracy of round one", "accuracy of all drawn",
)  # fmt: skip


def row(rule: str, found: Replay) -> list[str]:
    """One line of a table."""
    stopped = max(found.stopped, 1)
    return [
        rule,
        f"{100 * found.stopped / found.outputs:.1f} %",
        f"{100 * found.spared / found.draws:.1f} %",
        *(f"{100 * c / stopped:.2f} % ({c} of {found.stopped})" for c in (found.changed, *found.votes_changed)),
        f"{100 * found.shift[1] / found.outputs:+.3f}",
        *(_with_error(values) for values in (found.first_round, found.naive)),
    ]


def _with_error(values: Sequence[tuple[str, float]]) -> str:
    """The mean in points; models that were asked under the same views are no independent observations."""
    points = 100 * np.array([value for _, value in values])
    sums: Counter[str] = Counter()
    for (task, _), distance in zip(values, points - points.mean(), strict=True):
        sums[task] += distance
    return f"{points.mean():+.2f} ± {math.sqrt(sum(s * s for s in sums.values())) / len(points):.2f}"


def kept(rule: str, found: Replay) -> bool:
    """Whether a rule kept its promise: nothing changed, or no more than the risk and three standard errors."""
    risk = Stop.parse(rule).risk
    slack = 3 * math.sqrt(risk * (1 - risk) / found.stopped) if found.stopped else 1.0
    nothing = found.changed == found.votes_changed[0] == found.votes_changed[1] == 0
    return nothing if not risk else found.changed <= (risk + slack) * found.stopped


def sections(replicates: int, runs: Sequence[Path]) -> list[tuple[str, list[Sequence[Output]]]]:
    """What is replayed: a title, and full runs of one N."""
    found: list[tuple[str, list[Sequence[Output]]]] = []
    for n, share in ((32, 1), (128, 4)):
        for uneven in (False, True):
            rng = np.random.default_rng([SEED, n, uneven])
            count = max(1, replicates // share)
            simulated: list[Sequence[Output]] = [simulate(Population(), 400, n, rng, uneven) for _ in range(count)]
            kind = "symmetries of different difficulty" if uneven else "draws alike"
            found.append((f"Simulated, {kind}, N = {n}: {count} runs of 400 outputs", simulated))
    real = {name: outputs for run in runs for name, outputs in load(run).items()}
    for n in sorted({32, *(len(outputs[0].draws) for outputs in real.values())} if real else ()):
        cut = {
            name: [replace(output, draws=output.draws[:n]) for output in outputs]
            for name, outputs in real.items()
            if len(outputs[0].draws) >= n
        }
        if cut:
            names = "; ".join(cut)
            found.append((f"Real, N = {n}: {sum(map(len, cut.values()))} outputs ({names})", [*cut.values()]))
    return found


def main() -> int:
    """Replay, print the tables; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="complete run folders, sampled without --stop")
    parser.add_argument("--replicates", type=int, default=20, help="simulated runs of 400 outputs")
    parser.add_argument("--quick", action="store_true", help="two simulated runs")
    parser.add_argument("--write", type=Path, help="also write the tables to this Markdown file")
    options = parser.parse_args()
    parts, broken = [], 0
    for title, full in sections(2 if options.quick else options.replicates, options.runs):
        results = {rule: replay(full, rule) for rule in RULES}
        table = markdown_table(HEADER, [row(rule, found) for rule, found in results.items()])
        seconds = max(1000 * 1000 * found.seconds / found.draws for found in results.values())
        parts.append(f"## {title}\n\n{level(full)}; the rule took at most {seconds:.0f} ms per 1,000 draws.\n\n{table}")
        print(parts[-1], end="\n\n", flush=True)
        for rule, found in results.items():
            if not kept(rule, found):
                broken += 1
                print(f"{title}: {rule} broke its promise", file=sys.stderr)
    if options.write:
        options.write.write_text("\n\n".join([INTRODUCTION, *parts]) + "\n")
    return 1 if broken else 0


INTRODUCTION = """\
# Stopping early, replayed on full runs

Written by `python -m benchmarks.stopping --write benchmarks/stopping.md RUN …`.

- Under `risk=R` further draws are taken to come from a Pólya urn: the next draw repeats a grid with the weight of its
  votes so far less 0.25, fails with that of the failures so far, and is a new grid with the rest (`change_bound` in
  harness/stopping.py).
- *Stopped*: test outputs that were left early. *Saved*: predictions that were not made, of all.
- *Attempts changed*: of the outputs that were left, those of which the full run has other attempts, or in another
  order. `decided` promises none, `risk=R` a share below R. *Votes changed* are those among them that score differently.
- *vote_2 shift* and *accuracies*: of the stopped run less the full run, in points, over all outputs; accuracies of the
  first round and of all that was drawn, with the standard error of the difference."""


if __name__ == "__main__":
    sys.exit(main())
