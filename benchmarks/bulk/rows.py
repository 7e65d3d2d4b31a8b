"""Generate rows with BARC's fields and published size."""

from __future__ import annotations

import json
from pathlib import Path

from harness.core.grid import COLOURS, Grid
from harness.core.random_stream import Stream

ROW_BYTES = 28_000


def write_rows(path: Path, megabytes: int) -> int:
    """Write rows of 10 pairs and 28 KB of text, and return their number. Cells are cut from random bytes, for speed."""
    rng = Stream("benchmark")
    noise = bytes(rng.below(COLOURS) for _ in range(60_000))
    n = 0
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            examples = []
            for _ in range(10):
                height, width = rng.between(8, 22), rng.between(8, 22)
                pair = []
                for _ in range(2):
                    start = rng.below(len(noise) - height * width)
                    pair.append(Grid(height, width, noise[start : start + height * width]).to_rows())
                examples.append(pair)
            row = {"source": "", "examples": examples, "seeds": ["a.py", "b.py"]}
            row["source"] = "# " * max(0, (ROW_BYTES - len(json.dumps(row))) // 2)
            file.write(json.dumps(row).encode() + b"\n")
            n += 1
    return n
