"""The part ``ttt:`` of a recipe: defaults, presets, errors; recipes without it are recorded as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.core.errors import ConfigError
from tests.families.make import make_family
from tests.support.training.recipes import SMALL, write_recipe
from trainers.model.lora import check_lora
from trainers.recipe.schema import Recipe, make_recipe
from trainers.recipe.ttt_presets import PRESETS
from trainers.recipe.ttt_recipe import load_ttt_recipe, make_ttt_recipe, task_values, unused_keys

EXAMPLES = Path(__file__).parents[3] / "examples"
TINY: dict[str, Any] = {"model": "tiny"}


def _ttt(recipe: Recipe) -> Any:
    return recipe.ttt


def test_a_recipe_without_the_new_keys_is_recorded_as_before() -> None:
    recipe = make_recipe({**SMALL, "loss_on": "answer"})
    assert not {"loss_on", "ttt"} & recipe.model_dump(mode="json").keys()
    assert not any(key.startswith(("loss_on", "ttt")) for key in recipe.deciding_values())
    assert '"augment":true,"resplit":false' in recipe.model_dump_json()
    assert make_recipe({**SMALL, "loss_on": "outputs"}).deciding_values()["loss_on"] == "outputs"


def test_test_time_training_does_not_decide_an_ordinary_training() -> None:
    with_part = make_recipe({**SMALL, "ttt": {"steps": 3}})
    assert with_part.deciding_values() == make_recipe(SMALL).deciding_values()


def test_defaults_without_any_part() -> None:
    recipe = make_ttt_recipe(TINY)
    assert (recipe.max_steps, recipe.datasets, recipe.validation) == (16, [], None)
    assert (_ttt(recipe).leave_out, _ttt(recipe).n_samples(recipe.batch_size)) == ((1,), 256)
    again = make_ttt_recipe(recipe.model_dump(mode="json"))
    assert again == recipe


@pytest.mark.parametrize(
    ("part", "steps"), [({"steps": 7}, 7), ({"samples": 33}, 9), ({"samples": 33, "epochs": 2}, 17)]
)
def test_steps_follow_from_samples_and_epochs(part: dict[str, int], steps: int) -> None:
    recipe = make_ttt_recipe({**SMALL, "batch_size": 4, "ttt": part})
    assert recipe.max_steps == steps  # not the 3 of an ordinary training by this recipe
    assert recipe.datasets == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("marc", {"rank": 128, "alpha": 16, "lr": 5e-5, "batch": 2, "samples": 250, "epochs": 2, "leave": (1, 2)}),
        ("architects", {"rank": 64, "alpha": 16, "lr": 1e-4, "batch": 1, "samples": 48, "epochs": 1, "leave": (1,)}),
        ("nvarc", {"rank": 256, "alpha": 32, "lr": 5e-5, "batch": 4, "samples": 128, "epochs": 1, "leave": (1,)}),
    ],
)
def test_presets_have_the_published_values(name: str, expected: dict[str, Any]) -> None:
    recipe = make_ttt_recipe({**TINY, "ttt": {"preset": name}})
    assert recipe.lora is not None
    actual = {"rank": recipe.lora.rank, "alpha": recipe.lora.alpha, "lr": recipe.learning_rate}
    actual |= {"batch": recipe.batch_size, "samples": _ttt(recipe).samples, "epochs": _ttt(recipe).epochs}
    assert actual | {"leave": _ttt(recipe).leave_out} == expected
    assert recipe.loss_on == "outputs"
    assert recipe.max_lora_rank >= recipe.lora.rank


def test_the_recipe_s_own_values_replace_those_of_a_preset() -> None:
    own = {"lora": {"rank": 8}, "learning_rate": 1e-3, "ttt": {"preset": "marc", "steps": 5, "leave_out": 1}}
    recipe = make_ttt_recipe({**TINY, **own})
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.learning_rate) == (8, 16, 1e-3)
    assert (_ttt(recipe).steps, _ttt(recipe).samples, _ttt(recipe).leave_out) == (5, None, (1,))
    assert recipe.batch_size == PRESETS["marc"]["batch_size"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"ttt": {"samples": 3, "steps": 3}}, "recipe: ttt: samples and steps exclude each other"),
        ({"ttt": {"steps": 3, "epochs": 2}}, "epochs repeat the samples of a task; give samples"),
        ({"ttt": {"leave_out": 3}}, r"ttt.leave_out.0: Input should be 1 or 2 \(got 3\)"),
        ({"ttt": {"leave_out": [1, 1]}}, "leave_out: a number occurs twice"),
        ({"ttt": {"sampels": 3}}, "unknown key 'ttt.sampels'; did you mean 'ttt.samples'"),
        ({"ttt": {"preset": "mark"}}, "preset: Input should be 'marc', 'architects' or 'nvarc'"),
        ({"ttt": {"task_deadline": "soon"}}, "task_deadline: Input should be a valid number"),
        ({"lora": None}, "lora: null trains whole models"),
        ({"serveable": False}, "serveable: false: the adapters of test-time training are served at once; drop it"),
        ({"sharding": "fsdp"}, "sharding: one process trains all tasks; drop it"),
    ],
)
def test_errors_are_one_line_with_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_ttt_recipe({**TINY, **data})
    assert "\n" not in str(error.value)


def test_a_learning_rate_that_decays_after_warmup_is_accepted() -> None:
    recipe = make_ttt_recipe({**TINY, "scheduler": "polynomial", "warmup": 2, "ttt": {"steps": 3}})
    assert recipe.scheduler == "polynomial"
    with pytest.raises(ConfigError, match="polynomial needs steps after warm-up"):
        make_ttt_recipe({**TINY, "scheduler": "polynomial", "warmup": 3, "ttt": {"steps": 3}})


def test_the_training_recipe_of_the_starting_adapter_can_be_extended(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({**SMALL, "lora": {"rank": 4}, "ttt": {"samples": 9}}))
    path = write_recipe(tmp_path, "extends: train.yaml\nttt: {preset: marc, epochs: 3}\n")
    recipe = load_ttt_recipe(path, ["seed=7"])
    assert recipe.lora is not None
    assert (recipe.model, recipe.seed, recipe.lora.rank, recipe.lora.alpha) == ("tiny", 7, 4, 16)
    assert (_ttt(recipe).samples, _ttt(recipe).epochs, recipe.datasets) == (9, 3, [])
    assert unused_keys(path) == ["datasets", "max_steps", "output_dir"]
    assert load_ttt_recipe(path, ["ttt.samples=null", "ttt.epochs=1", "ttt.steps=3"]).max_steps == 3


@pytest.mark.parametrize(
    ("child", "base", "expected"),
    [
        ({"ttt": {"steps": 0}}, {}, "recipe.yaml: ttt.steps: Input should be greater than 0 (got 0)"),
        ({"seed": 1}, {"ttt": {"sampels": 3}}, "base.yaml: unknown key 'ttt.sampels'; did you mean 'ttt.samples'?"),
        ({"ttt": {"steps": 3}}, {"ttt": {"samples": 3}}, "recipe.yaml, which extends {}base.yaml: ttt: samples and"),
        ({"ttt": {"preset": "marc"}}, {"lora": None}, "base.yaml: lora: null trains whole models"),
        ({"seed": 1}, {"loss_on": "all"}, "base.yaml: loss_on: Input should be 'answer' or 'outputs'"),
        ({"seed": 1}, {"model": None}, "base.yaml: model: Input should be a valid string"),
        ({"ttt": 3}, {"ttt": {"steps": 3}}, "recipe.yaml: ttt: Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_an_error_of_an_extended_recipe_names_the_file(
    tmp_path: Path, child: dict[str, Any], base: dict[str, Any], expected: str
) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**TINY, **base}))
    path = write_recipe(tmp_path, yaml.safe_dump({"extends": "base.yaml", **child}))
    with pytest.raises(ConfigError) as error:
        load_ttt_recipe(path)
    assert f"{tmp_path}/{expected.replace('{}', f'{tmp_path}/')}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), (12.5, 12.5)])
def test_deadlines_are_seconds_or_durations(text: object, seconds: float) -> None:
    assert _ttt(make_ttt_recipe({**TINY, "ttt": {"task_deadline": text}})).task_deadline == seconds


def test_an_ordinary_training_needs_datasets(tmp_path: Path) -> None:
    data = {"model": "tiny", "output_dir": "out", "max_steps": 3, "ttt": {}}
    with pytest.raises(ConfigError, match=r"'datasets' is missing; without datasets, a recipe serves `bench ttt`"):
        make_recipe(data)
    path = write_recipe(tmp_path, "model: tiny\nttt: {preset: marc}\n")
    assert load_ttt_recipe(path, ["ttt.samples=10", "seed=3"]).max_steps == 10


def test_what_decides_an_adapter_has_no_deadline_and_no_dataset() -> None:
    values = task_values(make_ttt_recipe({**SMALL, "ttt": {"task_deadline": "20m", "samples": 8}}))
    assert values == task_values(make_ttt_recipe({**TINY, "ttt": {"samples": 8}}))
    assert values["ttt.samples"] == 8
    assert not any(key.startswith(("datasets", "validation", "ttt.task_deadline")) for key in values)


def test_layers_that_the_base_s_class_cannot_serve_are_refused_with_what_to_drop(tmp_path: Path) -> None:
    preset = {"ttt": {"preset": "architects"}}
    with pytest.raises(
        ConfigError,
        match=r"LoRA on embed_tokens and lm_head.*Qwen2ForCausalLM.*"
        r"--set lora.targets=\[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj\]$",
    ):
        check_lora(make_ttt_recipe({**TINY, **preset}))
    kept = {"lora": {"targets": ["q_proj", "v_proj"]}}
    check_lora(make_ttt_recipe({**TINY, **preset, **kept}))
    check_lora(make_ttt_recipe({"model": str(make_family("llama3", tmp_path / "llama")), **preset}))
    pattern = {"lora": {"targets": r".*\.(q_proj|lm_head)|lm_head"}}
    with pytest.raises(ConfigError, match=r"Change the pattern lora.targets so that it does not match lm_head$"):
        check_lora(make_ttt_recipe({**TINY, **preset, **pattern}))


@pytest.mark.parametrize("name", ["ttt-tiny.yaml", "ttt-qwen.yaml"])
def test_examples_are_recipes_for_test_time_training(name: str) -> None:
    recipe = load_ttt_recipe(EXAMPLES / name)
    assert _ttt(recipe).task_deadline == 1200
