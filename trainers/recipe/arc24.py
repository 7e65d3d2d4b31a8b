"""Map the options of the arc24 fine-tuning script onto a recipe.

Differences from that script: it trained DoRA, which vLLM cannot serve, so that its adapters had to be merged (here:
LoRA with rank stabilisation on the same layers); its default optimizer was paged 8-bit AdamW; it shuffled epochs over
all task ids (here: independent draws with the same weights); it patched a rope scaling into every model.
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
"""``max_tasks`` of a validation that has no limit in the script."""
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
"""The script's defaults for options that were not given."""
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
"""Recipe key of each option that has one."""
_BARC = re.compile(r"barc-([0-9]{1,18})-")
WITHOUT_MEANING = {
    "device_map": "one process trains on one device; launch several with torchrun",
    "n_gpus": "launch one process per GPU with torchrun; batch_size stays that of a step over all of them",
    "verbose": "`bench preview` shows samples and lengths",
    "verify_correct_output_probability": "there are no prompts that ask to verify an answer",
}
"""Options without effect here, and the reason that the warning gives."""


def recipe_data(options: Mapping[str, Any], with_defaults: bool) -> tuple[RecipeData, list[str]]:
    """Return (recipe values, warnings) for the options that are not None.

    Args:
        with_defaults: add the script's defaults; False if the options override a recipe file.

    Raises:
        ConfigError: ``subsample_train_tasks_ratio`` cannot be applied.
    """
    options = {name: value for name, value in options.items() if value is not None and value != ()}
    data: RecipeData = dict(DEFAULTS) if with_defaults else {}
    data |= {key: options[name] for name, key in RENAMED.items() if name in options}
    warnings = [
        f"--{name} has no effect: {why}"
        for name, why in WITHOUT_MEANING.items()
        if name in options and options[name] not in ("None", False)
    ]
    if "train_datasets" in options:
        data["datasets"] = _datasets(options)
    elif "subsample_train_tasks_ratio" in options:
        warnings.append("--subsample_train_tasks_ratio has no effect without --train_datasets")
    if "val_dataset" in options:
        spec, prompt = options["val_dataset"]
        data["validation"] = {"spec": spec, "prompt": prompt, "max_tasks": ALL_TASKS}
    if "compose_new_task_weights" in options:
        data["change_weights"] = dict(zip(KINDS, options["compose_new_task_weights"], strict=True))
    if options.get("remove_train_samples_to_fit_max_seq_len"):
        data["too_long"] = "drop_pairs"
    if "report_to" in options:
        data["report_to"] = [] if options["report_to"] == "none" else [options["report_to"]]
    if "eval_steps" in options and "save_steps" not in options:
        data["save_steps"] = options["eval_steps"]
    if "lr_scheduler_type" in options:
        data["scheduler"], more = _scheduler(options["lr_scheduler_type"])
        warnings += more
    _set_lora(data, options, with_defaults)
    if with_defaults:
        warnings.append("the original trained DoRA, which vLLM cannot serve; this trains LoRA on the same layers")
    return data, warnings


def _datasets(options: Mapping[str, Any]) -> list[RecipeData]:
    """Return the datasets of ``train_datasets``. As in the script, BARC's tasks are never turned into new ones."""
    ratio = options.get("subsample_train_tasks_ratio")
    datasets = []
    for spec, prompt in options["train_datasets"]:
        chosen = spec if ratio is None else _subsampled(spec, ratio, options.get("random_seed", 0))
        part: RecipeData = {"spec": chosen, "prompt": prompt}
        if options.get("compose_new_task_probability") and _BARC.match(spec):
            part["change_probability"] = 0.0
        datasets.append(part)
    return datasets


def _subsampled(spec: str, ratio: float, seed: int) -> str:
    """Return a spec that selects a share of a dataset's tasks; for BARC, a share of the number of virtual tasks."""
    if not 0 < ratio <= 1 or "#" in spec:
        raise ConfigError(
            f"--subsample_train_tasks_ratio {ratio:g} of {spec!r}: it must be over 0 and at most 1, and the spec "
            "without a selection of its own; or select in the spec: PATH#n=100#seed=7"
        )
    if barc := _BARC.match(spec):
        return f"barc-{max(1, int(ratio * int(barc[1])))}-{spec[barc.end() :]}"
    return f"{spec}#n={max(1, int(ratio * len(open_dataset(spec).ids)))}#seed={seed}"


def _scheduler(name: str) -> tuple[str, list[str]]:
    """Return transformers' name for a scheduler of the script, and warnings if it is another scheduler."""
    if name == "cyclic":
        return "cosine_with_restarts", ["--lr_scheduler_type cyclic is not known here: cosine_with_restarts is used"]
    return name, []


def _set_lora(data: RecipeData, options: Mapping[str, Any], with_defaults: bool) -> None:
    """Set the adapter's options in ``data``; with dotted keys if they override a recipe file."""
    if options.get("use_lora") is False:
        data["lora"] = None
        return
    lora: RecipeData = dict(LORA_DEFAULTS) if with_defaults else {}
    if "lora_r" in options:
        lora["rank"] = options["lora_r"]
    if "lora_weight_initialization" in options:
        lora["init"] = options["lora_weight_initialization"]
    if with_defaults:
        data["lora"] = lora
    else:
        data |= {f"lora.{key}": value for key, value in lora.items()}
