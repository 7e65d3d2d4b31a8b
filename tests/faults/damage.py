"""Damage to a file for the time of a block: cut short, bits flipped, emptied, or gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.random_stream import Stream


def damages(content: bytes, stream: Stream, cuts: int, flips: int) -> Iterator[tuple[str, bytes | None]]:
    """What is left of a file's content: nothing at all, no file (None), parts of it, and it with one bit flipped."""
    yield "gone", None
    yield "empty", b""
    for at in sorted({stream.below(len(content)) for _ in range(cuts)}):
        yield f"cut at {at}", content[:at]
    for _ in range(flips):
        at, bit = stream.below(len(content)), stream.below(8)
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        yield f"bit {bit} of {at} flipped", bytes(flipped)


@contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """The file with this content, or without it, while the block runs."""
    whole, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    try:
        if content is not None:
            path.write_bytes(content)
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(mode)
