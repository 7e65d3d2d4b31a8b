"""Create the adapters to swap, and compute the answers of each with transformers and PEFT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.random_stream import Stream
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from trainers.tiny.train import shipped_path

COUNT = 32
RANK = 16
PROMPTS, PROMPT_TOKENS = 4, 64
CANDIDATES = 64
"""Prompts to choose from: those are kept on which all models answer differently."""
CHECKED_TOKENS = 16
NAMES = tuple(f"n{i:02}" for i in range(COUNT))
SECOND = "n00-second"
"""Key of the second version of the first name, with which it is swapped."""


@dataclass(frozen=True)
class Adapters:
    """The registry and its contents.

    Attributes:
        ids: version of each name, and under SECOND the other version of the first name.
        folders: folders of the same versions, for a plain vLLM.
        expected: answers to ``prompts`` by the same keys, and under "base".
    """

    base: Path
    registry: Registry
    ids: dict[str, str]
    folders: dict[str, Path]
    prompts: list[list[int]]
    expected: dict[str, list[list[int]]]


def make_adapters(work: Path, names: Sequence[str]) -> Adapters:
    """Create random LoRA adapters of rank 16 on all linear layers of the tiny base, once in ``work``."""
    base = BaseModel.open(shipped_path())
    registry = Registry(work / "adapters")
    ids, folders = {}, {}
    for seed, key in enumerate((*names, SECOND)):
        source = work / "sources" / key
        if not (source / "adapter_config.json").exists():
            write_adapter(source, base, seed)
        version = registry.add(key.partition("-")[0], source, base)
        ids[key], folders[key] = version.id, version.folder.resolve()
    vocabulary = int(base.config["vocab_size"])
    drawn = [[Stream("prompt", i, j).below(vocabulary) for j in range(PROMPT_TOKENS)] for i in range(CANDIDATES)]
    answers = _answers(work, folders, drawn)
    distinct = [at for at in range(CANDIDATES) if len({tuple(of[at]) for of in answers.values()}) == len(answers)][
        :PROMPTS
    ]
    if len(distinct) < PROMPTS:
        raise SystemExit("two models give the same answer to nearly every prompt; wrong answers could not be told")
    expected = {key: [of[at] for at in distinct] for key, of in answers.items()}
    return Adapters(shipped_path(), registry, ids, folders, [drawn[at] for at in distinct], expected)


def write_adapter(folder: Path, base: BaseModel, seed: int) -> None:
    """Write a random LoRA adapter on all linear layers of a base."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    tensors = {}
    for name, tensor in base.tensors.items():
        module = name.removesuffix(".weight")
        if ".layers." not in module or not module.endswith("_proj"):
            continue
        out, inner = tensor.shape
        for part, shape in (("A", (RANK, inner)), ("B", (out, RANK))):
            scale = 0.1
            tensors[f"base_model.model.{module}.lora_{part}.weight"] = random.normal(0, scale, shape).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted({name.rsplit(".", 3)[1] for name in tensors})
    config: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.folder),
        "bias": "none",
    }
    config |= {"r": RANK, "lora_alpha": RANK, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _answers(work: Path, folders: dict[str, Path], prompts: list[list[int]]) -> dict[str, list[list[int]]]:
    path = work / "answers.json"
    if path.exists():
        known: dict[str, list[list[int]]] = json.loads(path.read_text())
        return known
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def of(adapter: Path | None) -> list[list[int]]:
        model = AutoModelForCausalLM.from_pretrained(shipped_path(), dtype=torch.float32)
        model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
        model.eval()
        model.generation_config.eos_token_id = None
        ids = torch.tensor(prompts)
        mask = torch.ones_like(ids)
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=CHECKED_TOKENS, do_sample=False)
        return [row[PROMPT_TOKENS:] for row in out.tolist()]

    expected = {"base": of(None), **{key: of(folder) for key, folder in folders.items()}}
    path.write_text(json.dumps(expected))
    return expected
