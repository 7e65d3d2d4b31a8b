"""Read predictions as a data frame in one of three ways: -m benchmarks.predictions.frames SIDE FILE.

Prints the number of rows, and sums of columns that all sides have, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_KEPT = (
    "model", "task_id", "test_index", "sample_index", "outcome", "cumulative_logprob", "n_tokens", "seconds",
)  # fmt: skip


def interface(path: Path) -> pd.DataFrame:
    """Return the predictions by the Python interface."""
    from benchmarks.predictions.files import SPEC
    from harness.api import load_run

    return load_run(path, SPEC).predictions


def plain(path: Path) -> pd.DataFrame:
    """Return the parsed lines without their grids."""
    import pandas as pd

    return pd.DataFrame(_lines(path))


def lean(path: Path) -> pd.DataFrame:
    """Return the columns that the interface has."""
    import pandas as pd

    return pd.DataFrame(
        {**{name: line[name] for name in _KEPT}, "symmetry": line["augmentation"]["symmetry"]} for line in _lines(path)
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    import orjson

    with path.open("rb") as file:
        for line in file:
            fields = orjson.loads(line)
            del fields["grid"]
            yield fields


if __name__ == "__main__":
    frame = {"interface": interface, "plain": plain, "lean": lean}[sys.argv[1]](Path(sys.argv[2]))
    sums = [round(float(frame[name].sum()), 3) for name in ("cumulative_logprob", "n_tokens", "test_index")]
    print(json.dumps({"check": [len(frame), *sums, int((frame["outcome"] == "grid").sum())]}))
