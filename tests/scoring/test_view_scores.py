"""Scores of enumerated views: check values, a recount of the lines by other code, and invariances."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.core.augmentation import identity_view
from harness.core.errors import DataError
from harness.core.grid import Grid, Pair, Rows, Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.enumerated_outputs import EnumeratedOutput, group_views, view_votes
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import read_views
from harness.runs.logs.view_block import ViewAnswer, ViewResult, view_block
from harness.scoring.model_scores import score_model
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_run
from harness.voting.metrics import ENUMERATED_METRICS, METRICS, OutputScore, average_outputs, task_curves
from tests.support.runs.view_runs import view_answer, view_result, write_view_run

Line = dict[str, Any]
SPEC = "toy/cross/evaluation#n=24"
TRUTH = Grid(2, 2, bytes((1, 2, 3, 4)))
NEAR = Grid(2, 2, bytes((1, 2, 3, 0)))
WIDE = Grid(1, 4, bytes((1, 2, 3, 4)))


def save(path: Path, views: Sequence[ViewResult], order: Sequence[int] | None = None) -> Path:
    file = path / "predictions.jsonl"
    blocks = [view_block(("m", "t", 0, sample), identity_view(1), 7, view) for sample, view in enumerate(views)]
    file.write_bytes(b"".join(blocks[index] for index in order or range(len(blocks))))
    return file


def score(file: Path, n: int) -> OutputScore:
    (model,) = group_views(read_views(file), {"t": 1}, ["m"], str(file))
    output = model.outputs["t"][0]
    assert isinstance(output, EnumeratedOutput)
    return output.score(TRUTH, n)


def test_check_values(tmp_path: Path) -> None:
    views = [
        view_result([view_answer(0.5, TRUTH), view_answer(0.25, NEAR)]),
        view_result(
            [view_answer(0.2, TRUTH), view_answer(0.1, TRUTH), view_answer(0.3, WIDE), view_answer(0.15, None)]
        ),
        view_result([], view_answer(0.04, TRUTH)),
        ViewResult("too_long"),
    ]
    file = save(tmp_path, views)
    result = score(file, 5)
    assert (result.n, result.exact, result.wrong, result.failures) == (5, 2, (1, 1), 3)
    assert dict(zip(ENUMERATED_METRICS, result.values(), strict=True)) == {
        "accuracy": pytest.approx((0.5 + 0.2 + 0.1) / 5),
        "correct_size": pytest.approx((0.75 + 0.3) / 5),
        "correct_pixels": pytest.approx((0.5 + 0.25 * 0.75 + 0.3) / 5),
        "pass_n": 1.0,
        "vote_1": 1.0,
        "vote_2": 1.0,
        "unanswered": 3 / 5,
        "greedy": 2 / 5,  # of the second view it is the wide grid
        "unexplored": pytest.approx((0.25 + 0.25 + 1 + 0 + 1) / 5),
    }
    curves = task_curves({"t": [result]}, [1, 3, 5])
    assert list(curves) == ["pass_n"]
    assert curves["pass_n"][:, 0] == pytest.approx([2 / 5, 1 - 1 / 10, 1])
    (model,) = group_views(read_views(file), {"t": 1}, ["m"], "file")
    assert model.failures == {"below_min_prob": 1, "too_long": 1}
    pair = Pair(TRUTH, TRUTH)
    scores = score_model(model, [Task("t", (pair,), (pair,))], 5)
    assert scores.failures == {"below_min_prob": 1, "missing": 1, "too_long": 1}
    assert scores.enumeration is not None
    assert (scores.enumeration.answers, scores.enumeration.candidates) == (6, 3)


def test_ties_are_broken_by_the_logprob_per_token(tmp_path: Path) -> None:
    first = view_result([view_answer(0.4, NEAR, 4), view_answer(0.3, TRUTH, 9)])
    assert score(save(tmp_path, [first]), 1).vote_1 == 1
    assert score(save(tmp_path, [view_result([view_answer(0.4, NEAR), view_answer(0.3, TRUTH)])]), 1).vote_1 == 0


def probabilities(view: Sequence[tuple[int, float, Grid | None]]) -> list[ViewAnswer]:
    """Return answers whose probabilities add up to less than 1, from weights."""
    total = 1 + math.fsum(weight for _, weight, _ in view)
    return [view_answer(weight / total, grid, tokens) for tokens, weight, grid in view]


ANSWERS = st.lists(
    st.tuples(st.integers(1, 9), st.floats(0.01, 10), st.sampled_from([TRUTH, NEAR, WIDE, None])), max_size=6
)
VIEWS = st.lists(st.builds(view_result, ANSWERS.map(probabilities)), min_size=1, max_size=6)


@given(VIEWS, st.randoms(), st.integers(0, 2))
def test_scores_stay_in_range_and_ignore_the_order_of_views(
    tmp_path_factory: pytest.TempPathFactory, views: list[ViewResult], random: object, missing: int
) -> None:
    folder = tmp_path_factory.mktemp("views")
    order = list(range(len(views)))
    random.shuffle(order)  # type: ignore[attr-defined]
    result = score(save(folder, views), len(views) + missing)
    assert score(save(folder, views, order), len(views) + missing) == result
    values = dict(zip(ENUMERATED_METRICS, result.values(), strict=True))
    assert all(0 <= value <= 1 for value in values.values())
    assert values["accuracy"] <= values["correct_pixels"] <= values["correct_size"]
    assert values["correct_size"] + values["unexplored"] <= 1 + 1e-9
    assert values["vote_1"] <= values["vote_2"] <= values["pass_n"]
    assert task_curves({"t": [result]}, [result.n])["pass_n"][0, 0] == pytest.approx(values["pass_n"])


@given(ANSWERS.filter(bool), st.floats(0.01, 0.99), st.integers(0, 5))
def test_two_answers_of_one_grid_add_up(
    tmp_path_factory: pytest.TempPathFactory,
    view: list[tuple[int, float, Grid | None]],
    share: float,
    index: int,
) -> None:
    folder = tmp_path_factory.mktemp("views")
    answers = probabilities([(5, weight, grid) for _, weight, grid in view])  # the number of tokens breaks ties
    expected = {g: math.fsum(math.exp(a.logprob) for a in answers if a.grid == g) for g in {a.grid for a in answers}}
    # Rounding would break ties between grids.
    assume(all(abs(p - q) > 1e-9 for p, q in itertools.combinations(expected.values(), 2)))
    whole = answers[index % len(answers)]
    parts = [replace(whole, logprob=whole.logprob + math.log(part)) for part in (share, 1 - share)]
    split = [answer for answer in answers if answer is not whole] + parts
    one = score(save(folder, [view_result(answers, greedy=whole)]), 1)
    two = score(save(folder, [view_result(split, greedy=whole)]), 1)
    assert two.values() == pytest.approx(one.values())
    votes = view_votes(next(read_views(save(folder, [view_result(split)]))))
    assert {v.grid: math.exp(v.sum_logprob or 0) for v in votes} == pytest.approx(
        {grid: value for grid, value in expected.items() if grid is not None}
    )


@given(st.floats(1e-5, 0.2), st.floats(0.1, 0.9))
def test_probabilities_over_1_are_refused(
    tmp_path_factory: pytest.TempPathFactory, excess: float, share: float
) -> None:
    parts = [view_answer(share, TRUTH), view_answer(1 + excess - share, NEAR)]
    file = save(tmp_path_factory.mktemp("views"), [view_result([view_answer(0.5, TRUTH)]), view_result(parts)])
    with pytest.raises(DataError, match=r"line 5: the probabilities of the view's answers add up to 1\.\d+"):
        list(read_views(file))


def recount(
    answers: Sequence[dict[str, Any]], views: Sequence[dict[str, Any]], truths: dict[str, Rows]
) -> dict[str, float]:
    """Return the metrics of the lines of a model's answers and views."""
    weight, size, proposed, greedy = 0.0, 0.0, set(), 0
    grids = {(a["task_id"], a["sample_index"], a["answer_index"]): a["grid"] for a in answers}
    for line in answers:
        truth, grid = truths[line["task_id"]], line["grid"]
        probability = math.exp(line["cumulative_logprob"])
        if grid is not None:
            proposed.add((line["task_id"], line["sample_index"], str(grid)))
            size += probability * ((len(grid), len(grid[0])) == (len(truth), len(truth[0])))
        weight += probability * (grid == truth)
    for line in views:
        truth, choice = truths[line["task_id"]], line["view"]["greedy"]
        at = (line["task_id"], line["sample_index"], choice)
        greedy += truth == (grids[at] if isinstance(choice, int) else choice and choice["grid"])
    answered = {place[:2] for place in proposed}
    exact = {place[0] for place in proposed if place[2] == str(truths[place[0]])}
    unexplored = [0 if v["view"]["outcome"] == "too_long" else v["view"]["unexplored"] for v in views]
    return {
        "accuracy": weight / len(views),
        "correct_size": size / len(views),
        "greedy": greedy / len(views),
        "unanswered": 1 - len(answered) / len(views),
        "unexplored": float(np.mean(unexplored)),
        "pass_n": len(exact) / len(truths),
    }


