"""Write run folders with made-up enumerated views (``--search dfs``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from harness.core.augmentation import sampling_view
from harness.core.grid import Grid
from harness.core.random_stream import Stream
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.logs.view_block import ViewAnswer, ViewResult, view_block
from harness.runs.schemas.view_schema import SearchConfig
from tests.support.runs.run_folders import edit_manifest, run_manifest, wrong_grid

MIN_PROB = 0.05


def view_answer(probability: float, grid: Grid | None, n_tokens: int = 5) -> ViewAnswer:
    """Return an answer with this probability."""
    return ViewAnswer("unparsed" if grid is None else "grid", grid, "text", math.log(probability), n_tokens)


def view_result(answers: Sequence[ViewAnswer], greedy: int | ViewAnswer | None = None, dropped: int = 0) -> ViewResult:
    """Return an enumerated view with these answers, in any order."""
    order = sorted(answers, key=lambda answer: -answer.logprob)
    unexplored = max(0.0, 1 - math.fsum(math.exp(answer.logprob) for answer in answers))
    if greedy is None and order:
        greedy = 0
    return ViewResult("enumerated", order, greedy, unexplored, 0, dropped, len(order) + 1, 40, 0.5)


def random_view(stream: Stream, truth: Grid, share: float) -> ViewResult:
    """Return a made-up view: up to five answers, among them the exact grid with probability ``share``."""
    if stream.uniform() < 0.05:
        return ViewResult("too_long" if stream.uniform() < 0.5 else "refused")
    grids: list[Grid | None] = [wrong_grid(truth, stream.below(4)) for _ in range(stream.below(4))]
    grids += [None] if stream.uniform() < 0.2 else []
    grids += [truth] if stream.uniform() < share else []
    rest = 1.0
    answers = []
    for grid in grids:
        probability = rest * (0.1 + 0.8 * stream.uniform())
        if probability >= MIN_PROB:
            answers.append(view_answer(probability, grid, 4 + stream.below(3)))
            rest -= probability
    return view_result(answers, None if answers else view_answer(rest / 2, truth))


def write_view_run(parent: Path, name: str, spec: str, skill: dict[str, float], n: int = 4, seed: int = 0) -> Path:
    """Write the folder of a finished run with made-up enumerated views.

    Args:
        skill: for each model, the probability that a view proposes the exact grid.
        n: views per test output.
    """
    folder = RunFolder(parent / name)
    folder.path.mkdir()
    folder.write_manifest(run_manifest(spec, list(skill), n, seed))
    edit_manifest(folder.path, search=SearchConfig(min_prob=MIN_PROB, max_answers=None, logprobs=21), api="completions")
    dataset = open_dataset(spec)
    log = PredictionLog(folder.predictions_path, views=True)
    for model, share in skill.items():
        for index in range(len(dataset.ids)):
            task = dataset.task(index)
            for test, pair in enumerate(task.test):
                for sample in range(n):
                    assert pair.output is not None
                    result = random_view(Stream("views", model, task.id, test, sample), pair.output, share)
                    augmentation = sampling_view(seed, task.id, sample, len(task.train))
                    log.append(view_block((model, task.id, test, sample), augmentation, 7, result))
    log.close()
    return folder.path
