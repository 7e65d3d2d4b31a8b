"""Random number streams by key: the same key gives the same numbers on every machine and in every version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_WORD = 1 << 64
MAX_SEED = (1 << 63) - 1
"""The largest seed that fits into a run's files (63 bits)."""


class Stream:
    """A stream of random numbers that depends on its key only.

    The numbers are BLAKE2b of a block counter, keyed with a hash of the stream's key. Streams therefore share no state,
    and no library version can change the numbers (NumPy guarantees that for its raw bit generators only).

    Args:
        key: integers and strings that identify the stream, such as ``"view", seed, task_id, view``.
    """

    def __init__(self, *key: int | str) -> None:
        name = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in key)
        self._base = hashlib.blake2b(name.encode(), digest_size=32).digest()
        self._block = 0
        self._words: list[int] = []

    def word(self) -> int:
        """Return the next 64 random bits as an integer."""
        if not self._words:
            digest = hashlib.blake2b(self._block.to_bytes(8, "little"), key=self._base).digest()
            self._block += 1
            self._words = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]
        return self._words.pop()

    def below(self, n: int) -> int:
        """Return a uniform integer in [0, n), by rejection (no modulo bias).

        Raises:
            ValueError: n is below 1.
        """
        if n <= 0:
            raise ValueError(f"below() needs a positive bound, not {n}")
        limit = _WORD - _WORD % n
        while (word := self.word()) >= limit:
            pass
        return word % n

    def between(self, low: int, high: int) -> int:
        """Return a uniform integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def uniform(self) -> float:
        """Return a uniform float in [0, 1) with 53 random bits."""
        return (self.word() >> 11) * 2.0**-53

    def permutation(self, n: int) -> tuple[int, ...]:
        """Return a uniform permutation of range(n), by the Fisher–Yates shuffle."""
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            order[i], order[j] = order[j], order[i]
        return tuple(order)

    def choice(self, items: Sequence[T]) -> T:
        """Return a uniform element of a non-empty sequence."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> tuple[T, ...]:
        """Return k elements at distinct random positions, in random order.

        Raises:
            ValueError: k is larger than the number of items.
        """
        if k > len(items):
            raise ValueError(f"cannot draw {k} distinct items from {len(items)}")
        return tuple(items[i] for i in self.permutation(len(items))[:k])