def test_a_recount_of_the_lines_gives_the_same(tmp_path: Path) -> None:
    run = write_view_run(tmp_path, "a", SPEC, {"good": 0.9, "bad": 0.2}, n=6)
    results = score_run(run)
    truths = {task.id: task.test[0].output.to_rows() for task in iterate_tasks(open_dataset(SPEC))}
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for model, result in results.models.items():
        answers = [line for line in lines if line["model"] == model and "view" not in line]
        views = [line for line in lines if line["model"] == model and "view" in line]
        assert result.predictions == len(views) == 24 * 6
        expected = recount(answers, views, truths)
        metrics = {name: metric.value for name, metric in result.metrics.items()}
        assert set(metrics) == set(ENUMERATED_METRICS)
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)
        assert sum(result.failures.values()) == pytest.approx(len(views) * expected["unanswered"])
        cost = (results.cost or {})[model]
        assert cost.requests == sum(v["view"]["requests"] for v in views)
        assert cost.tokens == sum(v["view"]["n_tokens"] for v in views)
        assert result.enumeration is not None
        assert result.enumeration.answers == len(answers)
        for metric in result.metrics.values():
            assert 0 <= metric.low <= metric.value <= metric.high <= 1
            assert metric.low < metric.high
    assert RunFolder(run).results() == results


