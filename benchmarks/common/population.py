"""Simulated tasks and predictions at the level published for such benchmarks, scored as the harness scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.voting.metrics import METRICS

Floats = NDArray[np.float64]

DISTRACTORS = 12
SEED = 20_250
CHUNK = 200


@dataclass(frozen=True)
class Population:
    """Distribution of each task's probability of the exact grid, and of the wrong predictions."""

    never: float = 0.525
    """Share of tasks whose exact grid is never sampled."""
    solved: tuple[float, float] = (0.3, 0.8)
    """Beta parameters of the chance of the exact grid on the others."""
    agreed: tuple[float, float] = (3.0, 1.0)
    """Beta parameters of the share of wrong grids that fall on a few popular ones (the rest are unique)."""
    failures: float = 0.05
    """Share of the predictions that are not exact which have no grid."""
    two_outputs: float = 0.04
    """Share of tasks with a second test output."""

    def chances(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """Draw the probability of the exact grid for tasks of the given shape."""
        return np.where(rng.random(shape) < self.never, 0.0, rng.beta(*self.solved, shape))


def score_outputs(population: Population, chance: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Draw n predictions for test outputs and score them.

    Args:
        chance: probability of the exact grid, shape (outputs,).

    Returns:
        Shape (metrics, outputs).
    """
    count = len(chance)
    popularity = 1 / np.arange(1, DISTRACTORS + 1)
    agreed = rng.beta(*population.agreed, count)[:, None]
    wrong = ((1 - chance) * (1 - population.failures))[:, None]
    popular = wrong * agreed * popularity / popularity.sum()
    failed = ((1 - chance) * population.failures)[:, None]
    draws = rng.multinomial(n, np.concatenate((chance[:, None], popular, wrong * (1 - agreed), failed), axis=1))
    exact, rivals, unique, lost = draws[:, 0], draws[:, 1:-2], draws[:, -2], draws[:, -1]
    sized = rng.random((count, DISTRACTORS)) < 0.8
    pixels = sized * rng.beta(8, 2, (count, DISTRACTORS))
    ahead = (rivals > exact[:, None]).sum(axis=1)
    tied = (rivals == exact[:, None]).sum(axis=1) + unique * (exact == 1)
    votes = [np.clip((k - ahead) / (tied + 1), 0, 1) * (exact > 0) for k in (1, 2)]
    same_size = exact + (rivals * sized).sum(axis=1)
    equal = exact + (rivals * pixels).sum(axis=1)
    return np.stack([exact / n, same_size / n, equal / n, exact > 0, *votes, lost / n])


def score_tasks(population: Population, chance: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Score tasks with these probabilities of the exact grid, shape (replicates, tasks).

    Returns:
        Shape (metrics, replicates, tasks).
    """
    flat = chance.ravel()
    values = score_outputs(population, flat, n, rng)
    second = np.flatnonzero(rng.random(len(flat)) < population.two_outputs)
    values[:, second] = (values[:, second] + score_outputs(population, flat[second], n, rng)) / 2
    return values.reshape(len(METRICS), *chance.shape)


def simulate(population: Population, replicates: int, tasks: int, n: int, seed: int) -> Floats:
    """Simulate benchmarks of fresh tasks: values of shape (metrics, replicates, tasks)."""
    rng = np.random.default_rng([seed, tasks, n])
    sizes = [min(CHUNK, replicates - start) for start in range(0, replicates, CHUNK)]
    parts = [score_tasks(population, population.chances((size, tasks), rng), n, rng) for size in sizes]
    return np.concatenate(parts, axis=1)


def truth(population: Population, n: int, tasks: int = 2_000_000) -> Floats:
    """Return the population's value of each metric, to about 0.0003."""
    replicates = tasks // 10_000
    means = [simulate(population, 1, 10_000, n, SEED + 1 + i).mean(axis=(1, 2)) for i in range(replicates)]
    average: Floats = np.mean(means, axis=0)
    return average
