"""Recipes: YAML files, overrides, and errors that name the key."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ConfigError, MissingExtraError
from harness.core.random_stream import Stream
from harness.prompts.prompt_template import load_prompt
from tests.conftest import ROOT
from tests.support.data_samples import random_task, task_json
from tests.support.training.recipes import SMALL, write_recipe
from trainers.model.base_model import find_base
from trainers.model.inputs import open_inputs
from trainers.model.lora import check_lora
from trainers.recipe.extras import require_train_extra
from trainers.recipe.files.yaml_file import load_recipe
from trainers.recipe.schema import CHANGEABLE_KEYS, Recipe, changed_keys, make_recipe
from trainers.run.api import train
from trainers.store.manifest import write_json


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("lerning_rate=1e-4", "unknown key 'lerning_rate'; did you mean 'learning_rate'?"),
        ("lora.rnk=8", "unknown key 'lora.rnk'; did you mean 'lora.rank'?"),
        ("datasets.0.wieght=2", "unknown key 'datasets.0.wieght'; did you mean 'datasets.0.weight'?"),
        ("validation.sepc=toy/cross", "did you mean 'validation.spec'?"),
        ("zzz=1", "unknown key 'zzz'; known: model, output_dir"),
        ("max_steps=0", "max_steps: Input should be greater than 0 (got 0)"),
        ("datasets=[]", "datasets: List should have at least 1 item"),
        ("datasets.3.weight=1", "'3' is not one of the 1 positions"),
        ("max_steps", "expected key=value"),
        ("model={", "not valid YAML"),
        ("max_steps.x=1", "'max_steps' holds a single value"),
    ],
)
def test_an_invalid_override_is_explained_in_one_line(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, [override], SMALL)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_overrides_replace_values_and_values_replace_the_file(tmp_path: Path) -> None:
    head = "model: tiny\noutput_dir: a\nmax_steps: 5\nlearning_rate: 4e-3\n"
    bare = load_recipe(write_recipe(tmp_path, head + "datasets: toy/cross\n"))
    assert bare == load_recipe(write_recipe(tmp_path, head + "datasets: [toy/cross]\n"))
    path = write_recipe(tmp_path, head + "datasets: [{spec: toy/cross}]\n")
    recipe = load_recipe(path, ["max_steps=7", "lora.rank=4", "datasets.0.weight=2"], {"max_steps": 6, "seed": 3})
    assert (recipe.max_steps, recipe.seed, recipe.learning_rate) == (7, 3, 4e-3)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha) == (4, 32)
    assert recipe.datasets[0].weight == 2
    assert load_recipe(path, ["lora=null"]).lora is None


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    head = "model: tiny\noutput_dir: out\nprompt: compact-v0\ndatasets: [toy/cross]\n"
    for text, line in (
        (f"{head}max_steps: 3\nseed: 1\nmax_steps: 4\n", 7),
        (f"{head}max_steps: 3\nlora: {{rank: 4, alpha: 8, rank: 8}}\n", 6),
    ):
        with pytest.raises(ConfigError, match=rf"occurs twice.*line {line}") as error:
            load_recipe(write_recipe(tmp_path, text))
        assert "\n" not in str(error.value)
    shared = f"{head}max_steps: 3\nlora: &a {{rank: 4}}\n"
    assert (
        load_recipe(write_recipe(tmp_path, shared.replace("&a {rank: 4}", "{<<: {rank: 4}, alpha: 8}"))).lora
        is not None
    )


def test_unreadable_files(tmp_path: Path) -> None:
    for text, expected in (("- 1", "expected keys and values"), ("a: [", "not valid YAML")):
        with pytest.raises(ConfigError, match=expected):
            load_recipe(write_recipe(tmp_path, text))
    with pytest.raises(ConfigError, match="no such file"):
        load_recipe(tmp_path / "none.yaml")


def test_weights_must_be_given_for_all_datasets_or_none() -> None:
    both = [{"spec": "toy/cross", "weight": 1}, {"spec": "toy/diagonal"}]
    with pytest.raises(ConfigError, match="some have a weight and some have none"):
        make_recipe({**SMALL, "datasets": both})


VALUES: dict[str, st.SearchStrategy[object]] = {
    "seed": st.integers(1, 99),
    "max_steps": st.integers(4, 99),
    "prompt": st.just("compact-v0"),
    "datasets": st.just([{"spec": "toy/cross"}, {"spec": "toy/copy"}]),
    "lora": st.builds(lambda r: {"rank": r}, st.integers(17, 64)),
    "augment": st.just(False),
    "batch_size": st.integers(17, 64),
    "learning_rate": st.floats(1e-6, 1e-5),
    "too_long": st.just("drop_pairs"),
}


@given(st.dictionaries(st.sampled_from(sorted(VALUES)), st.none(), min_size=1), st.data())
def test_changed_keys_are_exactly_the_changed_ones(names: dict[str, None], data: st.DataObject) -> None:
    changes = {name: data.draw(VALUES[name]) for name in names}
    changed = changed_keys(make_recipe(SMALL).deciding_values(), make_recipe({**SMALL, **changes}).deciding_values())
    assert {key.split(".")[0] for key in changed} == set(changes)


def test_changeable_keys_do_not_affect_the_weights() -> None:
    assert set(Recipe.model_fields) > CHANGEABLE_KEYS
    free = {"workers": 2, "save_steps": 3, "gradient_checkpointing": True, "output_dir": "b", "resume": False}
    assert changed_keys(make_recipe(SMALL).deciding_values(), make_recipe({**SMALL, **free}).deciding_values()) == []


def test_the_content_of_the_validation_affects_the_weights(tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    data = {**SMALL, "validation": {"spec": str(held), "keep": "best", "prompt": "compact-v0"}}
    values = []
    for k in range(2):
        held.write_text(json.dumps({"t": task_json(random_task(Stream("held out", k), 2, 5, "t"))}))
        values.append(open_inputs(make_recipe(data)).deciding_values())
    assert changed_keys(*values) == ["validation (its content)"]
    assert values[0]["prompt compact-v0 (its text)"] == load_prompt("compact-v0").digest


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"warmup": math.inf}, "warmup"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"lora": {"alpha": math.inf}}, "lora.alpha"),
        ({"lora": {"alpha_pattern": {"q_proj": math.nan}}}, "lora.alpha_pattern"),
        ({"threads": 10**14}, "threads"),
        ({"scheduler": "polynomial", "max_steps": 1}, r"polynomial needs steps after warm-up \(1 of 1 steps"),
        ({"scheduler": "polynomial", "warmup": 9, "max_steps": 9}, "9 of 9 steps"),
    ],
)
def test_numbers_that_break_a_library_are_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_recipe({**SMALL, **changes})


def test_a_tilde_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    recipe = make_recipe(
        {
            **SMALL,
            "model": "~/base",
            "adapter": "~/ad",
            "output_dir": "~/out",
            "datasets": ["~/d.json#n=3", "barc-40-10-~/b.jsonl", "arc1/training#ids=~/ids.txt", "./~/d.json"],
            "validation": {"spec": "~/v.json"},
        }
    )
    assert (recipe.model, recipe.adapter, recipe.output_dir) == ("/home/me/base", "/home/me/ad", Path("/home/me/out"))
    assert [part.spec for part in recipe.datasets] == [
        "/home/me/d.json#n=3",
        "barc-40-10-/home/me/b.jsonl",
        "arc1/training#ids=/home/me/ids.txt",
        "./~/d.json",
    ]
    assert recipe.validation is not None
    assert recipe.validation.spec == "/home/me/v.json"
    with pytest.raises(ConfigError, match="no home folder is known for '~nobody-of-this-name'"):
        make_recipe({**SMALL, "output_dir": "~nobody-of-this-name/x"})


def test_float16_on_4_bit_weights_is_refused() -> None:
    for dtype in ("auto", "float32", "bfloat16"):
        assert make_recipe({**SMALL, "quantize_4bit": True, "dtype": dtype}).quantize_4bit
    with pytest.raises(ConfigError, match="dtype: float16 scales the loss"):
        make_recipe({**SMALL, "quantize_4bit": True, "dtype": "float16"})


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_train_extra()
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingExtraError, match=r'trl.*pip install -e "\.\[train\]"'):
        require_train_extra()


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    assert find_base("owner/name") == "owner/name"
    for model in ("nothing", str(tmp_path / "nothing"), "./a/b"):
        with pytest.raises(ConfigError, match="no such folder"):
            find_base(model)
    with pytest.raises(ConfigError, match=r"config\.json"):
        find_base(str(tmp_path))


def test_an_output_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recipe = make_recipe({**SMALL, "prompt": "compact-v0", "encoder": "MinimalGridEncoder()"})
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        train(recipe, tmp_path / "file" / "out")


@pytest.mark.parametrize("key", ["model", "adapter"])
def test_the_output_folder_must_not_be_the_model_s_or_adapter_s(tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(find_base("tiny"), tmp_path / "there")
    write_json(folder / "adapter_config.json", {})
    with pytest.raises(ConfigError, match=f"is the folder of the {key} that is trained from"):
        train(make_recipe({**SMALL, key: str(folder)}), tmp_path / "other" / ".." / "there")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("train-*.yaml")), ids=lambda p: p.name)
def test_the_examples_load(path: Path) -> None:
    check_lora(load_recipe(path))