def test_a_file_of_views_alone_is_scored_as_its_run(tmp_path: Path) -> None:
    run = write_view_run(tmp_path, "a", SPEC, {"good": 0.9})
    alone = (run / "predictions.jsonl").rename(tmp_path / "views.jsonl")
    saved = open_predictions(alone, SPEC)
    scores = score_model(saved.predictions[0], saved.tasks, saved.n)
    alone.rename(run / "predictions.jsonl")
    expected = score_run(run).models["good"]
    assert scores.failures == expected.failures
    assert {name: float(scores.tasks.values_of(name).mean()) for name in ENUMERATED_METRICS} == pytest.approx(
        {name: metric.value for name, metric in expected.metrics.items()}
    )


def test_a_view_that_occurs_twice_or_is_not_declared_is_refused(tmp_path: Path) -> None:
    view = view_result([view_answer(0.5, TRUTH)])
    file = save(tmp_path, [view, view], [0, 1, 1])
    with pytest.raises(DataError, match="task t, test 0: sample 1 occurs twice"):
        score(file, 4)
    with pytest.raises(DataError, match="answers to task t, test 0, which the dataset lacks"):
        group_views(read_views(file), {"u": 1}, None, "file")
    with pytest.raises(DataError, match="answers of m, which the run lacks"):
        group_views(read_views(file), {"t": 1}, ["other"], "file")
    run = write_view_run(tmp_path, "a", SPEC, {"good": 0.9}, n=3)
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text.replace('"sample_index":2', '"sample_index":3'))
    with pytest.raises(DataError, match="answer 4 where 3 were requested"):
        score_run(run)


def test_drawn_and_enumerated_outputs_have_no_average(tmp_path: Path) -> None:
    enumerated = score(save(tmp_path, [view_result([view_answer(0.5, TRUTH)])]), 1)
    with pytest.raises(ValueError, match="no common average"):
        average_outputs({"a": [enumerated], "b": [replace(enumerated, enumerated=None)]})
    assert average_outputs({"a": [replace(enumerated, enumerated=None)]}).metrics == METRICS
