"""Full runs of many test outputs: simulated at the published level, or read from run folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.population import DISTRACTORS, Population
from harness.core.grid import Grid
from harness.core.symmetry import SYMMETRIES
from harness.predictions.declared_tasks import declared_tasks
from harness.predictions.run_predictions import read_run_predictions
from harness.runs.folder import RunFolder
from harness.scoring.model_scores import true_outputs
from harness.voting.ranking import Vote, probability_in_top, rank_votes

VIEWS = len(SYMMETRIES)


@dataclass(frozen=True)
class Output:
    """All samples of one test output in order, None for a failure."""

    task: str
    draws: list[Vote | None]
    truth: Grid

    def first(self, count: int) -> list[Vote]:
        """Return the votes among the first ``count`` samples."""
        return [vote for vote in self.draws[:count] if vote is not None]


def simulate(population: Population, tasks: int, n: int, rng: np.random.Generator, uneven: bool) -> list[Output]:
    """Simulate outputs whose wrong grids have different popularity; exact answers tend to have higher
    log-probabilities.

    Args:
        uneven: each symmetry has its own probability of the exact grid, with the same mean.
    """
    popularity = 1 / np.arange(1, DISTRACTORS + 1)
    outputs_by_model = []
    for chance in population.chances((tasks,), rng):
        agreed = rng.beta(*population.agreed)
        means = -rng.exponential(0.1, DISTRACTORS + 1)
        means[0] /= 3
        spread = np.clip([3 * chance, 3 * (1 - chance)], 1e-3, None)
        exact = rng.beta(*spread, VIEWS) if uneven and 0 < chance < 1 else np.full(VIEWS, chance)
        draws: list[Vote | None] = []
        for sample in range(n):
            if rng.random() < exact[sample % VIEWS]:
                name = 0
            elif rng.random() < population.failures:
                draws.append(None)
                continue
            elif rng.random() < agreed:
                name = 1 + int(rng.choice(DISTRACTORS, p=popularity / popularity.sum()))
            else:
                name = 100 + sample
            mean = means[name] if name < len(means) else -rng.exponential(0.3)
            draws.append(Vote(_named(name), float(mean * rng.lognormal(0, 0.5))))
        outputs_by_model.append(Output(str(rng.random()), draws, _named(0)))
    return outputs_by_model


def _named(name: int) -> Grid:
    return Grid(1, 4, bytes(int(digit) for digit in f"{name:04d}"))


def load(run: Path) -> dict[str, list[Output]]:
    """Return the outputs of a full run by model and dataset.

    Raises:
        SystemExit: the run is incomplete or used early stopping.
    """
    folder = RunFolder(run)
    manifest = folder.manifest()
    tasks = declared_tasks(manifest)
    truths = true_outputs(tasks)
    dataset = manifest.config.dataset
    outputs_by_model: dict[str, list[Output]] = {}
    for predictions in read_run_predictions(folder, manifest, tasks):
        outputs_by_model[f"{predictions.model} on {dataset}"] = outputs = []
        for task, groups in predictions.outputs.items():
            for index, (output, truth) in enumerate(zip(groups, truths[task], strict=True)):
                if output.count != manifest.config.n:
                    raise SystemExit(f"{run}: {output.count} of {manifest.config.n} predictions for task {task}")
                votes = {vote.sample: vote for vote in output.votes()}
                draws = [votes.get(sample) for sample in range(manifest.config.n)]
                outputs.append(Output(f"{dataset} {task} {index}", draws, truth))
    return outputs_by_model


def level(runs: Iterable[Sequence[Output]]) -> str:
    """Return accuracy, pass_n and vote_2 of full runs in words."""
    outputs = [output for run in runs for output in run]
    exact = [sum(v is not None and v.grid == o.truth for v in o.draws) for o in outputs]
    accuracy = sum(e / len(o.draws) for e, o in zip(exact, outputs, strict=True)) / len(outputs)
    voted = sum(probability_in_top(rank_votes(o.first(len(o.draws))), o.truth, 2) for o in outputs) / len(outputs)
    passed = sum(e > 0 for e in exact) / len(outputs)
    return f"accuracy {100 * accuracy:.1f} %, pass_n {100 * passed:.1f} %, vote_2 {100 * voted:.1f} %"
