"""Counter-based random streams: the same key gives the same numbers on any machine, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_WORD = 1 << 64
MAX_SEED = (1 << 63) - 1
"""The largest seed that a run's files can hold."""


class Stream:
    """A random stream that is a pure function of its key.

    Block ``i`` is BLAKE2b in keyed counter mode, so that no state is shared between streams and no
    library version can change the numbers (NumPy promises that only for its raw bit generators).

    Args:
        key: what names the stream, e.g. ``(seed, task_id, draw)``; integers and strings.
    """

    def __init__(self, *key: int | str) -> None:
        name = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in key)
        self._base = hashlib.blake2b(name.encode(), digest_size=32).digest()
        self._block = 0
        self._words: list[int] = []

    def word(self) -> int:
        """The next 64 random bits."""
        if not self._words:
            digest = hashlib.blake2b(self._block.to_bytes(8, "little"), key=self._base).digest()
            self._block += 1
            self._words = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]
        return self._words.pop()

    def below(self, n: int) -> int:
        """A uniform integer in [0, n), without modulo bias."""
        if n <= 0:
            raise ValueError(f"below() needs a positive bound, not {n}")
        limit = _WORD - _WORD % n
        while (word := self.word()) >= limit:
            pass
        return word % n

    def between(self, low: int, high: int) -> int:
        """A uniform integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def uniform(self) -> float:
        """A uniform float in [0, 1) with 53 random bits."""
        return (self.word() >> 11) * 2.0**-53

    def permutation(self, n: int) -> tuple[int, ...]:
        """A uniform permutation of range(n) (Fisher and Yates)."""
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            order[i], order[j] = order[j], order[i]
        return tuple(order)

    def choice(self, items: Sequence[T]) -> T:
        """One uniform element of a non-empty sequence."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> tuple[T, ...]:
        """k distinct elements in random order."""
        if k > len(items):
            raise ValueError(f"cannot draw {k} distinct items from {len(items)}")
        return tuple(items[i] for i in self.permutation(len(items))[:k])
