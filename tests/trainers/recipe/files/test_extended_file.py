"""Files that extend another one: how values are merged, and which file an error names."""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.workflows.sweep.sweep_file import load_sweep
from harness.core.errors import ConfigError
from tests.cli.sweep.test_sweep_file import BASIC
from tests.support.training.recipes import SMALL
from trainers.recipe.files.extended_file import EXTENDS, read_extended
from trainers.recipe.files.yaml_file import load_recipe

BASE: dict[str, Any] = {**SMALL, "seed": 3, "lora": {"rank": 4, "alpha": 8}, "validation": {"spec": "toy/copy"}}


def write(folder: Path, child: dict[str, Any], base: dict[str, Any] = BASE, name: str = "base.yaml") -> Path:
    """Write both files and return the path of the one that extends."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(base), encoding="utf-8")
    path = folder / "child.yaml"
    path.write_text(yaml.safe_dump({EXTENDS: name, **child}), encoding="utf-8")
    return path


def test_later_keys_win_mappings_merge_and_lists_replace(tmp_path: Path) -> None:
    child = {"seed": 5, "lora": {"rank": 2}, "datasets": [{"spec": "toy/copy"}], "validation": None}
    recipe = load_recipe(write(tmp_path, child), ["lora.alpha=3"])
    assert (recipe.seed, recipe.max_steps, recipe.validation) == (5, SMALL["max_steps"], None)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha) == (2, 3)
    assert [part.spec for part in recipe.datasets] == ["toy/copy"]


def test_one_dataset_as_a_mapping_replaces_as_a_list_does(tmp_path: Path) -> None:
    base = {**BASE, "datasets": {"spec": "toy/cross", "weight": 2}}
    assert load_recipe(write(tmp_path, {"datasets": {"spec": "toy/copy"}}, base)).datasets[0].weight is None


JSON = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda part: st.dictionaries(st.sampled_from("abc"), part, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return what is no filled mapping, by its keys."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {p: leaf for key, part in value.items() for p, leaf in leaves(part, (*path, key)).items()}


@given(base=MAPPINGS, child=MAPPINGS)
def test_every_value_is_the_child_s_or_the_base_s_where_the_child_says_nothing(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, Any], child: dict[str, Any]
) -> None:
    merged = leaves(read_extended(write(tmp_path_factory.mktemp("merge"), child, base)).merged())
    above, below = leaves(child), leaves(base)
    for path, value in above.items():
        if path:
            assert merged[path] == value
    for path, value in merged.items():
        assert value == above.get(path, below.get(path, {}))
    for path, value in below.items():
        hidden = any(path[:k] in above for k in range(1, len(path) + 1))
        deeper = any(key[: len(path)] == path for key in above)
        assert hidden or deeper or merged[path] == value


@pytest.mark.parametrize(
    ("child", "base", "overrides", "expected"),
    [
        ({"lora": {"rank": 0}}, {}, [], "child.yaml: lora.rank: Input should be greater than 0"),
        ({"seed": 1}, {"lora": {"rank": 0}}, [], "base.yaml: lora.rank: Input should be greater than 0"),
        ({"seed": 1}, {"sed": 1}, [], "base.yaml: unknown key 'sed'; did you mean 'seed'?"),
        ({"sed": 1}, {}, [], "child.yaml: unknown key 'sed'; did you mean 'seed'?"),
        ({"seed": 1}, {"datasets": [{"weight": 1}]}, [], "base.yaml: 'datasets.0.spec' is missing"),
        ({"seed": 1}, {"model": None}, [], "base.yaml: model: Input should be a valid string"),
        ({"seed": -1}, {"max_steps": 0}, [], "base.yaml: max_steps: Input should be greater than 0 (got 0)"),
        ({"seed": 1}, {}, ["max_steps=0"], "the command line: max_steps: Input should be greater than 0"),
        ({"validation": {"exact_tasks": 99}}, {}, [], "child.yaml, which extends {}base.yaml: validation: "),
        ({"scheduler": "polynomial"}, {"warmup": 9, "max_steps": 9}, [], "child.yaml, which extends {}base.yaml: "),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_the_field(
    tmp_path: Path, child: dict[str, Any], base: dict[str, Any], overrides: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(tmp_path, child, {**BASE, **base}), overrides)
    assert expected.replace("{}", f"{tmp_path}/") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_key_is_missing_in_the_file_that_extends(tmp_path: Path) -> None:
    base = {key: value for key, value in BASE.items() if key != "max_steps"}
    with pytest.raises(ConfigError, match=r"child\.yaml, which extends .*base\.yaml: 'max_steps' is missing"):
        load_recipe(write(tmp_path, {"seed": 1}, base))


def test_the_path_is_relative_to_the_file_that_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"seed": 1}, name="shared/base.yaml")
    monkeypatch.chdir("/")
    assert load_recipe(path).max_steps == SMALL["max_steps"]


def test_extending_a_file_that_extends_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {}, {**BASE, EXTENDS: "third.yaml"})
    with pytest.raises(ConfigError, match=r"base\.yaml: extends: .*child\.yaml extends this file.*copy the keys"):
        load_recipe(path)
    path.write_text(f"{EXTENDS}: child.yaml\n")
    with pytest.raises(ConfigError, match="cannot extend another one"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: none.yaml", "child.yaml: extends: .*none.yaml: no such file"),
        ("extends: [a.yaml, b.yaml]", "child.yaml: extends: expected the path of one file, got .'a.yaml', 'b.yaml'."),
        ("extends:", "child.yaml: extends: expected the path of one file, got None"),
        ("extends: .", "child.yaml: extends: .*cannot be read"),
        ("extends: list.yaml", "child.yaml: extends: .*list.yaml: expected keys and values, got list"),
        ("extends: ~nobody-of-this-name/x.yaml", "child.yaml: extends: .*no home folder is known"),
        ("{seed: 1, extends: a, extends: b}", "'extends' occurs twice"),
    ],
)
def test_files_that_cannot_be_extended(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    path = tmp_path / "child.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=expected):
        load_recipe(path)


def test_an_override_cannot_extend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'extends=base\.yaml': extends is read before overrides; write it into the"):
        load_recipe(write(tmp_path, {}), ["extends=base.yaml"])


def test_the_records_are_the_digests_of_both_files(tmp_path: Path) -> None:
    path = write(tmp_path, {"seed": 1})
    expected = [(str(p), hashlib.sha256(p.read_bytes()).hexdigest()) for p in (path, tmp_path / "base.yaml")]
    assert [(record.path, record.sha256) for record in read_extended(path).records()] == expected
    assert read_extended(tmp_path / "base.yaml").records() == []


def test_a_recipe_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As from ``bench train <(command)``."""
    for overrides, expected in (([], None), (["max_stps=3"], "unknown key 'max_stps'")):
        read, write_end = os.pipe()
        with os.fdopen(write_end, "w") as stream:
            yaml.safe_dump(SMALL, stream)
        with open(read), pytest.raises(ConfigError, match=expected) if expected else nullcontext():
            assert load_recipe(Path(f"/dev/fd/{read}"), overrides).max_steps == SMALL["max_steps"]


