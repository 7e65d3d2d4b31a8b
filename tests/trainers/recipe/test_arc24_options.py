"""The options of the arc24 fine-tuning script: all are accepted, and have their meaning or a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.data.spec import open_dataset
from tests.support.training.recipes import EXPERIMENT, SHAPES, recipe_from_options, write_recipe
from trainers.commands.cli import train
from trainers.model.lora import check_lora

PATHS = ["--output_dir", "o", "--train_datasets", "a.json", "output-from-examples-v1"]
MIXED = [*PATHS, "--train_datasets", "barc-400-10-rows.jsonl", "output-from-examples-v1"]
SCRIPT = {
    "model_path": "m", "adapter_path": "ad", "use_4bit_quantization": "", "output_dir": "o",
    "train_datasets": "a.json output-from-examples-v1", "val_dataset": "b.json output-from-examples-v1",
    "max_steps": "9", "warmup_ratio": "0.1", "max_seq_len": "512", "eval_steps": "5", "save_steps": "6",
    "logging_steps": "2", "learning_rate": "1e-3", "lr_scheduler_type": "cosine_with_restarts", "lr_num_cycles": "3",
    "no-gradient_checkpointing": "", "batch_size": "8", "per_device_train_batch_size": "2", "report_to": "tensorboard",
    "torch_dtype": "bfloat16", "lora_r": "8", "lora_weight_initialization": "default", "n_gpus": "2",
    "device_map": "balanced", "grid_encoder": "MinimalGridEncoder()", "remove_train_samples_to_fit_max_seq_len": "",
    "subsample_train_tasks_ratio": "1", "random_seed": "5", "resume_from_checkpoint": "",
    "compose_new_task_probability": "0.5", "compose_new_task_weights": "1 2 3 4", "verbose": "", "use_lora": "",
    "verify_correct_output_probability": "0.5", "optim": "adamw_torch",
}  # fmt: skip
"""Every option of the script, with a value."""


def script_arguments(folder: str) -> list[str]:
    options = {**SCRIPT, "train_datasets": f"{folder}/a.json output-from-examples-v1"}
    return [word for name, value in options.items() for word in (f"--{name}", *value.split())]


def test_every_option_of_the_script_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("all")
    (folder / "a.json").write_text('{"x": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}]}}')
    recipe = recipe_from_options(script_arguments(str(folder)))
    weights = {"geometric": 1, "padding": 2, "upscale": 3, "mirror": 4}
    assert (recipe.change_probability, recipe.change_weights.model_dump()) == (0.5, weights)
    assert recipe.datasets[0].spec == f"{folder}/a.json#n=1#seed=5"
    assert (recipe.scheduler, recipe.scheduler_cycles, recipe.save_steps) == ("cosine_with_restarts", 3, 6)
    assert (recipe.resume, recipe.gradient_checkpointing, recipe.too_long) == (True, False, "drop_pairs")
    known = {name for option in train.params for name in option.opts}
    assert {f"--{name.removeprefix('no-').replace('_', '-')}" for name in SCRIPT} <= known


@pytest.mark.parametrize(
    ("option", "warning"),
    [
        ("--verbose", "bench preview"),
        ("--n_gpus 2", "torchrun"),
        ("--device_map balanced", "one device"),
        ("--verify_correct_output_probability 0.5", "verify an answer"),
        ("--lr_scheduler_type cyclic", "cosine_with_restarts is used"),
    ],
)
def test_an_option_without_effect_warns(option: str, warning: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe_from_options([*PATHS, *option.split()])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if option.split()[0] in line]
    assert line.startswith("warning: ")
    assert warning in line


def test_the_script_s_own_defaults_do_not_warn(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_from_options(
        [*PATHS, "--device_map", "None", "--compose_new_task_probability", "0", "--no-verbose"]
    )
    assert recipe.resplit
    assert capsys.readouterr().err.count("warning") == 1  # of DoRA


def test_barc_tasks_are_never_changed_to_new_ones() -> None:
    recipe = recipe_from_options([*MIXED, "--compose_new_task_probability", "0.2"])
    assert recipe.change_probability == 0.2
    assert [d.change_probability for d in recipe.datasets] == [None, 0.0]
    assert [d.change_probability for d in recipe_from_options([*MIXED]).datasets] == [None, None]


def test_a_share_of_the_tasks_is_selected() -> None:
    mixed = [word.replace("a.json", "arc1/training") for word in MIXED]
    recipe = recipe_from_options([*mixed, "--subsample_train_tasks_ratio", "0.25", "--random_seed", "3"])
    assert [d.spec for d in recipe.datasets] == ["arc1/training#n=100#seed=3", "barc-100-10-rows.jsonl"]
    assert len(open_dataset(recipe.datasets[0].spec).ids) == 100
    for bad in ("0", "1.5"):
        with pytest.raises(ConfigError, match="over 0 and at most 1"):
            recipe_from_options([*mixed, "--subsample_train_tasks_ratio", bad])


def test_initialisations_of_the_script() -> None:
    for name in ("gaussian", "olora", "pissa"):
        recipe = recipe_from_options([*PATHS, "--lora_weight_initialization", name])
        assert recipe.lora is not None
        assert recipe.lora.init == name


@pytest.mark.parametrize("with_arc", [True, False])
def test_the_two_commands_of_the_experiment_become_recipes(with_arc: bool, capsys: pytest.CaptureFixture[str]) -> None:
    arc = ["--train_datasets", "arc.json", "output-from-examples-v1"] if with_arc else []
    barc = ["--train_datasets", "barc-400-10-barc.jsonl", "output-from-examples-v1"]
    paths = ["--model_path", "tiny", "--output_dir", "out", "--val_dataset", "eval.json", "output-from-examples-v1"]
    recipe = recipe_from_options([*paths, *arc, *barc, *EXPERIMENT])
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


def test_options_with_dashes_override_a_recipe_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(
        tmp_path, "model: tiny\noutput_dir: a\nmax_steps: 5\ndatasets: {spec: toy/cross}\nlora: {alpha: 7}\n"
    )
    recipe = recipe_from_options(
        [str(path), "--lora-r", "8", "--max-steps", "6", "--set", "max_steps=9", "--n-gpus", "2"]
    )
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout, recipe.max_steps) == (8, 7, 0.0, 9)
    assert "--n_gpus has no effect" in capsys.readouterr().err


def test_other_options_of_the_script() -> None:
    arguments = "--output_dir o --train_datasets a.json output-from-examples-v0 --adapter_path ad --warmup_ratio 0.1"
    arguments += " --lr_scheduler_type cosine --report_to tensorboard --torch_dtype bfloat16 --use_4bit_quantization"
    arguments += (
        " --save_steps 5 --optim adamw_torch --remove_train_samples_to_fit_max_seq_len --gradient_checkpointing"
    )
    arguments += " --per_device_train_batch_size 2 --lora_weight_initialization gaussian"
    recipe = recipe_from_options(arguments.split())
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
    assert recipe_from_options([*arguments.split()[:5], "--no-use_lora"]).lora is None
