"""Recipes with several training runs are compared as the command compares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.api import compare, compare_recipes
from harness.core.errors import ConfigError, RunError
from harness.results.recipe_table import ADAPTERS_ONLY
from harness.runs.folder import RunFolder
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=30"
SKILLS = {"a0": 0.8, "a1": 0.7, "b0": 0.3, "b1": 0.4, "b2": 0.35}
Recipes = Callable[[Path], Mapping[str, Sequence[str]]]


def two_recipes(run: Path) -> dict[str, list[str]]:
    """Return two recipes of two and three training runs."""
    return {name: [f"{run}@{model}" for model in SKILLS if model.startswith(name)] for name in "ab"}


def test_comparisons_are_those_of_the_command(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("run", SPEC, SKILLS, 4)
    recipes = two_recipes(run)
    words = [word for name, runs in recipes.items() for word in ("--recipe", f"{name}={','.join(runs)}")]
    expected = json.loads(run_bench(capsys, "compare", *words, "--json", "-")[1])
    compared = compare_recipes(recipes)
    rows = compared.frame.to_dict("records")
    assert len(rows) == len(expected) > 1
    for row, wanted in zip(rows, expected, strict=True):
        of_comparison = ("low", "high", "p", "p_holm", "verdict", "tasks", "won", "lost", "standard_error")
        assert {name: row[name] for name in of_comparison} == {
            name: wanted["comparison"][name] for name in of_comparison
        }
        assert (row["metric"], row["recipe"], row["baseline"]) == (wanted["metric"], "b", "a")
        assert (row["recipe_runs"], row["baseline_runs"]) == (3, 2)
        assert row["difference"] == wanted["comparison"]["delta"]
        assert row["share_training"] == wanted["comparison"]["shares"]["training"]
        assert list(row["lost_ids"]) == wanted["lost"]
    text = run_bench(capsys, "compare", *words)[1]
    assert repr(compared) in text
    assert "<table>" in compared._repr_html_()
    only = compare_recipes(recipes, metrics=["vote_2"]).frame
    assert only["metric"].tolist() == ["vote_2"]
    assert ADAPTERS_ONLY in repr(compare(run, metrics=["vote_2"]))


@pytest.mark.parametrize(
    ("recipes", "error", "message"),
    [
        (
            lambda run: {"a": [f"{run}@a0", f"{run}@a1"]},
            ConfigError,
            "one recipe alone has nothing",
        ),
        (lambda run: two_recipes(run) | {"a": [f"{run}@a0"]}, ConfigError, "recipe a has one training run"),
        (
            lambda run: two_recipes(run) | {"a": [f"{run}@a0"] * 2},
            ConfigError,
            "is named twice",
        ),
        (lambda run: two_recipes(run) | {"a": [str(run)] * 2}, ConfigError, "holds several models; name one"),
        (lambda run: two_recipes(run) | {"a": [f"{run}@no"]}, RunError, "has no model 'no'; it has: a0, a1"),
    ],
)
def test_what_is_no_recipe_is_refused(
    make_run: MakeRun, recipes: Recipes, error: type[Exception], message: str
) -> None:
    run = make_run("run", SPEC, SKILLS, 2)
    with pytest.raises(error, match=message):
        compare_recipes(recipes(run))


def test_equal_weights_unknown_metrics_and_unequal_pairs_are_refused(make_run: MakeRun) -> None:
    run = make_run("run", SPEC, SKILLS, 2)
    recipes = two_recipes(run)
    with pytest.raises(ConfigError, match="there is no metric 'f1'"):
        compare_recipes(recipes, metrics=["f1"])
    with pytest.raises(ConfigError, match="the recipes have different numbers of training runs"):
        compare_recipes(recipes, paired_seeds=True)
    models = RunFolder(run).manifest().config.models
    edit_manifest(run, models=[model.model_copy(update={"hash": "h" * 16}) for model in models])
    with pytest.raises(ConfigError, match="have the same weights: they are one training run of a"):
        compare_recipes(recipes)