def test_a_sweep_records_its_files_as_they_were_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"seeds": [1]}, {**BASIC, "original_weight": [1]})
    expected = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, tmp_path / "base.yaml")]
    sweep = load_sweep(path)
    path.unlink()
    assert [file.sha256 for file in sweep.record().files or ()] == expected


@pytest.mark.parametrize(
    ("child", "base", "expected"),
    [
        ({"recipe": {"max_step": 4}}, {}, "child.yaml: recipe of w100: unknown key 'max_step'"),
        ({"seeds": [1]}, {"recipe": {"model": "tiny", "max_steps": 0}}, "base.yaml: recipe of w100: max_steps: Input"),
        ({"seeds": [1]}, {"evaluation": {"n": 1}}, "base.yaml: 'evaluation.dataset' is missing"),
        (
            {"recipe": {}},
            {"recipe": {"max_steps": 0}},
            "child.yaml, which extends {}base.yaml: recipe of w100: 'model'",
        ),
        (
            {"axes": {"lora.rank": [0]}},
            {"axes": {"lora.rank": [4]}},
            "child.yaml: recipe of w100-rank0: lora.rank: Input",
        ),
        ({"seeds": [1]}, {"cells": [{"lora.rank": 0}]}, "base.yaml: recipe of w100-rank0: lora.rank: Input"),
        (
            {"axes": {"lora.rank": [4]}},
            {"cells": [{"max_steps": 1}]},
            "child.yaml, which extends {}base.yaml: give either",
        ),
        ({"axes": {"max_steps.x": [4]}}, {}, "child.yaml: override 'max_steps.x': 'max_steps' holds a single value"),
        ({"evaluation": {"n": 0}}, {}, "child.yaml: evaluation.n: Input should be greater than 0"),
    ],
)
def test_sweeps_extend_too(tmp_path: Path, child: dict[str, Any], base: dict[str, Any], expected: str) -> None:
    sweep = load_sweep(write(tmp_path, {"evaluation": {"n": 7}, "original_weight": [1]}, BASIC))
    assert (sweep.evaluation.n, sweep.evaluation.dataset) == (7, BASIC["evaluation"]["dataset"])
    assert sweep.original_weight == [1]
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(tmp_path, child, {**BASIC, **base}))
    assert expected.replace("{}", f"{tmp_path}/") in str(caught.value)


def test_a_wrong_recipe_of_a_sweep_names_the_file_without_extends_too(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**BASIC, "recipe": {"model": "tiny"}}))
    with pytest.raises(ConfigError, match=r"^\S+/sweep\.yaml: recipe of w100: 'max_steps' is missing$"):
        load_sweep(path)


def test_a_sweep_varies_other_keys_than_the_one_it_extends(tmp_path: Path) -> None:
    base = {**BASIC, "original_weight": [1], "axes": {"lora.rank": [4, 8]}}
    names = [cell.name for cell in load_sweep(write(tmp_path, {"axes": {"max_steps": [5]}}, base)).table_rows()]
    assert names == ["w100-rank4-max_steps5", "w100-rank8-max_steps5"]
    listed = load_sweep(write(tmp_path, {"axes": {}, "cells": [{"max_steps": 5}]}, base))
    assert [cell.name for cell in listed.table_rows()] == ["w100-max_steps5"]
