"""Plans from pilot runs: variances against the statistics directly, prices, refusals, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.errors import ConfigError
from harness.recipes.pilot_runs import Pilot, read_pilot
from harness.recipes.recipe_plan import make_plan, power_curves
from harness.recipes.recipe_runs import RecipeRuns, read_halves, trained_models
from harness.results.plan_text import plan_text
from harness.runs.schemas.results_schema import EarlyStoppingResult
from harness.scoring.run_selector import select_models
from harness.stats.crossed_variance import difference_variance
from harness.stats.planning import Prices, cheapest_plan, purchases
from harness.stats.power import POWER, Plan, components_of, components_of_adapters, power, resolvable_by_plan
from harness.stats.recipes import sampling_variance
from reports.plots.power import plan_picture
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=40"
SKILL = {"a-s0": 0.55, "a-s1": 0.65, "a-s2": 0.6, "b-s0": 0.4, "b-s1": 0.5}


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run("pilot", SPEC, SKILL, n=8)


def recipes_of(run: Path, *names: str) -> list[RecipeRuns]:
    """Return recipes, each from models that begin with a name, or from one model."""
    selected = select_models([str(run)])
    models = trained_models([str(run)], selected)
    return [RecipeRuns(name, tuple(m for m in models if m.name.startswith(name))) for name in names]


def scores(recipe: RecipeRuns, metric: str = "accuracy") -> np.ndarray:
    return np.stack([model.scores.tasks.values_of(metric) for model in recipe.models])


def pilot_of(run: Path, *names: str, metric: str = "accuracy", **assumed: Any) -> Pilot:
    recipes = recipes_of(run, *names)
    return read_pilot(metric, recipes, read_halves(recipes), **assumed)


def test_components_are_those_of_the_statistics(run: Path) -> None:
    a, b = recipes = recipes_of(run, "a", "b")
    halves = read_halves(recipes)
    each = [halves[(m.run, m.config.name)].values_of("accuracy", m.scores.tasks.ids) for r in (b, a) for m in r.models]
    sampling = sampling_variance([first for first, _ in each], [second for _, second in each])
    pilot = read_pilot("accuracy", recipes, halves)
    expected = components_of(difference_variance(scores(b), scores(a)), 8, sampling)
    assert astuple(pilot.components) == pytest.approx(astuple(expected))
    assert (pilot.plan, pilot.outputs_per_task) == (Plan(40, 2, 8), 1.0)
    votes = pilot_of(run, "a", "b", metric="vote_2").components
    assert votes == components_of(difference_variance(scores(b, "vote_2"), scores(a, "vote_2")), 8)


def test_one_run_of_a_recipe_borrows_the_variance_of_the_others(run: Path) -> None:
    pilot = pilot_of(run, "a", "b-s0")
    a, b = (scores(recipe) for recipe in recipes_of(run, "a", "b-s0"))
    variance = difference_variance(a, a)
    residual = float(variance.interaction) * 40 / (2 / 3)
    assert pilot.components.training == pytest.approx(float(variance.training) / (2 / 3))
    assert pilot.components.residual(8) == pytest.approx(residual)
    over_tasks = (b[0] - a.mean(axis=0)).var(ddof=1)
    assert pilot.components.recipe_task == pytest.approx(max(over_tasks - residual * (1 + 1 / 3), 0))
    assert "b-s0 are assumed to vary like those of the other recipes" in pilot.assumptions[0]


def test_assumptions_replace_what_the_runs_do_not_show(run: Path) -> None:
    adapters = pilot_of(run, "a-s0", "b-s0", train_sd=0.015)
    a, b = (scores(recipe)[0] for recipe in recipes_of(run, "a-s0", "b-s0"))
    sampled = adapters.components.sampling
    assert sampled is not None
    expected = components_of_adapters(float(np.std(b - a, ddof=1)), 0.015, 8, sampled)
    assert adapters.components.training == pytest.approx(0.015**2)
    assert adapters.components.recipe_task == pytest.approx(expected.recipe_task)
    alone = pilot_of(run, "a", task_sd=0.1)
    assert alone.components.recipe_task == pytest.approx(0.01)
    assert alone.components.training == pytest.approx(pilot_of(run, "a", "b-s0").components.training)
    assert "--task-sd" in alone.assumptions[0]


def test_several_recipes_are_averaged_over_comparisons_with_the_first(run: Path) -> None:
    both = [pilot_of(run, "a", name).components for name in ("b-s0", "b-s1")]
    together = pilot_of(run, "a", "b-s0", "b-s1").components
    assert together.recipe_task == pytest.approx(np.mean([c.recipe_task for c in both]))
    assert together.training == pytest.approx(both[0].training)


def test_two_recipes_with_one_run_each_borrow_from_a_third(run: Path) -> None:
    names = ("a-s0", "a-s1", "b")
    expected = pilot_of(run, "b", "a-s0").components
    for order in (names, names[::-1]):
        mixed = pilot_of(run, *order).components
        assert mixed.training == pytest.approx(expected.training)
        assert mixed.residual(8) == pytest.approx(expected.residual(8))


def test_the_plan_is_that_of_the_statistics(run: Path) -> None:
    pilot = pilot_of(run, "a", "b")
    plan = make_plan(pilot, 0.05, 3.0, 0.5, 40.0, 2_000)
    assert plan.resolvable == resolvable_by_plan(pilot.components, pilot.plan)
    for number, value in (("tasks", plan.tasks), ("runs", plan.runs), ("predictions", plan.predictions)):
        if value is not None:
            assert power(pilot.components, replace(pilot.plan, **{number: value}), 0.05) >= POWER
            if value > {"tasks": 10, "runs": 2, "predictions": 1}[number]:
                fewer = replace(pilot.plan, **{number: value - 1})
                assert power(pilot.components, fewer, 0.05) < POWER + 1e-3
    prices = Prices(3.0, 0.5 / 1000)
    assert plan.spending is not None
    assert plan.spending.cheapest == cheapest_plan(pilot.components, 0.05, prices, 2_000)
    assert list(plan.spending.purchases) == purchases(pilot.components, pilot.plan, prices, 40.0, 2_000)
    default = make_plan(pilot, 0.05, 3.0, 0.5).spending
    assert default is not None
    assert default.budget == pytest.approx(2 * 2 * (3.0 + 40 * 8 * 0.5 / 1000))


def test_curves_pass_through_the_pilot(run: Path) -> None:
    plan = make_plan(pilot_of(run, "a", "b"), 0.05)
    curves = power_curves(plan)
    assert {curve.varied for curve in curves} == {"tasks", "training runs", "predictions"}
    numbers = {"tasks": 40, "training runs": 2, "predictions": 8}
    for curve in curves:
        if curve.varied != "tasks" or curve.label == "2 training runs":
            at = curve.numbers.index(numbers[curve.varied])
            assert curve.resolvable[at] == pytest.approx(plan.resolvable)
    votes = make_plan(pilot_of(run, "a", "b", metric="vote_2"), 0.05)
    assert "predictions" not in {curve.varied for curve in power_curves(votes)}
    assert plan_picture(plan, "png").startswith(b"\x89PNG")
    assert plan_picture(plan, "svg") == plan_picture(plan, "svg")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a-s0", "b-s0"), "each recipe has one training run, a-s0 (a-s0), b-s0 (b-s0): nothing is known"),
        (("a-s0",), "one training run of one recipe"),
        (("a",), "--task-sd"),
    ],
)
def test_too_little_is_refused_in_words(run: Path, names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        pilot_of(run, *names)


def test_a_pilot_in_which_nothing_varies_is_refused(make_run: MakeRun) -> None:
    same = make_run("same", SPEC, dict.fromkeys(SKILL, 1.0), fails=0.0)
    with pytest.raises(ConfigError, match="accuracy: nothing varies between the pilot runs"):
        pilot_of(same, "a", "b")


def test_few_tasks_and_different_predictions_are_refused(make_run: MakeRun) -> None:
    few = make_run("few", "toy/cross/evaluation#n=9", SKILL)
    with pytest.raises(ConfigError, match="the pilot has 9 tasks; variances over tasks need at least 10"):
        pilot_of(few, "a", "b")
    runs = [str(make_run(name, SPEC, {name: 0.5}, n=n)) for name, n in (("a", 4), ("b", 4), ("c", 6))]
    models = trained_models(runs, select_models(runs))
    recipes = [RecipeRuns("x", tuple(models[:2])), RecipeRuns("y", tuple(models[2:]))]
    with pytest.raises(ConfigError, match=r"different numbers of predictions per test output.*6"):
        read_pilot("accuracy", recipes, {})


def test_votes_of_runs_that_stopped_early_are_not_planned_with(run: Path) -> None:
    """Their halves are of the first round, and their votes of all rounds."""
    recipes = recipes_of(run, "a", "b")
    halves = read_halves(recipes)
    stopping = EarlyStoppingResult(rule="r", outputs=3, not_drawn=9, share=0.1, first_round=8, not_available={})
    first = recipes[0].models[0]
    stopped = replace(first, scores=replace(first.scores, stopping=stopping))
    recipes[0] = RecipeRuns("a", (stopped, *recipes[0].models[1:]))
    with pytest.raises(ConfigError, match=r"^a-s0 stopped early, .* vote_2 varies with the number of .* --metric acc"):
        read_pilot("vote_2", recipes, halves)
    assert read_pilot("accuracy", recipes, halves).plan.predictions == 8


def named(run: Path, *recipes: str) -> list[str]:
    """Return ``--recipe`` options from ``a=a-s0,a-s1``."""
    words = []
    for recipe in recipes:
        name, _, models = recipe.partition("=")
        words += ["--recipe", f"{name}={','.join(f'{run}@{model}' for model in models.split(','))}"]
    return words


AB = ("a=a-s0,a-s1,a-s2", "b=b-s0,b-s1")
PRICES = ["--gpu-hours-per-training", "3", "--gpu-hours-per-1000-predictions", "0.1"]


def test_the_command_prints_draws_and_writes_json(run: Path, tmp_path: Path) -> None:
    picture, file = tmp_path / "plan.png", tmp_path / "plan.json"
    words = ["plan", *named(run, *AB), "--difference", "5", *PRICES, "--budget", "50"]
    result = CliRunner().invoke(cli, [*words, "-o", str(picture), "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    written = json.loads(file.read_text())
    assert picture.read_bytes().startswith(b"\x89PNG")
    plan = make_plan(pilot_of(run, "a", "b"), 0.05, 3.0, 0.1, 50.0)
    assert written["needed"] == {"tasks": plan.tasks, "runs": plan.runs, "predictions": plan.predictions}
    assert written["recipes"] == {"a": ["a-s0", "a-s1", "a-s2"], "b": ["b-s0", "b-s1"]}
    assert f"{100 * plan.resolvable:.1f} points is resolved at 80 % power" in result.output
    assert "Cheapest plan that resolves 5 points" in result.output
    text = plan_text(replace(plan, resolvable=1.2))
    assert "no difference is resolved at 80 % power: it would have to exceed 100" in text
    assert "more tasks may resolve slightly less (few degrees of freedom)" in plan_text(plan)
    three = replace(plan.pilot, plan=replace(plan.pilot.plan, runs=3))
    assert "few degrees of freedom" not in plan_text(replace(plan, pilot=three))
    assert re.search(r"best spent on (tasks|training runs|predictions)", result.output)
    votes = CliRunner().invoke(cli, ["plan", *named(run, *AB), "--metric", "vote_2", "--json", "-"])
    assert json.loads(votes.stdout)["needed"]["predictions"] is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "name the pilot runs, or recipes with --recipe"),
        (["RUN", "--metric", "votes"], "there is no metric 'votes'"),
        (["RUN", "--difference", "0"], "--difference"),
        (["RUN", "--train-sd", "nan"], "nan is not a finite number"),
        (["RUN", *PRICES[:2]], "give both --gpu-hours-per-training and --gpu-hours-per-1000-predictions"),
        (["RUN", "--gpu-hours-per-training", "1e308", *PRICES[2:]], "1e+308 is not in the range"),
        (["RUN", "--budget", "3"], "--budget needs --gpu-hours-per-training"),
        (["RUN", "-o", "plan.jpg"], "name a .png or .svg file"),
        (["RUN", "--recipe", "a=RUN@a-s0"], "name the pilot runs, or recipes"),
    ],
)
def test_wrong_options_are_refused(run: Path, words: list[str], expected: str) -> None:
    result = CliRunner().invoke(cli, ["plan", *(word.replace("RUN", str(run)) for word in words)])
    assert result.exit_code == 2
    assert expected in result.output


def test_models_of_unknown_recipes_need_a_recipe_or_an_assumption(run: Path) -> None:
    result = CliRunner().invoke(cli, ["plan", str(run)])
    assert isinstance(result.exception, ConfigError)
    assert "the recipes of a-s0, a-s1" in str(result.exception)
    names = [f"{run}@a-s0", f"{run}@b-s0"]
    assumed = CliRunner().invoke(cli, ["plan", *names, "--train-sd", "1.5"], catch_exceptions=False)
    assert "Training runs of a recipe are assumed to vary by 1.5 points (--train-sd)" in assumed.output
