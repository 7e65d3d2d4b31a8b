"""Values of published recipes for test-time training, under the names that ``ttt.preset`` takes.

A preset fills every key that the recipe does not set itself. Published values are listed with their source. Keys of
which nothing was published, or that this trainer does not have, are listed under ``not published`` with what is used
instead. All three draw their augmentations here as for any training: a symmetry, a colour permutation and an order of
the pairs; what the sources do besides is named.

marc: Akyürek et al., "The Surprising Effectiveness of Test-Time Training for Few-Shot Learning" (arXiv 2411.07279) and
    its code (``test_time_train.py``, ``ttt/preprocess.py``, ``configs/ttt``): leave-one-out, filled up with
    leave-two-out, at most 250 samples, 2 epochs, batches of 2, LoRA of rank 128 and alpha 16 on q_proj, v_proj and the
    MLP, AdamW at 5e-5 with weight decay 0.01, cosine decay after warm-up over a tenth of the steps, loss on all outputs
    after the first demonstration, 8,192 tokens.
    Different here: each sample draws whether it leaves out one pair or two; its upscaled, translated and repeated
    variants of a task are not made.
architects: Franzen, Disselhoff, Hartmann, "The LLM ARChitect" (ARC Prize 2024; also arXiv 2505.07859) and its code
    (``run_evaluation``): LoRA of rank 64 and alpha 16 with rank stabilisation on all layers, embeddings and output
    layer, 48 views per task, 1 epoch, batches of 1, AdamW at 1e-4 without weight decay, cosine decay after 32 steps of
    warm-up, loss on all outputs after the first demonstration. (A sample that leaves one pair out and asks for it has
    all pairs, as their views have.)
    Different here: one learning rate, where theirs is 1e-5 for embeddings and output layer; plain AdamW, where theirs
    keeps its state in 8 bits.
nvarc: Sorokin, Puget, "NVARC solution to ARC-AGI-2 2025" (ARC Prize 2025): LoRA of rank 256 and alpha 32, AdamW at
    5e-5, 128 samples, 1 epoch, weights reset for each task in one process.
    Not published, or not known to us: batches of 4 (the title of its notebook), loss on the outputs (as architects, on
    which it builds); leave-one-out, scheduler, warm-up, weight decay and layers are this trainer's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainers.recipe.files.extended_file import merge_values

Values = dict[str, Any]
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "marc": {
        "ttt": {"leave_out": [1, 2], "samples": 250, "epochs": 2},
        "loss_on": "outputs",
        "lora": {
            "rank": 128,
            "alpha": 16,
            "dropout": 0.0,
            "targets": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
        },
        "max_lora_rank": 128,
        "batch_size": 2,
        "learning_rate": 5e-5,
        "weight_decay": 0.01,
        "scheduler": "cosine",
        "warmup": 0.1,
        "max_seq_len": 8192,
    },
    "architects": {
        "ttt": {"leave_out": [1], "samples": 48, "epochs": 1},
        "loss_on": "outputs",
        "lora": {"rank": 64, "alpha": 16, "rslora": True, "targets": [*_LINEAR, "embed_tokens", "lm_head"]},
        "batch_size": 1,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "scheduler": "cosine",
        "warmup": 32,
    },
    "nvarc": {
        "ttt": {"leave_out": [1], "samples": 128, "epochs": 1},
        "loss_on": "outputs",
        "lora": {"rank": 256, "alpha": 32},
        "max_lora_rank": 256,
        "batch_size": 4,
        "learning_rate": 5e-5,
    },
}


def with_preset(data: Mapping[str, Any]) -> Values:
    """Return a recipe's plain values, completed with those of its preset; the recipe's own values win.

    ``ttt.steps`` of the recipe replaces the preset's samples and epochs.
    """
    part = data.get("ttt")
    name = part.get("preset") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(name, str) or name not in PRESETS:
        return dict(data)
    values = {key: dict(value) if isinstance(value, Mapping) else value for key, value in PRESETS[name].items()}
    if part.get("steps") is not None:
        values["ttt"] = {key: value for key, value in values["ttt"].items() if key not in ("samples", "epochs")}
    return merge_values(values, data)
