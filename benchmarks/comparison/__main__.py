"""Write the comparison with other tools into README.md and docs/speed.md.

    python -m benchmarks.comparison

It takes the figures from RESULTS.md, and measures nothing itself.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.common.entry import FOLDER
from benchmarks.common.marked_block import replace_block
from benchmarks.comparison.table import comparison

MODULE = "benchmarks.comparison"
ROOT = FOLDER.parent


def write_tables() -> None:
    """Write both tables with the figures of RESULTS.md."""
    results = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    for path, is_short in ((ROOT / "README.md", True), (ROOT / "docs" / "speed.md", False)):
        block = comparison(results, is_short=is_short)
        path.write_text(replace_block(path.read_text(encoding="utf-8"), block, MODULE), encoding="utf-8")


def main() -> int:
    """Write both tables."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    write_tables()
    return 0


if __name__ == "__main__":
    sys.exit(main())
