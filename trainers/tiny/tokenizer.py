"""Build the tokenizer of the tiny base: a byte-level BPE with a ChatML template, trained on shipped prompts only."""

from __future__ import annotations

from typing import Any

from harness.prompts.prompt_template import PROMPT_DIR

VOCABULARY = 384
"""256 bytes, and merges that shorten the prompts; three special tokens are added."""
END_OF_TURN = "<|im_end|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_PROMPTS = (
    "compact-v0", "input-from-inputs-v0", "output-from-examples-v0", "output-from-examples-v1",
    "output-from-outputs-v0",
)  # fmt: skip
"""Prompts on which the shipped tokenizer was trained; later prompts would change its ids."""
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer pattern: AutoTokenizer restores it for a Qwen2 model whatever was saved."""


def build_tokenizer() -> Any:
    """Return a transformers Qwen2Tokenizer in which every digit and every newline is one token."""
    import json

    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, in_bytes])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    texts = [(PROMPT_DIR / f"{name}.txt").read_text(encoding="utf-8") for name in _PROMPTS]
    texts += ["system user assistant\n"] * 8 + ["```grid shape: 12x12\n1 0\n```\n"] * 20
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    marks = {"additional_special_tokens": ["<|im_start|>", END_OF_TURN]}
    tokenizer.add_special_tokens({**marks, "eos_token": END_OF_TURN, "pad_token": "<|endoftext|>"})
    tokenizer.chat_template = CHATML
    return tokenizer
