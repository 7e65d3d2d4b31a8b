"""Sweeps over any key: the grid, listed cells, names that stay, seeds that are added, and what is refused."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.workflows.sweep.command import sweep
from harness.cli.workflows.sweep.sweep_cells import LONGEST_NAME, axis_combinations, cell_name
from harness.cli.workflows.sweep.sweep_evaluation import record_evaluation
from harness.cli.workflows.sweep.sweep_file import load_sweep
from harness.core.errors import ConfigError, SpecError
from serve.registry.adapter_version import NAME
from tests.cli.sweep.test_sweep_file import EXAMPLES, write

RECIPE = {"model": "tiny", "max_steps": 4, "datasets": "toy/cross"}
AXES = {"lora.rank": [8, 32], "learning_rate": ["1e-4", 3e-4], "original_weight": [1, 0.5]}
ALONE: dict[str, Any] = {"original": None, "added": None, "original_weight": None, "recipe": RECIPE}


def recipes(path: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """Return the recipe that is written for each adapter, without its output folder."""
    trainings = load_sweep(path, overrides).trainings()
    return {t.name: {k: v for k, v in t.data.items() if k != "output_dir"} for t in trainings}


def test_axes_are_every_combination_with_every_seed(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path / "s.yaml", axes=AXES, original_weight=None, seeds=[3, 5]))
    trainings = list(sweep.trainings())
    expected = list(itertools.product([8, 32], [1e-4, 3e-4], [1, 0.5], [3, 5]))
    assert len({t.name for t in trainings}) == len(trainings) == len(expected)
    for training, (rank, rate, weight, seed) in zip(trainings, expected, strict=True):
        recipe = training.recipe
        assert recipe.lora is not None
        shares = {part.spec: part.weight for part in recipe.datasets}
        assert (recipe.lora.rank, recipe.learning_rate, shares["toy/cross"], recipe.seed) == (rank, rate, weight, seed)
        assert recipe.output_dir == Path("sweeps/x/trained") / training.name
    assert trainings[0].name == "w100-rank8-learning_rate0.0001-s3"
    record = sweep.record()
    assert record.header == "lora.rank, learning_rate, original datasets weight"
    assert [row.label for row in record.rows][:3] == ["8, 0.0001, 100 %", "8, 0.0001, 50 %", "8, 0.0003, 100 %"]
    assert [name for row in record.rows for name in row.models] == [t.name for t in trainings]


def test_mixtures_are_crossed_with_axes(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", axes={"lora.rank": [8, 32]}, original_weight=[1, 0])
    assert list(recipes(path)) == ["w100-rank8", "w100-rank32", "w0-rank8", "w0-rank32"]
    record = load_sweep(path).record()
    assert [row.label for row in record.rows] == ["100 %, 8", "100 %, 32", "0 %, 8", "0 %, 32"]
    assert record.header == "original datasets weight, lora.rank"


def test_listed_cells_keep_the_recipe_where_they_set_nothing(tmp_path: Path) -> None:
    cells = [{"name": "as-it-is"}, {"lora.rank": 8}, {"name": "wide", "lora.rank": 64, "lora.alpha": 128}]
    path = write(tmp_path / "s.yaml", **ALONE, cells=cells)
    by_name = recipes(path)
    assert list(by_name) == ["as-it-is", "rank8", "wide"]
    assert by_name["as-it-is"] == {**RECIPE, "seed": 0}
    assert by_name["wide"] == {**RECIPE, "seed": 0, "lora": {"rank": 64, "alpha": 128}}
    record = load_sweep(path).record()
    assert (record.header, [row.label for row in record.rows]) == ("settings", ["as-it-is", "lora.rank 8", "wide"])


def test_a_weight_of_the_recipes_own_datasets_can_vary(tmp_path: Path) -> None:
    own = {**RECIPE, "datasets": [{"spec": "toy/cross", "weight": 1}, {"spec": "toy/copy", "weight": 1}]}
    path = write(tmp_path / "s.yaml", **{**ALONE, "recipe": own}, axes={"datasets.1.weight": [0.5, 2]})
    sweep = load_sweep(path)
    assert [training.recipe.datasets[1].weight for training in sweep.trainings()] == [0.5, 2]
    assert sweep.recipe["datasets"] == own["datasets"]


def test_old_sweep_files_give_the_same_recipes(tmp_path: Path) -> None:
    """Without axes, names and recipes are what they were, byte for byte."""
    path = write(tmp_path / "s.yaml", seeds=[3])
    written = yaml.safe_dump(next(load_sweep(path).trainings()).data, sort_keys=False)
    assert written == (
        "model: tiny\nmax_steps: 4\noutput_dir: sweeps/x/trained/w100\n"
        "datasets:\n- spec: toy/cross\n  weight: 1.0\nseed: 3\n"
    )


VALUES = st.integers() | st.floats(allow_nan=False) | st.text(max_size=60) | st.none() | st.booleans()
KEYS = st.from_regex(r"[a-z][a-z_]{0,30}(\.[a-z][a-z_]{0,30})?", fullmatch=True)


@given(st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), max_size=3), st.sampled_from([None, "w50"]))
def test_every_name_can_be_served(axes: dict[str, list[Any]], mixture: str | None) -> None:
    for settings in axis_combinations(axes):
        if settings or mixture is not None:
            name = cell_name(mixture, settings)
            assert len(name) <= LONGEST_NAME
            assert NAME.fullmatch(f"{name}-s4294967295")


def test_more_values_leave_the_names_of_the_others(tmp_path: Path) -> None:
    before = recipes(write(tmp_path / "s.yaml", axes={"lora.rank": [8], "learning_rate": [1e-4]}))
    after = recipes(write(tmp_path / "s.yaml", axes={"lora.rank": [4, 8], "learning_rate": [0.1, 1e-4]}))
    assert before.items() <= after.items()


def pretend(out: Path, path: Path, *overrides: str) -> None:
    """Write the recipes that a sweep writes, and a manifest of each adapter."""
    for training in load_sweep(path, overrides).trainings():
        (out / "recipes").mkdir(parents=True, exist_ok=True)
        (out / "recipes" / f"{training.name}.yaml").write_text(yaml.safe_dump(training.data))
        folder = out / "trained" / training.name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text('{"steps": 8, "seconds": 96}')


@pytest.mark.parametrize("axes", [None, {"lora.rank": [8, 32]}])
def test_seeds_can_be_added_and_left_out(tmp_path: Path, axes: dict[str, Any] | None) -> None:
    """Adapters keep their names and recipes, so that none is trained again; the dry run counts them."""
    out = tmp_path / "out"
    path = write(tmp_path / "s.yaml", out=str(out), original_weight=[1], axes=axes, seeds=[0])
    first = recipes(path)
    pretend(out, path)
    more = recipes(path, "seeds=[0,1,2]")
    assert first.items() <= more.items()
    assert sorted(more) == sorted([*first, *(f"{name}-s{seed}" for name in first for seed in (1, 2))])
    printed = CliRunner().invoke(sweep, [str(path), "--set", "seeds=[0,1,2]", "--dry-run"]).output
    assert f"{len(more)} to train, {len(first)} of them trained" in printed
    assert printed.count("; trained\n") == len(first)
    shutil.rmtree(out)
    pretend(out, path, "seeds=[0,1,2]")
    assert recipes(path, "seeds=[2]") == {f"{name}-s2": {**recipe, "seed": 2} for name, recipe in first.items()}


def test_a_dataset_that_does_not_exist_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), evaluation={"dataset": "toy/crosss", "n": 2})
    for more in ((), ("--dry-run",), ("--dry-run", "--row", "0")):
        done = CliRunner().invoke(sweep, [str(path), *more])
        assert isinstance(done.exception, SpecError), done.output
    assert not (tmp_path / "out").exists()


def test_one_task_for_several_seeds_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """The intervals of recipes need a variance over tasks."""
    evaluation = {"dataset": "toy/cross#n=4", "n": 2, "limit": 1}
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), evaluation=evaluation, seeds=[0, 1])
    done = CliRunner().invoke(sweep, [str(path)])
    assert isinstance(done.exception, ConfigError), done.output
    assert str(done.exception).startswith("evaluation: 1 task; intervals over training seeds need at least 2")
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(sweep, [str(path), "--dry-run", "--set", "seeds=[0]"]).exit_code == 0


def test_an_evaluation_may_change_until_something_is_benched(tmp_path: Path) -> None:
    plan = load_sweep(write(tmp_path / "s.yaml", out=str(tmp_path / "out")))
    other = load_sweep(tmp_path / "s.yaml", ["evaluation.n=3"])
    for each in (plan, other, plan):
        record_evaluation(each)
    (tmp_path / "out" / "bench").mkdir()
    record_evaluation(plan)
    with pytest.raises(ConfigError, match="holds a sweep with another evaluation; changed: n"):
        record_evaluation(other)


def test_a_folder_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used: File name too long"):
        load_sweep(write(tmp_path / "s.yaml", out=str(tmp_path / ("x" * 300)), seeds=[0]))


def test_the_time_of_a_sweep_is_judged_by_steps(tmp_path: Path) -> None:
    """96 s for 8 steps are 12 s a step, whatever steps the other rows take; a damaged manifest says nothing."""
    out = tmp_path / "out"
    cells = [{"name": "short"}, {"name": "long", "max_steps": 50}, {"name": "longer", "max_steps": 60}]
    path = write(tmp_path / "s.yaml", **ALONE, cells=cells, out=str(out), seeds=[0])

    def time(*options: str) -> str:
        printed = CliRunner().invoke(sweep, [str(path), *options, "--dry-run"])
        assert printed.exit_code == 0, printed.output
        return printed.output.splitlines()[-1]

    assert time() == "time to train: shown here when one adapter is trained; --row 0 trains the first alone"
    pretend(out, path)
    manifests = sorted((out / "trained").glob("*/manifest.json"))
    assert len(manifests) == 3
    for manifest in manifests[1:]:
        manifest.unlink()
    steps = {name: recipe["max_steps"] for name, recipe in recipes(path).items()}
    missing = sum(steps.values()) - steps[manifests[0].parent.name]
    assert f"about {missing * 12 // 60}:{missing * 12 % 60:02} one after the other, at 12 s a step (mean of 1" in time()
    all_again = sum(steps.values()) * 12
    assert f"about {all_again // 60}:{all_again % 60:02} one after" in time("--set", "recipe.resume=false")
    for text in ('{"steps": 8, "seconds": null}', '{"steps": 0, "seconds": 1}', "[]", "{", '{"steps": 8}'):
        manifests[0].write_text(text)
        assert "shown here" in time()


def test_another_single_seed_does_not_replace_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), original_weight=[1])
    pretend(tmp_path / "out", path)
    assert list(recipes(path, "seeds=[4]")) == ["w100-s4"]
    assert list(recipes(path)) == ["w100"]


def test_a_row_named_like_the_seed_of_another_is_no_adapter_of_it(tmp_path: Path) -> None:
    rows = [{"name": name, "datasets": "toy/copy"} for name in ("a", "a-s1")]
    changes = {"mixtures": rows, "original": None, "added": None, "original_weight": None}
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), **changes, seeds=[1])
    (tmp_path / "out" / "recipes").mkdir(parents=True)
    (tmp_path / "out" / "recipes" / "a-s1.yaml").write_text("seed: 1\n")
    assert list(recipes(path)) == ["a", "a-s1"]


def test_a_damaged_recipe_is_an_error_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), original_weight=[1])
    pretend(tmp_path / "out", path)
    (tmp_path / "out" / "recipes" / "w100.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match=r"w100\.yaml: not valid YAML.*remove this file"):
        load_sweep(path)


ONE_AXIS = {"lora.rank": [8]}
NO_WEIGHTS = {"original_weight": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"axes": ONE_AXIS, "cells": [{"lora.rank": 4}]}, "give either axes (every combination) or cells"),
        ({"axes": {"seed": [1, 2]}}, "axes.seed: cannot vary within a sweep: give seeds"),
        ({"axes": {"datasets": ["toy/copy"]}}, "axes.datasets: cannot vary within a sweep: give mixtures"),
        ({"axes": {"datasets.0.weight": [1]}}, "axes.datasets.0.weight: cannot vary within a sweep: the mixture sets"),
        ({"axes": {"model": ["tiny"]}}, "axes.model: cannot vary within a sweep: one server"),
        ({"cells": [{"encoder": "E"}]}, "cells.0.encoder: cannot vary within a sweep"),
        ({"axes": {"tokens_a_pass": [1, 2]}}, "axes.tokens_a_pass: cannot vary within a sweep: it does not change"),
        (
            {"axes": {"ttt.steps": [1, 2]}},
            "axes.ttt.steps: cannot vary within a sweep: it does not change what is trained",
        ),
        ({"axes": {"learning_rate": ["1e-4", 0.0001]}}, "axes.learning_rate: 0.0001 occurs twice"),
        ({"axes": {"lora.rank": []}}, "axes.lora.rank"),
        ({"axes": {"lora.rnk": [8]}}, "unknown key 'lora.rnk'; did you mean 'lora.rank'"),
        ({"axes": ONE_AXIS, "recipe": RECIPE}, "recipe must not set datasets"),
        ({"axes": {"max_steps.x": [8]}}, "'max_steps' holds a single value, not keys"),
        ({"axes": {"lora.rank": ["wide"]}}, "recipe of w100-rank_wide: lora.rank"),
        ({"axes": {"original_weight": [1, 0]}}, "give either mixtures, or original_weight"),
        ({"axes": {"original_weight": [1, 2]}, **NO_WEIGHTS}, "original_weight: 2 is not a share from 0 to 1"),
        ({"axes": {"original_weight": [1, 0]}, **NO_WEIGHTS, "added": None}, "added: a weight below 1"),
        ({"cells": [{"original_weight": 1}, {"lora.rank": 8}], **NO_WEIGHTS}, "give it in every one"),
        ({"cells": [{}]}, "cells.0: sets no key"),
        ({"cells": [{"name": "../x"}]}, "cells.0.name: '../x' must be"),
        ({"cells": [{"lora.rank": 8}, {"lora.rank": "8"}]}, "two cells are named w0-rank8, w100-rank8, w25-rank8"),
        ({"cells": [{"name": "a"}, {"lora.rank": 16}]}, "w100-a and w100-rank16 have the same recipe"),
        ({"axes": ONE_AXIS, **NO_WEIGHTS}, "beside axes or cells, recipe.datasets does too"),
    ],
)
def test_wrong_axes_are_refused_with_file_and_key(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = write(tmp_path / "s.yaml", **changes)
    with pytest.raises(ConfigError, match=re.escape(expected)) as error:
        load_sweep(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_adapter_that_could_not_be_served_is_named_before_training(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), axes={"lora.rank": [8, 512]}, original_weight=[1])
    result = CliRunner().invoke(sweep, [str(path)])
    assert isinstance(result.exception, ConfigError)
    assert "w100-rank512: recipe: the adapter could not be served: lora.rank: 512" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_examples_have_several_seeds() -> None:
    axes, mixtures = (load_sweep(EXAMPLES / name) for name in ("axes-tiny.yaml", "iteration48-tiny.yaml"))
    assert (len(axes.record().rows), len(axes.seeds), len(list(axes.trainings()))) == (4, 3, 12)
    assert (len(mixtures.record().rows), len(mixtures.seeds), len(list(mixtures.trainings()))) == (5, 5, 25)
