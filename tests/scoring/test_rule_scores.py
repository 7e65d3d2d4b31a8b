"""Selection rules scored on the same predictions: shares compared with enumeration, and the tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.core.grid import Grid, Pair, Task
from harness.predictions.model_rescores import ModelRescores
from harness.predictions.prediction_groups import ModelPredictions, group_predictions
from harness.results.comparison_table import comparison_table
from harness.results.rule_table import rule_results, rules_text
from harness.results.score_sheet import score_saved_predictions
from harness.runs.logs.prediction_reader import Prediction
from harness.scoring.model_scores import score_model
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.rule_scores import (
    PLACES,
    compare_rules,
    loss_split,
    parse_rules,
    place_shares,
    score_rules,
    unusable_reason,
)
from harness.voting.ranking import RankedGrid, Vote
from harness.voting.selection_rules import RULES
from tests.support.runs.run_folders import MakeRun
from tests.support.runs.votes import vote_k

GRIDS = [Grid(1, 2, bytes(cells)) for cells in itertools.product(range(4), repeat=2)]
TRUTH = GRIDS[0]
N = 12
NOT_RESCORED_RULES = [rule for rule in RULES.values() if not rule.needs_rescores]


def tasks(count: int) -> list[Task]:
    pair = Pair(GRIDS[1], GRIDS[2])
    return [Task(f"t{i:02}", (pair,), (Pair(GRIDS[3], TRUTH),) * (1 + i % 2)) for i in range(count)]


def answer(task: str, test: int, sample: int, grid: Grid | None, logprob: float | None, view: str | None) -> Prediction:
    return Prediction("m", task, test, "grid" if grid else "unparsed", grid, logprob, 4, view, sample)


def gather(count: int, seed: int, logprobs: bool = True, views: bool = True) -> ModelPredictions:
    """Random answers: each task has its own chance of the exact grid, and likelier answers are likelier right."""
    rng = np.random.default_rng(seed)
    samples = []
    for task in tasks(count):
        chance = rng.random()
        for test, sample in itertools.product(range(len(task.test)), range(N)):
            right = rng.random() < chance
            grid = TRUTH if right else None if rng.random() < 0.1 else GRIDS[int(rng.integers(1, 16))]
            logprob = float(-rng.exponential(1 if right else 3)) if logprobs else None
            samples.append(
                answer(task.id, test, sample, grid, logprob, ["identity", "rot90"][sample % 2] if views else None)
            )
    return group_predictions(samples, {task.id: len(task.test) for task in tasks(count)}, ["m"], "test")[0]


@given(st.lists(st.integers(0, 5), max_size=12))
def test_place_shares_equal_an_enumeration_of_tie_orders(drawn: list[int]) -> None:
    votes = [Vote(GRIDS[i]) for i in drawn]
    groups = RULES["vote"].rank(votes)
    shares = place_shares(groups, TRUTH, 0 in drawn)
    assert shares.sum() == pytest.approx(1)
    if 0 not in drawn:
        assert shares[PLACES.index("not found")] == 1
        return
    row = next(group for group in groups if group.grid == TRUTH)
    ahead = sum(group.count > row.count for group in groups)
    tied = sum(group.count == row.count for group in groups)
    for k in (1, 2, 3, 4):
        assert shares[k - 1] == pytest.approx(1 / tied if ahead < k <= ahead + tied else 0)
        assert shares[:k].sum() == pytest.approx(vote_k(votes, TRUTH, k))


def test_later_ranks_are_grouped() -> None:
    for rank, place in ((4, "4"), (5, "5-8"), (8, "5-8"), (9, "9+"), (16, "9+")):
        order = [*GRIDS[1:rank], TRUTH, *GRIDS[rank:]]
        groups = [RankedGrid(grid, 1, None, i) for i, grid in enumerate(order)]
        assert place_shares(groups, TRUTH, True)[PLACES.index(place)] == 1
    assert place_shares([RankedGrid(GRIDS[1], 1, None, 0)], TRUTH, True)[PLACES.index("not ranked")] == 1


def test_solved_lost_and_not_found_add_up_for_every_rule() -> None:
    predictions = gather(40, 1)
    scores = score_model(predictions, tasks(40), N)
    scored = score_rules(predictions, scores, tasks(40), NOT_RESCORED_RULES)
    by_name = {row.rule.name: row for row in scored}
    np.testing.assert_array_equal(by_name["vote"].scores.tasks.values, scores.tasks.values)
    for row in scored:
        solved, lost, not_found = loss_split(row.scores)
        assert solved + lost + not_found == pytest.approx(1)
        assert not_found == pytest.approx(1 - scores.tasks.values_of("pass_n").mean())
        assert row.places.sum() == pytest.approx(1)
        assert row.places[:2].sum() == pytest.approx(solved)
        assert row.places[0] == pytest.approx(row.scores.tasks.values_of("vote_1").mean())
        assert row.places[-1] == pytest.approx(not_found)
        np.testing.assert_array_equal(row.scores.tasks.values_of("accuracy"), scores.tasks.values_of("accuracy"))
    # What the likelihoods know here, the order of sampling does not.
    assert loss_split(by_name["logprob"].scores)[0] > loss_split(by_name["first"].scores)[0]


def test_differences_are_to_the_vote_and_corrected_over_all_models_and_rules() -> None:
    scored = {}
    for seed, name in ((1, "one"), (2, "two")):
        predictions = gather(40, seed)
        scores = score_model(predictions, tasks(40), N)
        scored[name] = score_rules(predictions, scores, tasks(40), NOT_RESCORED_RULES)
    rows = compare_rules(scored, seed=0)
    assert len(rows) == 2 * 4 * 2
    assert {row.baseline for row in rows} == {"one: vote", "two: vote"}
    assert all(row.model.partition(":")[0] == row.baseline.partition(":")[0] for row in rows)
    smallest = min(rows, key=lambda row: row.comparison.p)
    assert smallest.comparison.p_holm == pytest.approx(min(1, 16 * smallest.comparison.p))
    table = rule_results(scored, seed=0)
    first = table["two"]["first"]
    assert first.difference == pytest.approx(first.vote_2 - table["two"]["vote"].vote_2)
    assert "95 % intervals, Holm-corrected over these 16 comparisons alone:" in rules_text(scored, seed=0)
    wide = rules_text(scored, seed=0, confidence=0.99)
    assert comparison_table(compare_rules(scored, 0, confidence=0.99)) in wide
    assert comparison_table(rows) not in wide
    assert "99 % intervals" in wide


def test_the_rule_table_of_saved_predictions_has_the_confidence_that_is_asked_for(make_run: MakeRun) -> None:
    saved = open_predictions(make_run("r", "toy/cross/evaluation#n=40", {"m": 0.5}, n=8))
    text = score_saved_predictions(saved, rules="all", confidence=0.9).text
    assert "Differences to the vote in percentage points, 90 % intervals" in text


def test_rules_are_parsed_in_any_order_and_the_vote_comes_first() -> None:
    assert [rule.name for rule in parse_rules("first,logprob,first")] == ["vote", "first", "logprob"]
    assert [rule.name for rule in parse_rules("vote")] == ["vote"]
    assert [rule.name for rule in parse_rules("all")] == list(RULES)
    with pytest.raises(ConfigError, match="no selection rule 'best'"):
        parse_rules("vote,best")


def test_rules_that_need_views_or_logprobs_are_refused_without_them() -> None:
    predictions = gather(4, 3, logprobs=False, views=False)
    reasons = {rule.name: unusable_reason(rule, predictions) for rule in NOT_RESCORED_RULES}
    assert [name for name, reason in reasons.items() if reason is None] == ["vote", "first"]
    scores = score_model(predictions, tasks(4), N)
    with pytest.raises(ConfigError, match=r"rule marc cannot be applied: .*which view"):
        score_rules(predictions, scores, tasks(4), [RULES["marc"]])
    assert unusable_reason(RULES["marc"], gather(4, 3)) is None


def test_the_vote_alone_has_no_differences() -> None:
    predictions = gather(6, 4)
    scores = score_model(predictions, tasks(6), N)
    scored = {"m": score_rules(predictions, scores, tasks(6), parse_rules("vote"))}
    assert compare_rules(scored, 0) == []
    assert "Differences" not in rules_text(scored, 0)


def test_logprob_adds_probabilities_of_equal_answers() -> None:
    task = tasks(1)
    given_answers = [
        answer("t00", 0, 0, GRIDS[1], math.log(0.5), "identity"),
        answer("t00", 0, 1, TRUTH, math.log(0.3), "identity"),
        answer("t00", 0, 2, TRUTH, math.log(0.3), "rot90"),
        answer("t00", 0, 3, GRIDS[1], math.log(0.05), "rot90"),
    ]
    predictions = group_predictions(given_answers, {"t00": 1}, ["m"], "test")[0]
    scores = score_model(predictions, task, 4)
    scored = {row.rule.name: row for row in score_rules(predictions, scores, task, parse_rules("logprob,first"))}
    assert scored["logprob"].scores.outputs["t00"][0].vote_1 == 1
    assert scored["first"].scores.outputs["t00"][0].vote_1 == 0


def rescored(predictions: ModelPredictions, seed: int) -> dict[tuple[str, int], dict[Grid, list[float]]]:
    """Make up log-probabilities of every candidate under four views."""
    rng = np.random.default_rng(seed)
    return {
        (task, index): {grid: list(-rng.exponential(2, 4)) for grid in output.votes_by_grid}
        for task, outputs in predictions.outputs.items()
        for index, output in enumerate(outputs)
    }


def test_rules_on_rescores_choose_by_the_sum_over_views() -> None:
    predictions = gather(30, 7)
    scores = score_model(predictions, tasks(30), N)
    rescores = rescored(predictions, 8)
    rules = [RULES["poe"], RULES["kgmon"]]
    poe, kgmon = score_rules(predictions, scores, tasks(30), rules, ModelRescores(rescores))
    for task, outputs in predictions.outputs.items():
        for index, output in enumerate(outputs):
            sums = {grid: sum(values) for grid, values in rescores[task, index].items()}
            views = {grid: len({vote.view_index for vote in votes}) for grid, votes in output.votes_by_grid.items()}
            best = max(sums, key=lambda grid: sums[grid])
            assert poe.scores.outputs[task][index].vote_1 == (best == TRUTH)
            best = max(sums, key=lambda grid: views[grid] + sums[grid] / 4)
            assert kgmon.scores.outputs[task][index].vote_1 == (best == TRUTH)


def test_rules_that_need_rescores_refuse_what_was_not_rescored() -> None:
    predictions = gather(4, 7)
    scores = score_model(predictions, tasks(4), N)
    rescores = rescored(predictions, 8)
    assert unusable_reason(RULES["poe"], predictions, ModelRescores(rescores)) is None
    assert "were not rescored (bench rescore" in (unusable_reason(RULES["poe"], predictions) or "")
    del rescores["t01", 1][next(iter(rescores["t01", 1]))]
    total = sum(len(grids) for grids in rescores.values()) + 1
    with pytest.raises(ConfigError, match=f"rule kgmon .*: 1 of {total} candidates .* first in task t01, test 1"):
        score_rules(predictions, scores, tasks(4), [RULES["kgmon"]], ModelRescores(rescores))
    score_rules(predictions, scores, tasks(4), [RULES["kgmon"]], ModelRescores(rescores, limited=True))
