"""Small tokenizers with the pre-tokenizers and special tokens of common families, trained on the shipped prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.prompts.prompt_template import PROMPT_DIR

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ONE_DIGIT = rf"{_LETTERS}|\p{{N}}|{_REST}"
"""Qwen's pattern: every digit is a word."""
THREE_DIGITS = rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
"""Pattern of Llama 3 and Phi-4: digits in groups of up to three."""


def texts() -> list[str]:
    """Return the training texts; every group of up to three digits becomes a token if the pattern allows it."""
    prompts = [path.read_text(encoding="utf-8") for path in sorted(PROMPT_DIR.glob("*.txt"))]
    groups = [str(n).zfill(width) for width in (2, 3) for n in range(10**width)]
    return prompts + ["system user assistant model\n\n```grid shape: 12x12\n1 0\n```\n"] * 20 + groups * 2


def byte_level(pattern: str, size: int, *, first: Sequence[str] = (), ignore_merges: bool = False) -> Any:
    """Return a byte-level BPE tokenizer.

    Args:
        size: size of the vocabulary without special tokens.
        first: tokens before all others (Mistral numbers its special tokens from 0).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=list(first), show_progress=False
    )
    bpe.train_from_iterator(texts(), trainer)
    return bpe


def sentence_piece(size: int, first: Sequence[str]) -> Any:
    """Return a BPE over characters like Gemma's: blanks are letters, digits single, unknown characters bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    # Gemma's own merges leave digits alone; here a split does while the merges are learned.
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|[0-9]|▁+|[^\n0-9▁]+"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*first, *in_bytes], show_progress=False)
    bpe.train_from_iterator(texts(), trainer)
    data = json.loads(bpe.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in in_bytes]
    bpe = Tokenizer.from_str(json.dumps(data))
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return bpe


def add_tokens(tokenizer: Any, special: Sequence[str], plain: Sequence[str] = ()) -> None:
    """Add tokens at the end of the vocabulary."""
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])


def save(tokenizer: Any, folder: Path, config: dict[str, Any], template: str | None) -> None:
    """Write the tokenizer files of a Hub repository."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(id_): {"content": token.content, "special": token.special, "normalized": token.normalized,
                   "lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
        for id_, token in tokenizer.get_added_tokens_decoder().items()
    }  # fmt: skip
    data = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False, **config}
    if template is not None:
        data["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
