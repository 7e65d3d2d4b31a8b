"""Load the tokenizer of a base model, and check what transformers makes of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.errors import ConfigError

_PROBES = ("### Input\n\n```grid shape: 2x3\n1 012\n2 345\n```", " a  b\tc\n\n\nIt's 1234567890 and <|im_start|>")
"""Texts on which a tokenizer is compared with its own file."""


def load_tokenizer(base: Path | str) -> Any:
    """Load the tokenizer of a base model from the files that transformers and vLLM share.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        # Otherwise a tekken.json in the folder is read by mistral-common, which has no chat template.
        return AutoTokenizer.from_pretrained(str(base), mistral_format=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError(f"model {str(base)!r}: its tokenizer cannot be loaded: {why}") from error


def check_tokenizer_file(base: Path | str, tokenizer: Any) -> list[str]:
    """Compare a tokenizer with its own tokenizer.json, which transformers replaces in part for some model types.

    Returns:
        Warnings: a different result without loss of text.

    Raises:
        ConfigError: the loaded tokenizer loses text that its file preserves.
    """
    from tokenizers import Tokenizer
    from transformers.utils import cached_file

    path = cached_file(str(base), "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return []
    from_file = Tokenizer.from_file(path)
    for text in _PROBES:
        ids, expected = (
            tokenizer.encode(text, add_special_tokens=False),
            from_file.encode(text, add_special_tokens=False).ids,
        )
        if ids == expected:
            continue
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        problem = (
            f"model {str(base)!r}: transformers loads its tokenizer as {type(tokenizer).__name__}, which reads text "
            "otherwise than its tokenizer.json"
        )
        if decoded.strip() == text.strip():
            return [f"{problem}; training and vLLM use what transformers loads"]
        raise ConfigError(
            f"{problem}: {text[:40]!r} comes back as {decoded[:40]!r}; set tokenizer_class to "
            "PreTrainedTokenizerFast in its tokenizer_config.json"
        )
    return []


def eos_ids(base: Path | str, tokenizer: Any) -> set[int]:
    """Return the tokenizer's eos token and those of generation_config.json, or of config.json if that is missing."""
    from transformers import AutoConfig, GenerationConfig

    ids: list[Any] = [tokenizer.eos_token_id]
    try:
        eos = GenerationConfig.from_pretrained(str(base)).eos_token_id
    except (OSError, ValueError):
        try:
            config = AutoConfig.from_pretrained(str(base))
        except (OSError, ValueError):  # reported when the model is loaded
            return set()
        eos = GenerationConfig.from_model_config(config).eos_token_id
    ids += eos if isinstance(eos, list) else [eos]
    return {int(id_) for id_ in ids if id_ is not None}
