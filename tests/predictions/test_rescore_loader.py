"""Rescored runs: poe and kgmon against brute force, and which scorer counts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.predictions.rescore_source import open_rescore_source, ranked_grids
from harness.results.score_sheet import score_saved_predictions
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.rule_scores import unusable_reason
from harness.voting.selection_rules import RULES
from tests.support.runs.rescores import made_up_logprob, write_rescores
from tests.support.runs.run_folders import write_run
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=12"
VIEWS = 3


@pytest.fixture(params=[write_run, write_view_run], ids=["drawn", "enumerated"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder: Path = request.param(tmp_path, "run", SPEC, {"good": 0.6, "bad": 0.2}, n=6)
    return folder


def reasons(saved: SavedPredictions) -> list[str | None]:
    """Return why poe cannot be used for each model."""
    return [unusable_reason(RULES["poe"], model, saved.rescores[model.model]) for model in saved.predictions]


def brute_force(run: Path, model: str, rule: str, scorer: str) -> dict[str, list[Grid]]:
    """Return each task's candidates in the order of a rule, computed by hand."""
    saved = open_predictions(run)
    predictions = next(one for one in saved.predictions if one.model == model)
    ranked = {}
    for task, (output,) in predictions.outputs.items():
        keys = {}
        for grid, votes in output.votes_by_grid.items():
            logs = [made_up_logprob(scorer, task, 0, grid, view) for view in range(VIEWS)]
            views = len({vote.view_index for vote in votes})
            keys[grid] = math.prod(map(math.exp, logs)) if rule == "poe" else views + sum(logs) / VIEWS
        ranked[task] = sorted(keys, key=lambda grid: -keys[grid])
    return ranked


@pytest.mark.parametrize("rule", ["poe", "kgmon"])
@pytest.mark.parametrize("scorer", [None, "judge"])
def test_rules_rank_as_brute_force_does(run: Path, rule: str, scorer: str | None) -> None:
    write_rescores(run, scorer, VIEWS)
    saved = open_predictions(run)
    for model in saved.predictions:
        expected = brute_force(run, model.model, rule, scorer or model.model)
        rescores = saved.rescores[model.model]
        for task, (output,) in model.outputs.items():
            ranking = rescores.rank(RULES[rule], task, 0, output.votes())
            assert [entry.grid for entry in ranking] == expected[task]
            assert len({entry.tie for entry in ranking}) == len(ranking)


def test_all_rules_include_poe_and_kgmon_once_rescored(run: Path) -> None:
    before = score_saved_predictions(open_predictions(run), "all")
    assert any("rule poe is left out" in line and "bench rescore RUN" in line for line in before.warnings)
    write_rescores(run, None, VIEWS)
    after = score_saved_predictions(open_predictions(run), "all")
    assert not [line for line in after.warnings if "left out" in line]
    assert "kgmon" in after.text
    assert "poe" in after.text


def test_own_rescores_count_before_those_of_others(run: Path) -> None:
    write_rescores(run, "judge", VIEWS)
    alone = open_predictions(run).rescores["good"]
    write_rescores(run, "good", VIEWS)
    own = open_predictions(run)
    assert own.rescores["good"] != alone
    assert open_predictions(run, scorer="judge").rescores["good"] == alone
    assert reasons(own) == [None, "judge and good rescored the candidates; choose one with --scorer NAME"]
    assert reasons(open_predictions(run, scorer="judge")) == [None, None]
    with pytest.raises(ConfigError, match=r"--scorer other: rescored nothing in .*; there are: judge, good"):
        open_predictions(run, scorer="other")


def test_an_interrupted_session_is_refused_by_the_rules(run: Path) -> None:
    write_rescores(run, None, VIEWS, keep=lambda number: number != 40)
    first, second = reasons(open_predictions(run))
    assert second is None
    assert first is not None
    assert "1 of " in first
    assert "candidates were not rescored, the first in task cross-" in first


def test_top_ranks_others_last_and_tied(run: Path) -> None:
    write_rescores(run, None, VIEWS, top=1)
    saved = open_predictions(run)
    assert reasons(saved) == [None, None]
    several = 0
    for model in saved.predictions:
        for task, (output,) in model.outputs.items():
            ranking = saved.rescores[model.model].rank(RULES["poe"], task, 0, output.votes())
            grids = ranked_grids(output)
            assert [entry.grid for entry in ranking][:1] == list(grids[:1])
            assert {entry.tie for entry in ranking[1:]} <= {1}
            assert {entry.grid for entry in ranking} == set(grids)
            several += len(grids) > 2
    assert several
    for model in saved.predictions:
        counts = [len(output.votes_by_grid) for (output,) in model.outputs.values()]
        rest = f"the other {sum(max(0, count - 1) for count in counts)} of {sum(counts)} candidates of {model.model}"
        assert sum(f"(--top 1): poe and kgmon rank {rest} last" in warning for warning in saved.warnings) == 1
    write_rescores(run, None, VIEWS, top=max(map(len, open_rescore_source(run).candidates["good"].values())) + 99)
    assert open_predictions(run).warnings == ()


def test_candidates_that_do_not_fit_rank_last_and_are_counted(run: Path) -> None:
    outputs = open_rescore_source(run).candidates["good"]
    (task, _), grids = next((output, grids) for output, grids in outputs.items() if len(grids) > 1)

    def value(scorer: str, task_id: str, test_index: int, grid: Grid, view: int) -> float | None:
        too_long = (task_id, grid, view) == (task, grids[0], 1)
        return None if too_long else made_up_logprob(scorer, task_id, test_index, grid, view)

    write_rescores(run, "judge", VIEWS, value=value)
    saved = open_predictions(run)
    assert reasons(saved) == [None, None]
    line = "1 candidates of good have no log-probability by judge under some view"
    assert sum(line in warning for warning in saved.warnings) == 1
    votes = saved.predictions[0].outputs[task][0].votes()
    for rule in ("poe", "kgmon"):
        ranking = saved.rescores["good"].rank(RULES[rule], task, 0, votes)
        assert [entry.grid for entry in ranking].index(grids[0]) == len(grids) - 1


def test_rescores_of_other_predictions_do_not_count(run: Path) -> None:
    write_rescores(run, None, VIEWS)
    path = run / "predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[1:], lines[0]]) if b'"view"' not in lines[-1] else b"".join(lines) + b"{")
    saved = open_predictions(run)
    assert all(reason and "is of other predictions than there are now" in reason for reason in reasons(saved))
    assert score_saved_predictions(saved).text, "the vote needs no rescores"
