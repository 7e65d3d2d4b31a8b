"""Tasks of JSON files for tests of their readers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from harness.core.random_stream import Stream
from tests.support.data_samples import pair_json, random_task

TASKS = [random_task(Stream("file", k), 3, name=f"t{k}") for k in range(6)]
PAIRS = [pair_json(pair) for k in range(12) for pair in random_task(Stream("pool", k), 1).train]


def write(path: Path, data: object) -> str:
    """Write JSON, gzipped if the name ends in .gz, and return the path as a spec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)
