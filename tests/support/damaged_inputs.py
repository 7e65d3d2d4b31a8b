"""Inputs for fuzzing: valid ones with random changes, as from broken files or typing errors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

DICTIONARY = [
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999999", b'""', b"[]", b"{}", b"[[]]", b'"a"',
    b"0.5", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\n", b"\r\n", b"\t", b" ", b"'", b'"', b"\\", b"\\ud800",
    b"#", b"#n=", b"/", b"..", b"%", b"*", b"&", b"!", b"!!python/object:os.system", b"---", b": ", b"- ", b"?", b"(",
    b")", b"()", b",", b"=", b"@", b"[" * 3000, b"{" * 3000, b'{"a":' * 500, b"9" * 5000, "𝟘²½é‮".encode(),
]  # fmt: skip


def damaged_inputs(corpus: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` inputs, each made from one of the corpus by one to four changes that depend on the seed.

    Args:
        corpus: valid inputs, none empty.
    """
    draw = random.Random(seed)
    for _ in range(count):
        data = bytearray(draw.choice(corpus))
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
            _change_bytes(data, corpus, draw)
        yield bytes(data)


def _change_bytes(data: bytearray, corpus: Sequence[bytes], draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.choice((1, 1, 2, 5, 20, 200)))
    match draw.randrange(8):
        case 0:
            data[at:end] = draw.choice(DICTIONARY)
        case 1:
            data[at:at] = draw.choice(DICTIONARY)
        case 2:
            del data[at:end]
        case 3:
            del data[at:]  # truncated
        case 4 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 5:
            data[at:at] = data[at:end] * draw.choice((1, 2, 50))
        case 6:
            other = draw.choice(corpus)
            start = draw.randrange(len(other))
            data[at:end] = other[start : start + draw.choice((1, 10, 100))]
        case _:
            data[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
