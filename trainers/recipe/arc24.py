"""The options of the arc24 fine-tuning script, mapped onto a recipe.

What trained differently there: DoRA, which vLLM cannot serve, so that its adapters had to be merged (here: plain LoRA
with rank stabilisation on the same layers); paged 8-bit AdamW as the default optimizer; shuffled epochs over all
task ids (here: independent draws with the same weights); a rope scaling that was patched into every model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.core.errors import ConfigError
from harness.data.spec import open_dataset
from trainers.data.task_augmentation import KINDS
from trainers.recipe.schema import RecipeData

ALL_TASKS = 1_000_000
DEFAULTS: RecipeData = {
    "model": "Qwen/Qwen2-0.5B-Instruct",
    "max_steps": 6000,
    "batch_size": 16,
    "max_seq_len": 4096,
    "learning_rate": 1e-4,
    "warmup": 0.05,
    "scheduler": "linear",
    "eval_steps": 50,
    "resplit": True,
}
"""What the script did where an option was not given."""
LORA_DEFAULTS: RecipeData = {
    "rank": 32,
    "alpha": 64,
    "dropout": 0.1,
    "rslora": True,
    "targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
RENAMED = {
    "model_path": "model",
    "adapter_path": "adapter",
    "output_dir": "output_dir",
    "grid_encoder": "encoder",
    "max_steps": "max_steps",
    "logging_steps": "logging_steps",
    "eval_steps": "eval_steps",
    "save_steps": "save_steps",
    "batch_size": "batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "learning_rate": "learning_rate",
    "lr_num_cycles": "scheduler_cycles",
    "warmup_ratio": "warmup",
    "max_seq_len": "max_seq_len",
    "max_grad_norm": "max_grad_norm",
    "random_seed": "seed",
    "torch_dtype": "dtype",
    "use_4bit_quantization": "quantize_4bit",
    "gradient_checkpointing": "gradient_checkpointing",
    "optim": "optimizer",
    "resume_from_checkpoint": "resume",
    "compose_new_task_probability": "change_probability",
}
_BARC = re.compile(r"barc-([0-9]{1,18})-")
WITHOUT_MEANING = {
    "device_map": "one process trains on one device; launch several with torchrun",
    "n_gpus": "launch one process per GPU with torchrun; batch_size stays that of a step over all of them",
    "verbose": "`bench preview` shows samples and lengths",
    "verify_correct_output_probability": "there are no prompts that ask to verify an answer",
}


def recipe_data(options: Mapping[str, Any], with_defaults: bool) -> tuple[RecipeData, list[str]]:
    """(recipe values, warnings) for the options that were given (not None).

    Args:
        with_defaults: add what the script did by default; False where a recipe file is overridden.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    data: RecipeData = dict(DEFAULTS) if with_defaults else {}
    data |= {key: given[name] for name, key in RENAMED.items() if name in given}
    warnings = [
        f"--{name} has no effect: {why}"
        for name, why in WITHOUT_MEANING.items()
        if name in given and given[name] not in ("None", False)
    ]
    if "train_datasets" in given:
        data["datasets"] = _datasets(given)
    elif "subsample_train_tasks_ratio" in given:
        warnings.append("--subsample_train_tasks_ratio has no effect without --train_datasets")
    if "val_dataset" in given:
        spec, prompt = given["val_dataset"]
        data["validation"] = {"spec": spec, "prompt": prompt, "max_tasks": ALL_TASKS}
    if "compose_new_task_weights" in given:
        data["change_weights"] = dict(zip(KINDS, given["compose_new_task_weights"], strict=True))
    if given.get("remove_train_samples_to_fit_max_seq_len"):
        data["too_long"] = "drop_pairs"
    if "report_to" in given:
        data["report_to"] = [] if given["report_to"] == "none" else [given["report_to"]]
    if "eval_steps" in given and "save_steps" not in given:
        data["save_steps"] = given["eval_steps"]
    if "lr_scheduler_type" in given:
        data["scheduler"], more = _scheduler(given["lr_scheduler_type"])
        warnings += more
    _set_lora(data, given, with_defaults)
    if with_defaults:
        warnings.append("the original trained DoRA, which vLLM cannot serve; this trains LoRA on the same layers")
    return data, warnings


def _datasets(given: Mapping[str, Any]) -> list[RecipeData]:
    """The datasets as the script took them: BARC's tasks were not changed to new ones, whatever the probability."""
    ratio = given.get("subsample_train_tasks_ratio")
    datasets = []
    for spec, prompt in given["train_datasets"]:
        chosen = spec if ratio is None else _subsampled(spec, ratio, given.get("random_seed", 0))
        part: RecipeData = {"spec": chosen, "prompt": prompt}
        if given.get("compose_new_task_probability") and _BARC.match(spec):
            part["change_probability"] = 0.0
        datasets.append(part)
    return datasets


def _subsampled(spec: str, ratio: float, seed: int) -> str:
    """The spec of a share of a dataset's tasks; of BARC the number of virtual tasks alone, as in the script."""
    if not 0 < ratio <= 1 or "#" in spec:
        raise ConfigError(
            f"--subsample_train_tasks_ratio {ratio:g} of {spec!r}: it must be over 0 and at most 1, and the spec "
            "without a selection of its own; or select in the spec: PATH#n=100#seed=7"
        )
    if barc := _BARC.match(spec):
        return f"barc-{max(1, int(ratio * int(barc[1])))}-{spec[barc.end() :]}"
    return f"{spec}#n={max(1, int(ratio * len(open_dataset(spec).ids)))}#seed={seed}"


def _scheduler(name: str) -> tuple[str, list[str]]:
    if name == "cyclic":
        return "cosine_with_restarts", ["--lr_scheduler_type cyclic is not known here: cosine_with_restarts is used"]
    return name, []


def _set_lora(data: RecipeData, given: Mapping[str, Any], with_defaults: bool) -> None:
    """The adapter's options; dotted keys where a recipe file is overridden."""
    if given.get("use_lora") is False:
        data["lora"] = None
        return
    lora: RecipeData = dict(LORA_DEFAULTS) if with_defaults else {}
    if "lora_r" in given:
        lora["rank"] = given["lora_r"]
    if "lora_weight_initialization" in given:
        lora["init"] = given["lora_weight_initialization"]
    if with_defaults:
        data["lora"] = lora
    else:
        data |= {f"lora.{key}": value for key, value in lora.items()}
