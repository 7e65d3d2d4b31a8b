from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ConfigError, MissingExtraError
from tests.conftest import ROOT
from trainers.commands.cli import _recipe, train
from trainers.model.inputs import find_base
from trainers.model.lora import check_lora
from trainers.recipe.extras import require_train_extra
from trainers.recipe.schema import CHANGEABLE_KEYS, Recipe, changed_keys, make_recipe
from trainers.recipe.yaml_file import load_recipe
from trainers.run.api import train as train_recipe

SMALL = {"model": "tiny", "output_dir": "out", "max_steps": 3, "datasets": [{"spec": "toy/cross"}]}
SHAPES = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
EXPERIMENT = (
    f"--grid_encoder {SHAPES} --device_map None --lora_r 32 --max_steps 10 --logging_steps 1 --eval_steps 200 "
    "--batch_size 16 --learning_rate 1e-4 --max_seq_len 4096 --no-resume_from_checkpoint --random_seed 7 --verbose"
).split()


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


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
def test_what_is_wrong_is_named(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, [override], SMALL)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_file_then_values_then_overrides(tmp_path: Path) -> None:
    head = "model: tiny\noutput_dir: a\nmax_steps: 5\nlearning_rate: 4e-3\n"
    bare = load_recipe(write(tmp_path, head + "datasets: toy/cross\n"))
    assert bare == load_recipe(write(tmp_path, head + "datasets: [toy/cross]\n"))
    path = write(tmp_path, head + "datasets: [{spec: toy/cross}]\n")
    recipe = load_recipe(path, ["max_steps=7", "lora.rank=4", "datasets.0.weight=2"], {"max_steps": 6, "seed": 3})
    assert (recipe.max_steps, recipe.seed, recipe.learning_rate) == (7, 3, 4e-3)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha) == (4, 32)
    assert recipe.datasets[0].weight == 2
    assert load_recipe(path, ["lora=null"]).lora is None


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    head = "model: tiny\noutput_dir: out\nprompt: compact-v0\ndatasets: [toy/cross]\n"
    for text, line in (
        (f"{head}max_steps: 3\nseed: 1\nmax_steps: 4\n", 7),
        (f"{head}max_steps: 3\nlora: {{rank: 4, alpha: 8, rank: 8}}\n", 6),
    ):
        with pytest.raises(ConfigError, match=rf"is there twice.*line {line}") as error:
            load_recipe(write(tmp_path, text))
        assert "\n" not in str(error.value)
    shared = f"{head}max_steps: 3\nlora: &a {{rank: 4}}\n"
    assert load_recipe(write(tmp_path, shared.replace("&a {rank: 4}", "{<<: {rank: 4}, alpha: 8}"))).lora is not None


def test_unreadable_files(tmp_path: Path) -> None:
    for text, expected in (("- 1", "expected keys and values"), ("a: [", "not valid YAML")):
        with pytest.raises(ConfigError, match=expected):
            load_recipe(write(tmp_path, text))
    with pytest.raises(ConfigError, match="no such file"):
        load_recipe(tmp_path / "none.yaml")


def test_some_weights_and_some_none() -> None:
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
def test_changed_keys_name_exactly_what_changed(names: dict[str, None], data: st.DataObject) -> None:
    changes = {name: data.draw(VALUES[name]) for name in names}
    changed = changed_keys(make_recipe(SMALL).deciding_values(), make_recipe({**SMALL, **changes}).deciding_values())
    assert {key.split(".")[0] for key in changed} == set(changes)


def test_free_keys_decide_nothing() -> None:
    assert set(Recipe.model_fields) > CHANGEABLE_KEYS
    free = {"workers": 2, "save_steps": 3, "gradient_checkpointing": True, "output_dir": "b", "resume": False}
    assert changed_keys(make_recipe(SMALL).deciding_values(), make_recipe({**SMALL, **free}).deciding_values()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_numbers_that_a_library_would_stumble_over_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_recipe({**SMALL, **changes})


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_patterns_of_lora_are_regular_expressions(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe: lora\.{key} '\(' is no regular expression: missing \)"):
        check_lora(make_recipe({**SMALL, "lora": {key: {"(": 3}}}))


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init": "pissa"}, "changes the base weights"),
        ({"init": "olora"}, "changes the base weights"),
        ({"targets": ["q_proj", "lm_head"]}, "lm_head"),
        ({"targets": ["embed_tokens"]}, "embed_tokens"),
        ({"rank": 128}, "over max_lora_rank 64"),
        ({"rank_pattern": {"q_proj": 256}}, "over max_lora_rank 64"),
    ],
)
def test_unserveable_options_are_refused(lora: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_lora(make_recipe({**SMALL, "lora": lora}))
    check_lora(make_recipe({**SMALL, "lora": lora, "serveable": False}))


@pytest.mark.parametrize(
    "lora", [{"rslora": True}, {"rank": 64}, {"layers": [0, 1]}, {"targets": r".*q_proj"}, {"alpha_pattern": {"q": 3}}]
)
def test_serveable_options_pass(lora: dict[str, Any]) -> None:
    check_lora(make_recipe({**SMALL, "lora": lora}))


def test_options_that_cannot_train() -> None:
    for lora in ({"init": "loftq"}, {"targets": "("}):
        with pytest.raises(ConfigError):
            check_lora(make_recipe({**SMALL, "lora": lora, "serveable": False}))
    with pytest.raises(ConfigError, match="lora must not be null"):
        check_lora(make_recipe({**SMALL, "lora": None, "adapter": "a"}))


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_train_extra()
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingExtraError, match=r'trl.*pip install -e "\.\[train\]"'):
        require_train_extra()


