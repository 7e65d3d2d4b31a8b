"""Finds which tokens of a text write a given part of it; a token that only overlaps the part counts too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.core.errors import ConfigError

TokenRange = tuple[int, int]
"""First token, and the one after the last."""
Decode = Callable[[Sequence[int]], str]


def count_leading(decode: Decode, ids: Sequence[int], length: int) -> int:
    """Return how many of the first tokens overlap the first ``length`` characters of the text of ``ids``."""
    return next((k for k in range(len(ids)) if len(decode(ids[:k])) >= length), len(ids))


def count_trailing(decode: Decode, ids: Sequence[int], length: int) -> int:
    """Return how many of the last tokens overlap the last ``length`` characters of the text of ``ids``."""
    start = len(decode(ids)) - length
    return next((k for k in range(len(ids)) if len(decode(ids[: len(ids) - k])) <= start), len(ids))


def ranges_by_offset(tokenizer: Any, text: str, parts: Sequence[tuple[int, int]]) -> list[TokenRange]:
    """Return the token ranges of parts of a text by the tokenizer's own character offsets.

    Args:
        parts: (start, end) in characters; the first and the last character of a part are not white space.

    Raises:
        ConfigError: the tokenizer has no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"loss_on: outputs needs to know which tokens write a grid, and {type(tokenizer).__name__} does not tell; "
            "use loss_on: answer"
        )
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ranges = []
    for start, end in parts:
        # Some tokenizers leave white space out of a token's offsets, so that a token may seem empty.
        overlapping = [k for k, (first, last) in enumerate(offsets) if first < end and last > start]
        ranges.append((overlapping[0], overlapping[-1] + 1))
    return ranges
