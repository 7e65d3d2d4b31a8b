"""Write tiny random models of common families, with tokenizers and chat templates that have their peculiarities.

``make_family("llama3-base", folder)`` writes a model folder like a Hub repository. The models are untrained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.families import templates
from tests.families.tokenizers import ONE_DIGIT, THREE_DIGITS, add_tokens, byte_level, save, sentence_piece

_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
_LLAMA = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
)  # fmt: skip
_GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
_MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_PHI = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|system|>", "<|user|>")
_R1 = ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>")
_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
}
"""Shape of every model; 32 is vLLM's smallest head size on a CPU."""
_PICTURES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Family:
    """How a family's model folder is written."""

    model: str
    """Name of the transformers class, such as ``Qwen3ForCausalLM``."""
    tokenizer: Callable[[], Any]
    special: tuple[str, ...]
    entries: dict[str, str]
    """Entries of tokenizer_config.json, such as ``eos_token``."""
    template: str | None
    eos: tuple[str, ...]
    """eos tokens of config.json and generation_config.json."""
    plain: tuple[str, ...] = ()
    """Added tokens that are not special."""
    tied: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    """Further entries of the model's configuration."""
    pictures: dict[str, Any] | None = None
    """Configuration of the vision part, in a model that also reads pictures."""


def _qwen(template: str | None, eos: str, tied: bool = False, model: str = "Qwen3ForCausalLM") -> Family:
    entries = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": eos, "pad_token": _QWEN[0]}
    return Family(model, partial(byte_level, ONE_DIGIT, 500), _QWEN, entries, template, (eos,), _THINK, tied)


def _llama(template: str | None, config_eos: str, eos: tuple[str, ...]) -> Family:
    tokenizer = partial(byte_level, THREE_DIGITS, 1800, ignore_merges=True)
    entries = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _LLAMA[0], "eos_token": config_eos}
    return Family("LlamaForCausalLM", tokenizer, _LLAMA, entries, template, eos)


def _gemma(model: str, template: str, config_eos: str, eos: tuple[str, ...], **more: Any) -> Family:
    entries = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": config_eos}
    entries |= {"pad_token": "<pad>", "unk_token": "<unk>"}
    more = {"sliding_window": 512, "pad_token_id": 0, "bos_token_id": 2, **more}
    return Family(model, partial(sentence_piece, 900, _GEMMA), (), entries, template, eos, (), True, more)


FAMILIES: dict[str, Family] = {
    "qwen2": _qwen(templates.QWEN3.replace("<think>\\n\\n</think>\\n\\n", ""), "<|im_end|>", True, "Qwen2ForCausalLM"),
    "qwen3": _qwen(templates.QWEN3, "<|im_end|>"),
    "qwen3-base": _qwen(templates.QWEN3, "<|endoftext|>", tied=True),
    "qwen3-thinking": _qwen(templates.QWEN3_THINKING, "<|im_end|>"),
    "llama3": _llama(templates.LLAMA3, "<|eot_id|>", ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")),
    "llama3-base-chat": _llama(templates.LLAMA3, "<|end_of_text|>", ("<|end_of_text|>",)),
    "llama3-base": _llama(None, "<|end_of_text|>", ("<|end_of_text|>",)),
    "gemma3": _gemma("Gemma3ForCausalLM", templates.GEMMA3, "<eos>", ("<eos>",)),
    "gemma3-pictures": replace(
        _gemma("Gemma3ForConditionalGeneration", templates.GEMMA3, "<eos>", ("<eos>",)), pictures=_PICTURES
    ),
    "gemma2": _gemma("Gemma2ForCausalLM", templates.GEMMA2, "<eos>", ("<eos>",)),
    "mistral": Family(
        "MistralForCausalLM",
        partial(byte_level, ONE_DIGIT, 500, first=_MISTRAL),
        (),
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        templates.MISTRAL,
        ("</s>",),
        more={"sliding_window": None},
    ),
    "phi": Family(
        "Phi3ForCausalLM",
        partial(byte_level, THREE_DIGITS, 1800),
        _PHI,
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        templates.PHI,
        ("<|endoftext|>",),
        more={"pad_token_id": None, "bos_token_id": None},
    ),
    "r1": Family(
        "LlamaForCausalLM",
        partial(byte_level, THREE_DIGITS, 1800),
        _R1,
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _R1[0], "eos_token": _R1[1], "pad_token": _R1[1]},
        templates.R1,
        (_R1[1],),
        _THINK,
    ),
}  # fmt: skip
"""In ``-base`` families the template does not end turns with the eos token, or there is no template."""


def make_tokenizer(name: str, folder: Path) -> Path:
    """Write the tokenizer files of a family and return the folder."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    add_tokens(tokenizer, family.special, family.plain)
    save(tokenizer, folder, dict(family.entries), family.template)
    return folder


def make_family(name: str, folder: Path, *, seed: int = 0, tokenizer: Path | None = None, **changes: Any) -> Path:
    """Write a model folder of a family with random float32 weights, and return it.

    Args:
        tokenizer: folder whose tokenizer files are used instead of small ones, such as a published model's.
        changes: further entries of the model's configuration.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer

    family = FAMILIES[name]
    if tokenizer is None:
        make_tokenizer(name, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for path in tokenizer.iterdir():
            shutil.copy(path, folder)
    fast_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    eos = [fast_tokenizer.token_to_id(token) for token in family.eos]
    shape = {**_SHAPE, "vocab_size": -(-fast_tokenizer.get_vocab_size() // 64) * 64, "tie_word_embeddings": family.tied}
    shape |= {"eos_token_id": eos if len(eos) > 1 else eos[0], "initializer_range": 0.1, **family.more, **changes}
    network = getattr(transformers, family.model)
    if family.pictures is not None:
        shape = {
            "text_config": shape,
            "vision_config": family.pictures,
            "mm_tokens_per_image": 4,
            **{key: shape[key] for key in ("tie_word_embeddings", "eos_token_id", "initializer_range")},
        }
    torch.manual_seed(seed)
    network(network.config_class(**shape)).to(torch.float32).save_pretrained(folder)
    return folder


def constant_tasks(path: Path, n: int = 12) -> Path:
    """Write tasks whose outputs are all one grid, which a random model learns in a few steps without augmentation."""
    answer = [[1, 2, 3], [4, 5, 6]]
    tasks = {}
    for k in range(n):
        inputs = [[[(k + i + r) % 10 for r in range(3)]] for i in range(3)]
        pairs = [{"input": grid, "output": answer} for grid in inputs]
        tasks[f"constant-{k:03d}"] = {"train": pairs[:2], "test": pairs[2:]}
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path