def test_models_that_are_not_there(tmp_path: Path) -> None:
    assert find_base("owner/name") == "owner/name"
    for model in ("nothing", str(tmp_path / "nothing"), "./a/b"):
        with pytest.raises(ConfigError, match="no such folder"):
            find_base(model)
    with pytest.raises(ConfigError, match=r"config\.json"):
        find_base(str(tmp_path))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recipe = make_recipe({**SMALL, "prompt": "compact-v0", "encoder": "MinimalGridEncoder()"})
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        train_recipe(recipe, tmp_path / "file" / "out")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("train-*.yaml")), ids=lambda p: p.name)
def test_examples_load(path: Path) -> None:
    check_lora(load_recipe(path))


def from_options(arguments: list[str]) -> Recipe:
    """The recipe of a ``bench train`` command line."""
    given = train.make_context("train", arguments).params
    own = {name: given.pop(name) for name in ("recipe_file", "overrides", "progress", "json_file")}
    return _recipe(own["recipe_file"], own["overrides"], given)


@pytest.mark.parametrize("with_arc", [True, False])
def test_the_two_commands_of_the_experiment(with_arc: bool, capsys: pytest.CaptureFixture[str]) -> None:
    arc = ["--train_datasets", "arc.json", "output-from-examples-v1"] if with_arc else []
    barc = ["--train_datasets", "barc-400-10-barc.jsonl", "output-from-examples-v1"]
    paths = ["--model_path", "tiny", "--output_dir", "out", "--val_dataset", "eval.json", "output-from-examples-v1"]
    recipe = from_options([*paths, *arc, *barc, *EXPERIMENT])
    specs = ["arc.json"] * with_arc + ["barc-400-10-barc.jsonl"]
    assert [(d.spec, d.prompt, d.weight) for d in recipe.datasets] == [
        (spec, "output-from-examples-v1", None) for spec in specs
    ]
    assert (recipe.encoder, recipe.max_steps, recipe.batch_size, recipe.max_seq_len) == (SHAPES, 10, 16, 4096)
    assert (recipe.seed, recipe.resume, recipe.learning_rate, recipe.eval_steps) == (7, False, 1e-4, 200)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.rslora, recipe.lora.dora) == (32, 64, True, False)
    assert recipe.lora.targets == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert recipe.validation is not None
    assert recipe.validation.spec == "eval.json"
    check_lora(recipe)
    assert "DoRA" in capsys.readouterr().err


def test_options_with_dashes_over_a_recipe_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "model: tiny\noutput_dir: a\nmax_steps: 5\ndatasets: {spec: toy/cross}\nlora: {alpha: 7}\n")
    recipe = from_options([str(path), "--lora-r", "8", "--max-steps", "6", "--set", "max_steps=9", "--n-gpus", "2"])
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout, recipe.max_steps) == (8, 7, 0.0, 9)
    assert "--n_gpus has no effect" in capsys.readouterr().err


def test_other_original_options() -> None:
    arguments = "--output_dir o --train_datasets a.json output-from-examples-v0 --adapter_path ad --warmup_ratio 0.1"
    arguments += " --lr_scheduler_type cosine --report_to tensorboard --torch_dtype bfloat16 --use_4bit_quantization"
    arguments += (
        " --save_steps 5 --optim adamw_torch --remove_train_samples_to_fit_max_seq_len --gradient_checkpointing"
    )
    arguments += " --per_device_train_batch_size 2 --lora_weight_initialization gaussian"
    recipe = from_options(arguments.split())
    assert recipe.lora is not None
    assert (recipe.adapter, recipe.warmup, recipe.scheduler, recipe.report_to) == ("ad", 0.1, "cosine", ["tensorboard"])
    assert (recipe.dtype, recipe.quantize_4bit, recipe.save_steps, recipe.optimizer) == (
        "bfloat16",
        True,
        5,
        "adamw_torch",
    )
    assert (recipe.too_long, recipe.gradient_checkpointing, recipe.micro_batch_size) == ("drop_pairs", True, 2)
    assert (recipe.lora.init, recipe.max_steps) == ("gaussian", 6000)
    assert from_options([*arguments.split()[:5], "--no-use_lora"]).lora is None
